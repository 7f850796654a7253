/* SPDX-License-Identifier: Apache-2.0 */
#include "bpf_frames.h"

int bpf_frames_new(uint32_t n_copies, size_t bytes, uint32_t element_bytes, bool by_files,
                   struct bpf_frames **ret_frames)
{
    struct bpf_error error; /* said by whoever tried BPF first; here it can only be memory */
    size_t elements = (bytes + element_bytes - 1) / element_bytes;
    CLEANUP_FREE struct bpf_frames *frames = calloc(1, sizeof *frames);
    if (!frames || elements > UINT32_MAX / FRAMES_MAX)
        return -ENOMEM;
    atomic_init(&frames->refs, 1);
    frames->n_copies = n_copies;
    frames->element_bytes = element_bytes;
    int r = bpf_sweep_new(n_copies, FRAMES_MAX, (uint32_t)elements, element_bytes, &frames->sweep,
                          &error);
    if (r == 0 && by_files)
        r = bpf_sweep_add_files(frames->sweep, &error);
    if (r < 0) {
        bpf_sweep_free(frames->sweep);
        return r;
    }
    frames->by_files = by_files;
    *ret_frames = steal_ptr(&frames);
    return 0;
}

struct bpf_frames *bpf_frames_ref(struct bpf_frames *frames)
{
    atomic_fetch_add_explicit(&frames->refs, 1, memory_order_relaxed);
    return frames;
}

void bpf_frames_unref(struct bpf_frames *frames)
{
    if (!frames || atomic_fetch_sub_explicit(&frames->refs, 1, memory_order_acq_rel) != 1)
        return;
    bpf_sweep_free(frames->sweep);
    free(frames);
}

static void leave(void *owner)
{
    bpf_frames_unref(owner);
}

int bpf_frames_memory(struct bpf_frames *frames, uint32_t place, size_t bytes,
                      struct frame_memory **ret_memory)
{
    int r = frame_memory_in(bpf_sweep_frame(frames->sweep, place), bytes, place, leave, frames,
                            ret_memory);
    if (r == 0)
        (void)bpf_frames_ref(frames);
    return r;
}
