/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records of anybody's: whatever can be gone through backwards gives the same forwards. The first
 * byte says how many cells the blocks have.
 */
#include <stdlib.h>
#include <string.h>

#include "kvmstats/kvmstats.h"
#include "replay.h"

static struct kvmstats_schema *make_schema(unsigned n_cells)
{
    uint8_t file[1024];
    struct kvmstats_schema *schema;
    const struct kvmstats_desc descs[] = {
        {.name = "up", .flags = KVMSTATS_TYPE_CUMULATIVE, .size = (uint16_t)n_cells},
        {.name = "any", .flags = KVMSTATS_TYPE_INSTANT, .size = 2, .offset = n_cells * 8},
    };
    const struct kvmstats_model model = {
        .name_size = 8,
        .id_offset = 24,
        .desc_offset = 32,
        .data_offset = 512,
        .id = "kvm-1",
        .descs = descs,
        .num_desc = 2,
    };
    size_t len = kvmstats_encode(&model, file, sizeof file);
    if (len == 0 || kvmstats_schema_decode(file, len, &schema, NULL) < 0)
        abort();
    return schema;
}

static size_t count_cells(const struct replay *replay)
{
    size_t n = 0;
    for (uint32_t i = 0; i < replay->n_targets; i++)
        n += replay->schemas->shapes[replay->targets[i].id.schema].n_cells;
    return n;
}

/* Back over one record and forth again: what was there before is there again. */
static void there_and_back(struct replay *replay)
{
    while (replay->at) {
        size_t n = count_cells(replay);
        uint64_t *cells = malloc((n + 1) * sizeof *cells);
        if (!cells)
            return;
        if (n)
            memcpy(cells, replay->targets[0].cells, n * sizeof *cells);
        if (replay_back(replay) < 0) {
            free(cells);
            return;
        }
        if (replay_forth(replay) < 0 || count_cells(replay) != n ||
            (n && memcmp(cells, replay->targets[0].cells, n * sizeof *cells) != 0))
            abort();
        free(cells);
        if (replay_back(replay) < 0)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct replay_schemas schemas;
    CLEANUP_REPLAY struct replay replay = {0};
    if (size < 1)
        return 0;
    struct kvmstats_schema *schema = make_schema(1 + data[0] % 40);
    schemas = (struct replay_schemas){0};
    if (replay_schemas_add(&schemas, 0, schema) < 0)
        abort();
    if (replay_begin(&replay, &schemas, data + 1, size - 1, 1000, size) == 0 &&
        replay_seek_last(&replay) == 0)
        there_and_back(&replay);
    kvmstats_schema_free(schema);
    return 0;
}
