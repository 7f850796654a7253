/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a reader sees: the newest frame of every rate group, pinned, as one list of VMs sorted by
 * label. A VM whose VMM has exited is left out, one that is moving between groups is there once.
 */
#pragma once

#include "frame.h"
#include "store.h"

struct view_vm {
    const struct frame *frame;
    const struct layout_vm *vm;
    const struct layout_target *targets; /* vm->n_targets, VM scope first, vCPUs by id */
    const uint8_t *status;               /* the same index: enum target_status */
};

struct view {
    struct store *store;
    struct frame *pinned[RINGS_MAX];
    unsigned n_pinned;
    struct view_vm *vms; /* owned */
    size_t n_vms;
};

/*
 * Waits only for other readers (FRAME_READERS_MAX at a time), never for the sampler.
 * Returns 0 or -ENOMEM. THREADS: any but the sampler.
 */
MUST_USE int view_take(struct store *store, struct view *ret_view);
void view_drop(struct view *view);
#define CLEANUP_VIEW CLEANUP(view_drop)
