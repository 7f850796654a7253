/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A scheduler without a thread of its own, over a recorded /proc or the real one, that reads when
 * the test says so.
 */
#pragma once

#include <string.h>

#include "scheduler.h"
#include "suites.h"
#include "tree.h"

/* No vCPU of that id is shown. */
#define ABSENT UINT64_MAX

struct rig {
    struct tree tree;
    bool real; /* no tree */
    struct proc proc;
    struct store *store;
    struct scheduler *scheduler;
};

/* What has been told of trouble since rig_make(). */
extern unsigned rig_troubles[SCHEDULER_TROUBLES];

void rig_make(struct rig *rig, const char *yaml);
/* The same over the kernel's own /proc. */
void rig_make_real(struct rig *rig, const char *yaml);
/* From now on new files are not kept open. */
void rig_make_without_fds(struct rig *rig, const char *yaml);
void rig_end(struct rig *rig);
struct config *rig_config(const char *yaml);

/* A process in the tree, whose first thread is called as the process. */
void rig_process(const struct rig *rig, pid_t pid, uint64_t start_ticks, const char *name);
/* A thread of it: run_ns 1000 + tid, wait_ns 1. */
void rig_thread(const struct rig *rig, pid_t pid, pid_t tid, const char *name);
void rig_times(const struct rig *rig, pid_t pid, pid_t tid, uint64_t run_ns, uint64_t wait_ns);
void rig_thread_ends(const struct rig *rig, pid_t pid, pid_t tid);

/* VM `id` of process `pid` (which is the id in the trees here) with vCPUs 0 … n-1 unless told. */
void rig_vm(const struct rig *rig, pid_t pid, const char *vmm, uint32_t n_vcpus);
void rig_vm_of(const struct rig *rig, uint64_t id, pid_t pid, uint64_t start_ticks, const char *vmm,
               const int32_t *vcpus, uint32_t n);
void rig_hint(const struct rig *rig, uint64_t id, int32_t vcpu, enum thread_hint hint, pid_t tid);

/* Commits and reads; what there is then. */
void rig_read(const struct rig *rig);
uint64_t rig_run(const struct rig *rig, uint64_t id, int32_t vcpu);
uint64_t rig_wait(const struct rig *rig, uint64_t id, int32_t vcpu);
/* The VM's sums: ABSENT where they are not whole. */
uint64_t rig_sum_run(const struct rig *rig, uint64_t id);
uint64_t rig_sum_wait(const struct rig *rig, uint64_t id);
