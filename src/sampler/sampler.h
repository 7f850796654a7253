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
struct plan; /* see plan.h: between planner and sampler only */

enum sampler_event_kind {
    SAMPLER_EVENT_VM_EXITED,   /* its VMM has exited; its fds are on their way to close() */
    SAMPLER_EVENT_READ_FAILED, /* a target stopped being readable; said once until it recovers */
    SAMPLER_EVENT_READ_RECOVERED,
};

/* Collected from sampler_events(); free() it. */
struct sampler_event {
    struct letter letter; /* first member */
    enum sampler_event_kind kind;
    void *owner;    /* planned_vm_spec.owner */
    uint64_t vm_id; /* struct vm.id: tells a late event of a removed VM from one of its successor */
    int32_t vcpu;   /* -1: the VM scope */
    int error;      /* READ_FAILED: -errno, or 0 for a short read */
};

MUST_USE int sampler_new(struct store *store, struct reaper *reaper, const struct config *config,
                         struct sampler **ret_sampler);
/* Starts and joins the thread. sampler_stop() is idempotent. */
MUST_USE int sampler_start(struct sampler *sampler);
void sampler_stop(struct sampler *sampler);
void sampler_free(struct sampler *sampler);
DEFINE_CLEANUP(struct sampler *, sampler_free)

/* Events for discovery: one reader. */
struct mailbox *sampler_events(struct sampler *sampler);
