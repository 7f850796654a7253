/* SPDX-License-Identifier: Apache-2.0 */
#include "store.h"

int store_new(struct store **ret_store)
{
    struct store *store = calloc(1, sizeof *store);
    if (!store)
        return -ENOMEM;
    (void)sem_init(&store->readers, 0, FRAME_READERS_MAX);
    schema_table_init(&store->schemas);
    roster_slot_init(&store->roster);
    (void)pthread_mutex_init(&store->recorder.lock, NULL);
    cputimes_slot_init(&store->cputimes);
    selfstats_init(&store->self);
    *ret_store = store;
    return 0;
}

void store_free(struct store *store)
{
    if (!store)
        return;
    for (size_t i = 0; i < RINGS_MAX; i++) {
        for (size_t j = 0; j < FRAMES_MAX; j++)
            frame_memory_free(store->rings[i].frames[j].memory);
    }
    cputimes_slot_deinit(&store->cputimes);
    roster_slot_deinit(&store->roster);
    schema_table_deinit(&store->schemas);
    (void)pthread_mutex_destroy(&store->recorder.lock);
    (void)sem_destroy(&store->readers);
    free(store);
}
