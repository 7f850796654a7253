/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CPU time and run-queue wait of every vCPU, by the thread that runs it. A thread of our own reads
 * /proc/PID/task/TID/schedstat of all of them at scheduler.interval, on an absolute grid, and
 * publishes store->cputimes. It shares nothing with the sampler.
 *
 * Which thread runs a vCPU is told by BPF, or by the statistics file's id once it has been checked,
 * or by the threads' names (bind.c); where none of them tells, the vCPU is absent.
 *
 * Capabilities of that thread: none, unless /proc is mounted with hidepid= (ProtectProc=): then
 * CAP_SYS_PTRACE, as for discovery.
 */
#pragma once

#include "config.h"
#include "proc.h"
#include "store.h"

struct scheduler;

enum scheduler_trouble {
    SCHEDULER_NO_SCHEDSTAT, /* the kernel does not count */
    SCHEDULER_FORBIDDEN,    /* a VM's process or its threads cannot be seen */
    SCHEDULER_FDS_SHORT,    /* files are opened for each reading, which costs more */
    SCHEDULER_TROUBLES,
};
/* Called once for each kind of trouble, on the scheduler's thread. `error`: 0 or -errno. */
typedef void scheduler_notice_fn(enum scheduler_trouble trouble, int error);

/* `store` and `proc` are borrowed; a reference to `config` is kept. Returns 0 or -errno. */
MUST_USE int scheduler_new(struct store *store, const struct proc *proc, struct config *config,
                           scheduler_notice_fn *notice, struct scheduler **ret_scheduler);
MUST_USE int scheduler_start(struct scheduler *scheduler);
/* Ends the thread; what was published stays. Idempotent. */
void scheduler_stop(struct scheduler *scheduler);
void scheduler_free(struct scheduler *scheduler);
DEFINE_CLEANUP(struct scheduler *, scheduler_free)

/* Takes what has been committed and reads everything once, in the caller's thread: instead of
 * scheduler_start(), for --once and tests. */
void scheduler_run_once(struct scheduler *scheduler);
/* For tests, before anything is read: another clock. */
void scheduler_set_clock(struct scheduler *scheduler, int64_t (*now_ns)(void));
/* The interval and the windows of a new configuration. Takes a reference. THREADS: any. */
void scheduler_set_config(struct scheduler *scheduler, struct config *config);

/*
 * What is known of VMs and vCPUs. Nothing takes effect before scheduler_commit(). What memory is
 * lacking for stays unknown until something of the VM changes again. THREADS: discovery, all of it.
 */

struct scheduler_vm {
    uint64_t id; /* struct vm.id; ascending from call to call */
    pid_t pid;
    uint64_t start_ticks; /* of the process, since boot: who has the pid later is another */
    const char *vmm;      /* as discovery names it */
};
void scheduler_vm_add(struct scheduler *scheduler, const struct scheduler_vm *vm);
void scheduler_vm_remove(struct scheduler *scheduler, uint64_t id);
/* How many vCPUs the VM has, known here or not; 0: not known. */
void scheduler_vm_set_vcpus(struct scheduler *scheduler, uint64_t id, uint32_t n_vcpus);
void scheduler_vcpu_add(struct scheduler *scheduler, uint64_t id, int32_t vcpu);
void scheduler_vcpu_remove(struct scheduler *scheduler, uint64_t id, int32_t vcpu);

enum thread_hint {
    THREAD_HINT_RUNS, /* the thread that ran the vCPU last, by the kernel: our own pid namespace */
    THREAD_HINT_MADE, /* the one that made it, by its statistics' id: the initial pid namespace */
    THREAD_HINTS,
};
void scheduler_vcpu_thread(struct scheduler *scheduler, uint64_t id, int32_t vcpu,
                           enum thread_hint hint, pid_t tid);
void scheduler_commit(struct scheduler *scheduler);
/* Whether a vCPU is without the thread it had: it may have got another. */
bool scheduler_lost_threads(const struct scheduler *scheduler);
