/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layouts, frames, and how a reader gets at the newest frame without anybody waiting.
 *
 * A ring belongs to one rate group. The sampler takes a free frame, fills it, and publishes it with
 * one atomic store. A reader pins the newest frame, reads it as long as it likes, and unpins it; a
 * frame that is pinned or newest is simply not free. Readers are at most FRAME_READERS_MAX at a
 * time (a semaphore in view_take()), so with FRAMES_MAX frames one is always free.
 */
#pragma once

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "bursts.h"
#include "reapable.h"
#include "schema_table.h"
#include "vm.h"

enum {
    FRAME_READERS_MAX = 4,
    FRAMES_MAX = FRAME_READERS_MAX + 2, /* the newest, the one being written, one for each reader */
    RINGS_MAX = 64,                     /* rate groups at a time */
};

/* One data block in a frame. Immutable after publish. */
struct layout_target {
    const struct schema *schema;
    uint32_t offset;        /* of its data block in frame->data, bytes, a multiple of 8 */
    int32_t vcpu;           /* the kernel's vcpu_id; -1 for the VM scope */
    uint32_t labels_offset; /* of `{vm="…",vcpu="3"` in layout->labels; vCPU scope only */
    uint32_t labels_len;
};

/* One VM in a layout: targets[first_target … first_target + n_targets - 1], VM scope first. */
struct layout_vm {
    struct vm *vm;                /* a reference */
    struct vm_identity *identity; /* a reference */
    uint32_t first_target;
    uint32_t n_targets;
    uint32_t n_vcpus; /* vCPUs the VM has, readable or not */
    /*
     * Last values of vCPUs that have left, summed value by value: a data block of retired_schema.
     * NULL: none has left. Owned by the layout.
     */
    uint64_t *retired;
    const struct schema *retired_schema;
    struct bursts *bursts; /* a reference; NULL: nothing is watched between scrapes */
};

/* Immutable after publish. THREADS: made by discovery, adopted by the sampler, freed by the reaper.
 */
struct layout {
    struct reapable reapable;
    uint32_t n_vms;
    uint32_t n_targets;
    size_t head_bytes; /* what a frame's memory needs for status and times, padded … */
    size_t data_bytes; /* … and after it for data */
    struct layout_vm *vms;
    struct layout_target *targets;
    char *labels;  /* arena of label texts */
    unsigned uses; /* THREADS: sampler only: frames that carry it, and the group */
};

/* An empty layout with room for as much; the caller fills it and sets n_vms and n_targets. */
MUST_USE int layout_new(uint32_t n_vms, uint32_t n_targets, size_t label_bytes,
                        struct layout **ret_layout);
void layout_free(struct layout *layout);
DEFINE_CLEANUP(struct layout *, layout_free)

/* What became of a target in this frame: frame->status[target index]. */
enum target_status {
    TARGET_ABSENT = 0, /* never read well: there is nothing to show */
    TARGET_READ,       /* read in this tick */
    TARGET_HELD,       /* not readable in this tick; the block holds the last good values */
};

/* Memory of a frame: a mapping of its own, given back to the kernel whole. */
struct frame_memory {
    struct reapable reapable;
    void *map;
    size_t bytes;
    /*
     * Memory that is part of something larger (a BPF map) has an owner, which is told when the
     * frame needs it no more; `place` is its number there. NULL: a mapping of its own.
     */
    void (*leave)(void *owner);
    void *owner;
    uint32_t place;
    uint64_t batch; /* frames of one layout have memory of one batch */
};
/* Pages cost nothing until they are written. Returns 0 or -ENOMEM. */
MUST_USE int frame_memory_new(size_t bytes, struct frame_memory **ret_memory);
/* The same in memory of somebody else's. */
MUST_USE int frame_memory_in(void *map, size_t bytes, uint32_t place, void (*leave)(void *owner),
                             void *owner, struct frame_memory **ret_memory);
void frame_memory_free(struct frame_memory *memory);

/* Immutable between publication and reuse. */
struct frame {
    atomic_uint pins;
    struct layout *layout;       /* THREADS: sampler, or whoever has pinned the frame */
    struct frame_memory *memory; /* NULL: none yet */
    uint8_t *status;             /* one enum target_status a target; inside memory */
    int64_t *read_ns;            /* when each target's block was read; inside memory */
    uint8_t *data;               /* the blocks; inside memory */
    uint64_t tick;               /* of the group */
    int64_t begin_ns;            /* when the sweep began and ended */
    int64_t end_ns;
};

/* Where the times stand in a frame's memory, and how much both take; the caller pads the latter. */
static inline size_t layout_times_offset(uint32_t n_targets)
{
    return (n_targets + sizeof(int64_t) - 1) / sizeof(int64_t) * sizeof(int64_t);
}

static inline size_t layout_head_bytes(uint32_t n_targets)
{
    return layout_times_offset(n_targets) + n_targets * sizeof(int64_t);
}

/* Gives the frame its places in its memory for its layout. */
static inline void frame_lay_out(struct frame *frame)
{
    frame->status = frame->memory->map;
    frame->read_ns =
        (int64_t *)(void *)(frame->status + layout_times_offset(frame->layout->n_targets));
    frame->data = frame->status + frame->layout->head_bytes;
}

struct ring {
    _Atomic(struct frame *) newest; /* NULL: nothing to read */
    struct frame frames[FRAMES_MAX];
};

/* THREADS: any reader. The newest frame, pinned, or NULL. */
struct frame *ring_pin(struct ring *ring);
void frame_unpin(struct frame *frame);
/* THREADS: sampler only. A frame nobody reads: never NULL while readers keep to their bound. */
struct frame *ring_free_frame(struct ring *ring);
void ring_publish(struct ring *ring, struct frame *frame);

/* A target's data block in a frame. */
static inline const void *frame_block(const struct frame *frame, const struct layout_target *target)
{
    return frame->data + target->offset;
}
