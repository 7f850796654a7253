/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One walk over the VMs for all that is derived, so that a block is in the cache for whoever comes
 * second, and the same slices as the sweep's, so that a faster group does not wait for longer.
 */
#include "derive.h"

#include "rates.h"
#include "record.h"

enum {
    SLICE_TARGETS = 64,
};

static void derive_vm(const struct tick_vm *tick)
{
    record_tick(tick);
    rates_observe(tick);
}

void derive(struct group *group, const struct frame *frame, group_yield_fn *yield, void *ctx)
{
    const struct layout *layout = group->layout;
    struct tick_vm tick = {
        .frame = frame,
        .before = group->fresh ? NULL : atomic_load(&group->ring->newest),
        .carried = group->now->carried,
        .interval_ns = group->interval_ns,
    };
    uint32_t in_slice = 0;
    for (uint32_t i = 0; i < layout->n_vms; i++) {
        tick.vm = group->now->vms[i];
        tick.place = &layout->vms[i];
        tick.targets = &layout->targets[tick.place->first_target];
        derive_vm(&tick);
        in_slice += tick.place->n_targets;
        if (in_slice >= SLICE_TARGETS && yield) {
            yield(ctx, group);
            in_slice = 0;
        }
    }
}
