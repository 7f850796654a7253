/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sampler: one thread, one epoll, one timerfd a rate group, one pidfd a VM. On its tick path it
 * allocates nothing, logs nothing, takes no lock and closes no fd.
 */
#pragma once

#include "config.h"
#include "mailbox.h"
#include "reaper.h"
#include "store.h"

struct sampler;
struct recorder; /* recorder.h */
struct dumper;   /* dumper.h */

enum sampler_event_kind {
    SAMPLER_EVENT_VM_EXITED,   /* its VMM has exited; its fds are on their way to close() */
    SAMPLER_EVENT_READ_FAILED, /* a target stopped being readable; said once in its life */
};

/* Collected from sampler_events(); the reader frees it. */
struct sampler_event {
    struct letter letter; /* first member */
    enum sampler_event_kind kind;
    uint64_t vm_id; /* struct vm.id; the VM may have been removed meanwhile */
    int32_t vcpu;   /* -1: the VM scope */
    int error;      /* READ_FAILED: -errno (-ESRCH: all its files are closed), or 0: a short read */
};

/* `store` and `reaper` are borrowed. */
MUST_USE int sampler_new(struct store *store, struct reaper *reaper, struct sampler **ret_sampler);
/* Who is told of VMMs that exit. Borrowed; before the sampler is started. */
void sampler_set_dumper(struct sampler *sampler, struct dumper *dumper);
/*
 * Everything is recorded there from now on, or nothing any more (NULL). Takes a reference of its
 * own. THREADS: one at a time.
 */
void sampler_set_recorder(struct sampler *sampler, struct recorder *recorder);
/*
 * Starts the thread, on the given CPUs (n_cpus 0: the inherited ones). Returns 0 or -errno; CPUs
 * that the kernel refuses give -EINVAL and no thread.
 */
MUST_USE int sampler_start(struct sampler *sampler, const int *cpus, size_t n_cpus);
/* Moves the running thread to other CPUs (n_cpus 0: all that the process may use). */
MUST_USE int sampler_set_cpus(struct sampler *sampler, const int *cpus, size_t n_cpus);
/* Joins the thread. Idempotent. */
void sampler_stop(struct sampler *sampler);
void sampler_free(struct sampler *sampler);
DEFINE_CLEANUP(struct sampler *, sampler_free)

/* For --once and tests, instead of the thread: adopts what was planned and reads each group once.
 */
void sampler_run_once(struct sampler *sampler);

/*
 * For a watchdog: asks the running thread for a sign of life, and whether it has come round since.
 * THREADS: any.
 */
void sampler_ask(struct sampler *sampler);
bool sampler_answered(const struct sampler *sampler);

/* Events for discovery: one reader. */
struct mailbox *sampler_events(struct sampler *sampler);
