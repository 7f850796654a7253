/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The recorder's memory: one mapping of fixed size, in chunks. A recording is a list of chunks and
 * a stream of bytes in them; when there is no free chunk the recording that has most gives its
 * oldest, so that all that want as much end with equal shares. Writing takes no lock, allocates
 * nothing, and its cost does not depend on how many recordings there are.
 *
 * THREADS: writing is the sampler's alone. Anybody may copy a recording meanwhile: each chunk has a
 * number that rises when the chunk is taken for other bytes, and the copy ends where a number is no
 * longer what it was.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "cleanup.h"
#include "recording.h"

enum {
    /*
     * Small, because half of a recording's newest one is empty on average, and a whole one goes at
     * a time: of 1,000 VMs in 64 MiB each has 32.
     */
    CHUNK_BYTES = 2048,
    CHUNK_WORDS = CHUNK_BYTES / 8,
};

struct chunk_head; /* chunks.c */

struct chunks {
    void *map;
    size_t map_bytes;
    uint32_t n;
    /*
     * Free are those linked by `newer` from `free` on, which were taken before, and all from
     * `fresh` on, which never were: a large memory is not touched before it is needed.
     */
    uint32_t free;
    uint32_t fresh;
    uint32_t n_free;
    uint32_t most;              /* the largest number of chunks that a recording has */
    int64_t lost_ns;            /* time of the newest record that had to go; 0: none had to yet */
    uint64_t number;            /* of this memory: never the same twice in a process */
    struct recording **by_size; /* by_size[i]: those with i chunks, i ≤ n */
    struct chunk_head *heads;
    _Atomic uint64_t *words; /* n * CHUNK_WORDS */
};

/* All of it within `bytes`. Pages cost nothing until they are written. Returns 0 or -ENOMEM. */
MUST_USE int chunks_init(struct chunks *chunks, uint64_t bytes);
void chunks_deinit(struct chunks *chunks);

/*
 * Appends a record of the tick at `time_ns`. `record` has 8 bytes before and behind it that may be
 * written. Returns 0, or -ENOSPC: it does not fit, and the recording is as it was but for its
 * oldest bytes.
 */
MUST_USE int chunks_append(struct chunks *chunks, struct recording *recording, uint8_t *record,
                           size_t len, int64_t time_ns);
/* Gives back all chunks. The recording can be written anew. */
void chunks_clear(struct chunks *chunks, struct recording *recording);

/* Chunks without a recording: they stay as they are until they are given back. */
struct held_chunks {
    uint32_t first, last, n;
};
/* Takes a recording's chunks away from it; who reads the recording still finds them. */
struct held_chunks chunks_hold(struct chunks *chunks, struct recording *recording);
/* Gives back its oldest chunks, so that at most `n_max` > 0 remain. Takes a step for each. */
void chunks_cut(struct chunks *chunks, struct recording *recording, uint32_t n_max);
void chunks_give_back(struct chunks *chunks, const struct held_chunks *held);

/* A stretch of a recording, from the start of a record on. */
struct excerpt {
    uint8_t *bytes; /* owned */
    size_t len;
    size_t first;     /* where in `bytes` the first record starts */
    int64_t first_ns; /* its time */
};
void excerpt_free(struct excerpt *excerpt);
#define CLEANUP_EXCERPT CLEANUP(excerpt_free)

/*
 * Copies what is there, but nothing that is certainly from before `since_ns`. An excerpt without
 * bytes: there is nothing. Returns 0 or -ENOMEM. THREADS: any.
 */
MUST_USE int chunks_copy(const struct chunks *chunks, const struct recording *recording,
                         int64_t since_ns, struct excerpt *ret_excerpt);
