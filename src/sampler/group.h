/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rate group: the targets that share one interval, read together into one frame a tick.
 * THREADS: sampler only, all of it.
 */
#pragma once

#include "plan.h"

struct group {
    struct watch watch; /* of the timer */
    struct store *store;
    struct reaper *reaper;
    struct ring *ring;
    struct mailbox *events;
    struct recorder *recorder; /* borrowed from the sampler; NULL: nothing is recorded */
    int timer_fd;              /* owned */
    int64_t interval_ns;       /* 0: the slot is not in use */
    int64_t start_ns;          /* tick k is due at start_ns + k * interval_ns */
    int64_t served;            /* the newest tick that was served or missed; -1 at the start */
    struct group_plan *now;    /* owned; NULL: nothing to read */
    struct layout *layout;     /* of `now`; counted in layout->uses */
    bool fresh;                /* no sweep since `now` was adopted: its `carried` counts */
    bool adopting;             /* part of an adoption that is not over: not to be served yet */
    uint64_t batch;            /* of the memory that the newest plan with memory brought */
    struct frame_memory *spare[FRAMES_MAX]; /* owned; for frames that have none or an older one */
};

/* What a group calls between two slices of a long sweep: serves whoever is due and more urgent. */
typedef void group_yield_fn(void *ctx, const struct group *running);

MUST_USE int group_init(struct group *group, struct store *store, struct reaper *reaper,
                        struct mailbox *events, unsigned slot);
/* Frees at once what it holds: only when the thread has ended and nobody reads. */
void group_deinit(struct group *group);

/*
 * Adoption, in two steps because VMs may move between the groups of one plan: first, for all its
 * groups, note where each target's last block is; then take the new plans (owned from here on; the
 * old ones go to the reaper) and set the timers.
 */
void group_plan_carry(struct group_plan *plan);
void group_adopt(struct group *group, struct group_plan *plan);
/* Nothing is read any more; the slot can be used for another interval. */
void group_end(struct group *group);

/* When the next tick is due; INT64_MAX for a slot not in use. */
int64_t group_deadline_ns(const struct group *group);
/* Serves the tick that is due: counts lateness and missed ticks, then sweeps and publishes. */
void group_serve(struct group *group, int64_t now_ns, group_yield_fn *yield, void *ctx);
/* Reads all targets into a frame without publishing it; NULL when no frame is free. */
struct frame *group_sweep(struct group *group, int64_t now_ns, group_yield_fn *yield, void *ctx);
void group_publish(struct group *group, struct frame *frame);

/* The last good reading of a target, wherever it is read now. */
struct last_reading group_last_reading(const struct sampled_target *target);
/* No more reads of this VM's targets; they are chained for closing. */
void group_mute_vm(struct group *group, struct sampled_vm *vm);
