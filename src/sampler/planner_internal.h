/* SPDX-License-Identifier: Apache-2.0 */
/* What planner.c (the set) and plan_build.c (layouts from it) share. */
#pragma once

#include <stdio.h>

#include "clock.h"
#include "plan.h"
#include "planner.h"

#define SLOT_NONE UINT32_MAX

struct planned_vm {
    struct sampled_vm *sampled; /* ours until submitted, then the sampler's; freed by the reaper */
    struct vm_identity *identity; /* a reference; its label may differ from base_label */
    char *base_label;
    struct sampled_target **targets; /* by vcpu, the VM's own (-1) first */
    size_t n_targets, targets_capacity;
    uint32_t n_vcpus;
    uint32_t slot;      /* SLOT_NONE before the first commit */
    uint32_t next_slot; /* during a commit */

    int64_t interval_ns;
    bool submitted;
    const struct schema *retired_schema; /* of the vCPUs that have left; NULL: none has */
    void *owner;
};

struct planned_slot {
    int64_t interval_ns;      /* 0: free */
    size_t memory_bytes;      /* of each of its frames */
    struct bpf_frames *sweep; /* a reference; NULL: no target of it is read by BPF */
    uint32_t n_vms;           /* during a commit */
    bool dirty;               /* its layout must be made anew */
    bool gains_movers;        /* during a commit: VMs come here from another group */
};

struct planner {
    struct store *store;
    struct sampler *sampler;
    struct config *config;
    size_t n_vms, vms_capacity;
    struct planned_vm **vms;
    size_t n_targets;
    struct {
        size_t n, capacity;
        struct sampled_vm **items;
    } leaving_vms; /* room for all VMs besides */
    struct {
        size_t n, capacity;
        struct sampled_target **items;
    } leaving_targets; /* room for all targets besides */
    bool regroup;      /* intervals are to be matched again */
    bool relabel;      /* VMs have come or gone: look for clashes again */
    uint64_t batches;  /* of frame memory made so far */
    struct planned_slot slots[RINGS_MAX];
};
