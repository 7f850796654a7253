/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sweep of a rate group together with the frames in its map: released when neither the group
 * nor any frame uses it. THREADS: any may hold a reference; what is inside is the sampler's.
 */
#pragma once

#include <stdatomic.h>

#include "bpf.h"
#include "frame.h"

struct bpf_frames {
    atomic_uint refs;
    struct bpf_sweep *sweep;
    uint32_t n_copies; /* room for */
    uint32_t element_bytes;
    bool by_files; /* can copy blocks of VMs that nobody pins */
};

/*
 * Room for n_copies blocks, and FRAMES_MAX frames of `bytes` (rounded up to whole elements).
 * `by_files`: some of the blocks are of VMs that nobody pins. Returns 0 or -errno.
 */
MUST_USE int bpf_frames_new(uint32_t n_copies, size_t bytes, uint32_t element_bytes, bool by_files,
                            struct bpf_frames **ret_frames);
struct bpf_frames *bpf_frames_ref(struct bpf_frames *frames);
void bpf_frames_unref(struct bpf_frames *frames);
/* The memory of frame `place`; it holds a reference. Returns 0 or -ENOMEM. */
MUST_USE int bpf_frames_memory(struct bpf_frames *frames, uint32_t place, size_t bytes,
                               struct frame_memory **ret_memory);
