/* SPDX-License-Identifier: Apache-2.0 */
/* What sampler, discovery and scrapers share: rings of frames, schemas, the roster, our own counts.
 */
#pragma once

#include <semaphore.h>

#include "frame.h"
#include "roster.h"
#include "schema_table.h"
#include "selfstats.h"

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
    struct selfstats self;
};

/* Big: allocate it. */
MUST_USE int store_new(struct store **ret_store);
void store_free(struct store *store);
DEFINE_CLEANUP(struct store *, store_free)
