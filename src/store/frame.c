/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why pinning is safe without a lock. A reader loads `newest`, raises that frame's pins, and looks
 * at `newest` again. If it still is the newest, the sampler cannot have begun to reuse it: it only
 * takes frames that are neither newest nor pinned, and in the one order of all these (sequentially
 * consistent) operations our pin stands before any later check of its. If it is not, we let go
 * without having looked inside. Frame headers live as long as the store, so a stale pointer is
 * never wild.
 */
#include "frame.h"

#include <sys/mman.h>

static void frame_memory_release(struct reapable *self)
{
    frame_memory_free(CONTAINER_OF(self, struct frame_memory, reapable));
}

int frame_memory_in(void *map, size_t bytes, uint32_t place, void (*leave)(void *owner),
                    void *owner, struct frame_memory **ret_memory)
{
    struct frame_memory *memory = calloc(1, sizeof *memory);
    if (!memory)
        return -ENOMEM;
    *memory = (struct frame_memory){
        .reapable.release = frame_memory_release,
        .map = map,
        .bytes = bytes,
        .leave = leave,
        .owner = owner,
        .place = place,
    };
    *ret_memory = memory;
    return 0;
}

int frame_memory_new(size_t bytes, struct frame_memory **ret_memory)
{
    CLEANUP_FREE struct frame_memory *memory = calloc(1, sizeof *memory);
    if (!memory)
        return -ENOMEM;
    memory->map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory->map == MAP_FAILED)
        return -ENOMEM;
    memory->bytes = bytes;
    memory->reapable.release = frame_memory_release;
    *ret_memory = steal_ptr(&memory);
    return 0;
}

void frame_memory_free(struct frame_memory *memory)
{
    if (!memory)
        return;
    if (memory->leave)
        memory->leave(memory->owner);
    else
        (void)munmap(memory->map, memory->bytes);
    free(memory);
}

void layout_free(struct layout *layout)
{
    if (!layout)
        return;
    for (uint32_t i = 0; i < layout->n_vms; i++) {
        vm_unref(layout->vms[i].vm);
        vm_identity_unref(layout->vms[i].identity);
        bursts_unref(layout->vms[i].bursts);
        free(layout->vms[i].retired);
    }
    free(layout->vms);
    free(layout->targets);
    free(layout->labels);
    free(layout);
}

static void layout_release(struct reapable *self)
{
    layout_free(CONTAINER_OF(self, struct layout, reapable));
}

int layout_new(uint32_t n_vms, uint32_t n_targets, size_t label_bytes, struct layout **ret_layout)
{
    CLEANUP(cleanup_layout_free) struct layout *layout = calloc(1, sizeof *layout);
    if (!layout)
        return -ENOMEM;
    layout->reapable.release = layout_release;
    layout->vms = calloc(MAX_OF(n_vms, 1u), sizeof *layout->vms);
    layout->targets = calloc(MAX_OF(n_targets, 1u), sizeof *layout->targets);
    layout->labels = malloc(MAX_OF(label_bytes, (size_t)1));
    if (!layout->vms || !layout->targets || !layout->labels)
        return -ENOMEM;
    *ret_layout = steal_ptr(&layout);
    return 0;
}

struct frame *ring_pin(struct ring *ring)
{
    for (;;) {
        struct frame *frame = atomic_load(&ring->newest);
        if (!frame)
            return NULL;
        atomic_fetch_add(&frame->pins, 1);
        if (atomic_load(&ring->newest) == frame)
            return frame;
        atomic_fetch_sub(&frame->pins, 1);
    }
}

void frame_unpin(struct frame *frame)
{
    if (frame)
        atomic_fetch_sub(&frame->pins, 1);
}

struct frame *ring_free_frame(struct ring *ring)
{
    struct frame *newest = atomic_load_explicit(&ring->newest, memory_order_relaxed);
    /* Always from the front: two frames do for most ticks, and they stay in the cache. */
    for (size_t i = 0; i < FRAMES_MAX; i++) {
        struct frame *frame = &ring->frames[i];
        if (frame != newest && atomic_load(&frame->pins) == 0)
            return frame;
    }
    return NULL;
}

void ring_publish(struct ring *ring, struct frame *frame)
{
    atomic_store(&ring->newest, frame);
}
