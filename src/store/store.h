/* SPDX-License-Identifier: Apache-2.0 */
/* What sampler, discovery and scrapers share: rings of frames, schemas, the roster, our own counts.
 */
#pragma once

#include <semaphore.h>

#include "cputimes.h"
#include "frame.h"
#include "roster.h"
#include "schema_table.h"
#include "selfstats.h"

struct recorder; /* recorder/recorder.h, whose functions alone use the slot */
struct recorder_slot {
    pthread_mutex_t lock; /* held for a pointer copy only; the sampler never takes it */
    struct recorder *current;
};

struct store {
    struct ring rings[RINGS_MAX];
    /*
     * Odd while the sampler publishes frames of several rings that belong together (VMs move
     * between groups): view_take() then pins again. Written by the sampler only.
     */
    atomic_uint generation;
    sem_t readers; /* FRAME_READERS_MAX */
    struct schema_table schemas;
    struct roster_slot roster;
    struct recorder_slot recorder;
    struct cputimes_slot cputimes;
    struct selfstats self;
};

/* Big: allocate it. */
MUST_USE int store_new(struct store **ret_store);
void store_free(struct store *store);
DEFINE_CLEANUP(struct store *, store_free)
