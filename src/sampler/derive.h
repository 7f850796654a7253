/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is made of each tick besides the frame: of every VM, from what its targets had before and
 * have now. Called between the sweep and the publication. THREADS: sampler only; it allocates
 * nothing, logs nothing, takes no lock.
 */
#pragma once

#include "group.h"

/* One VM in a tick. Indices of targets count from the VM's first. */
struct tick_vm {
    struct sampled_vm *vm;
    const struct layout_vm *place;
    const struct layout_target *targets; /* place->n_targets */
    const struct frame *frame;           /* not published yet */
    const struct frame *before; /* of the same layout; NULL: `carried` is what was before */
    const struct last_reading *carried;
    int64_t interval_ns; /* of its group */
};

static inline enum target_status tick_status(const struct tick_vm *tick, uint32_t i)
{
    return (enum target_status)tick->frame->status[tick->place->first_target + i];
}

/* What the target has now; only of one that is not absent. */
static inline struct last_reading tick_now(const struct tick_vm *tick, uint32_t i)
{
    return (struct last_reading){
        .block = frame_block(tick->frame, &tick->targets[i]),
        .read_ns = tick->frame->read_ns[tick->place->first_target + i],
    };
}

/* What it had in the tick before; block NULL: nothing. Of a held one, when it was read. */
static inline struct last_reading tick_before(const struct tick_vm *tick, uint32_t i)
{
    uint32_t at = tick->place->first_target + i;
    if (!tick->before)
        return tick->carried[at];
    if (tick->before->status[at] == TARGET_ABSENT)
        return (struct last_reading){0};
    return (struct last_reading){
        .block = frame_block(tick->before, &tick->targets[i]),
        .read_ns = tick->before->read_ns[at],
    };
}

/* All of it, in slices between which `yield` is called. */
void derive(struct group *group, const struct frame *frame, group_yield_fn *yield, void *ctx);
