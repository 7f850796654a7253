/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The recorder: every tick of every VM, compressed, in fixed memory. The sampler writes, anybody
 * reads meanwhile, and nobody waits for anybody.
 *
 * A recording says what changed; where it ends, the values are those of the newest frame, or, when
 * the VM has ended, those that its last record holds. Readers start there and go back
 * (replay.h).
 */
#pragma once

#include "chunks.h"
#include "codec.h"
#include "frame.h"
#include "reapable.h"
#include "store.h"

struct recorder;

/* Memory of a VM that has ended, held for a dump. */
struct held_item {
    struct held_item *next; /* in the recorder's list of those that come back */
    struct held_chunks chunks;
    atomic_bool busy; /* from recorder_vm_hold() until the sampler has the memory back */
};

/*
 * All it will ever need is allocated here. `self` is borrowed: it counts there. Returns 0 or
 * -ENOMEM.
 */
MUST_USE int recorder_new(uint64_t memory_bytes, struct selfstats *self,
                          struct recorder **ret_recorder);
struct recorder *recorder_ref(struct recorder *recorder);
void recorder_unref(struct recorder *recorder);
DEFINE_CLEANUP(struct recorder *, recorder_unref)
/* For the reaper: lets go of one reference. THREADS: whoever has it to give, once. */
struct reapable *recorder_reapable(struct recorder *recorder);

/*
 * The recorder that readers find, NULL while there is none. Publishing takes a reference of its
 * own. THREADS: any but the sampler.
 */
void recorder_publish(struct store *store, struct recorder *recorder);
struct recorder *recorder_get(struct store *store);

/* --- writing. THREADS: sampler only; nothing is allocated, logged or locked. --- */

/* A target in a tick. */
struct recorder_target {
    const struct layout_target *place;
    enum target_status status;
    int64_t read_ns;    /* READ: when */
    const void *before; /* its block in the tick before, NULL: none */
    const void *now;    /* READ and HELD: its block */
};

/*
 * One tick of one VM: begin, its targets in the layout's order, end. `time_ns` is
 * recorder_tick_ns(); it rises. `uniform`: all targets were read at time_ns and have a `before`.
 * begin returns false where there is nothing to say: the VM cannot be recorded.
 */
bool recorder_tick_begin(struct recorder *recorder, struct vm *vm,
                         const struct layout_target *targets, uint32_t n_targets, int64_t time_ns,
                         bool uniform);
void recorder_tick_target(struct recorder *recorder, const struct recorder_target *target);
void recorder_tick_end(struct recorder *recorder);

/*
 * The targets change, or the VM ends: what they had last, in the layout's order (block NULL: it had
 * nothing). The next tick starts anew.
 */
bool recorder_last_begin(struct recorder *recorder, struct vm *vm,
                         const struct layout_target *targets, uint32_t n_targets);
void recorder_last_target(struct recorder *recorder, const struct layout_target *target,
                          const void *block);
void recorder_last_end(struct recorder *recorder);

/* The VM has ended: its memory can be used for others … */
void recorder_vm_ended(struct recorder *recorder, struct vm *vm);
/*
 * … or stays as it is until given back, for a dump: the newest part of it, where all is more than
 * one VM may have held. Returns 0, or, with nothing done, -ENOENT (nothing of it is recorded) or
 * -ENOSPC (too much is held already).
 */
MUST_USE int recorder_vm_hold(struct recorder *recorder, struct vm *vm, struct held_item *item);
/* THREADS: any. */
void recorder_give_back(struct recorder *recorder, struct held_item *item);

/* --- reading. THREADS: any. --- */

/* See chunks_copy(). */
MUST_USE int recorder_copy(const struct recorder *recorder, const struct vm *vm, int64_t since_ns,
                           struct excerpt *ret_excerpt);

/*
 * From monotonic times to those since the epoch. The same for a tick whoever asks and however
 * often, until the wall clock has moved by a millisecond.
 */
int64_t recorder_wall_offset_ns(struct recorder *recorder);

/*
 * A VM's time in a tick, by which a frame and a record find each other: when the first of its
 * targets that was read was read; with none, when the sweep began.
 */
static inline int64_t recorder_tick_ns(const struct frame *frame, uint32_t first_target,
                                       uint32_t n_targets)
{
    for (uint32_t i = first_target; i < first_target + n_targets; i++) {
        if (frame->status[i] == TARGET_READ)
            return frame->read_ns[i];
    }
    return frame->begin_ns;
}
