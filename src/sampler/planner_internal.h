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
    struct sampled_target *leaving; /* those that leave with the next plan and were not replaced */
    uint32_t n_vcpus;
    uint32_t slot;      /* SLOT_NONE before the first commit */
    uint32_t next_slot; /* during a commit */

    int64_t interval_ns;
    bool submitted;
    const struct schema *retired_schema; /* of the vCPUs that have left; NULL: none has */
    struct bursts *bursts; /* a reference: as it was laid out last; NULL: nothing is watched */
    struct kept_set {
        struct burst_set *set; /* a reference */
        int32_t vcpu;
        enum scope scope;
    } * kept_sets; /* all there ever were, so that a vCPU that comes back goes on where it was */
    size_t n_kept_sets, kept_sets_capacity;
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
    struct burst_stats *burst_stats[SCHEMAS_MAX]; /* references; made when they are first wanted */
};

/* plan_bursts.c: what is watched between scrapes. */

/* Of the VM as it stands. Returns 0 with a reference, NULL for nothing, or -ENOMEM. */
MUST_USE int planner_bursts(struct planner *planner, struct planned_vm *vm,
                            struct bursts **ret_bursts);
void planned_vm_free_bursts(struct planned_vm *vm);
/* Another configuration: what is watched is made anew at the next commit where it differs. */
void planner_change_bursts(struct planner *planner, const struct config *config);
void planner_free_bursts(struct planner *planner);
