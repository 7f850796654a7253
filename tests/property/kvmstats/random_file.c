/* SPDX-License-Identifier: Apache-2.0 */
#include "random_file.h"

#include "testing.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static uint32_t below(uint64_t n)
{
    return (uint32_t)testing_random_below(n);
}

static bool one_in(uint64_t n)
{
    return testing_random_below(n) == 0;
}

static void *allocate(size_t bytes)
{
    void *p = calloc(1, bytes ? bytes : 1);
    ck_assert_ptr_nonnull(p);
    return p;
}

/* Any bytes but NUL, at least one of them, room for a NUL. */
static void random_name(char *to, uint32_t name_size)
{
    uint32_t len = one_in(4) ? name_size - 1 : 1 + below(name_size - 1);
    for (uint32_t i = 0; i < len; i++)
        to[i] = (char)(one_in(8) ? 1 + below(255) : 'a' + below(26));
    to[len] = '\0';
}

static int16_t random_exponent(const struct kvmstats_desc *desc)
{
    int16_t magnitude = (int16_t)(one_in(4) ? below(KVMSTATS_MAX_EXPONENT + 1) : below(10));
    if (!desc->known)
        return (int16_t)testing_random();
    switch ((enum kvmstats_unit)desc->unit) {
    case KVMSTATS_UNIT_NONE:
    case KVMSTATS_UNIT_BYTES:
    case KVMSTATS_UNIT_CYCLES:
        return magnitude;
    case KVMSTATS_UNIT_SECONDS:
        return (int16_t)-magnitude;
    case KVMSTATS_UNIT_BOOLEAN:
        break;
    }
    return 0;
}

static struct kvmstats_desc random_desc(const char *name)
{
    struct kvmstats_desc desc = {
        .name = name,
        .type = (uint8_t)(one_in(10) ? below(16) : below(5)),
        .unit = (uint8_t)(one_in(10) ? below(16) : below(5)),
        .base = (uint8_t)(one_in(10) ? below(16) : below(2)),
        .size = (uint16_t)(one_in(3000) ? 1 + below(UINT16_MAX) : 1 + below(one_in(2) ? 1 : 40)),
        .bucket_size = one_in(2) ? 1 + below(UINT32_MAX) : 1 + below(1000),
    };
    desc.known = desc.type < 5 && desc.unit < 5 && desc.base < 2;
    desc.flags = desc.type | (uint32_t)desc.unit << 4 | (uint32_t)desc.base << 8;
    if (one_in(10))
        desc.flags |= below(1u << 20) << 12;
    if (desc.type != KVMSTATS_TYPE_LINEAR_HIST && one_in(2))
        desc.bucket_size = 0;
    desc.exponent = random_exponent(&desc);
    return desc;
}

/* A random permutation of 0 … n - 1. */
static void shuffle(uint32_t *order, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t j = below(i + 1);
        order[i] = order[j];
        order[j] = i;
    }
}

/* Statistics stand in the data in any order, with gaps and without alignment. Returns the end. */
static size_t place_data(struct kvmstats_desc *descs, uint32_t n)
{
    uint32_t *order = allocate(n * sizeof *order);
    uint32_t gaps = one_in(2) ? 1 : 20, end = 0;
    shuffle(order, n);
    for (uint32_t i = 0; i < n; i++) {
        struct kvmstats_desc *desc = &descs[order[i]];
        desc->offset = end + below(gaps);
        end = desc->offset + desc->size * 8u;
    }
    free(order);
    return end;
}

static void place_blocks(struct kvmstats_model *model)
{
    struct {
        uint32_t *offset;
        size_t bytes;
    } blocks[] = {
        {&model->id_offset, model->name_size},
        {&model->desc_offset, model->num_desc * (16 + (size_t)model->name_size)},
        {&model->data_offset, model->data_bytes},
    };
    uint32_t order[3], gaps = one_in(2) ? 1 : 40, end = KVMSTATS_HEADER_BYTES;
    shuffle(order, 3);
    for (int i = 0; i < 3; i++) {
        *blocks[order[i]].offset = end + below(gaps);
        end = *blocks[order[i]].offset + (uint32_t)blocks[order[i]].bytes;
    }
}

void random_file_make(struct random_file *file, uint32_t max_desc)
{
    struct kvmstats_model model = {
        .flags = one_in(2) ? 0 : (uint32_t)testing_random(),
        .name_size = one_in(20) ? 4 + below(KVMSTATS_MAX_NAME_SIZE - 3) : 4 + below(60),
        .num_desc = below(max_desc + 1),
    };
    /* The rare long name is not to meet many descriptors. */
    if (model.name_size > 64 && model.num_desc > 10)
        model.num_desc = 10;
    *file = (struct random_file){0};
    file->descs = allocate(model.num_desc * sizeof *file->descs);
    file->texts = allocate((model.num_desc + 1) * (size_t)model.name_size);
    memcpy(file->texts, "kvm", 3);
    if (model.name_size > 4)
        random_name(file->texts + 3, model.name_size - 3);
    for (uint32_t i = 0; i < model.num_desc; i++) {
        char *name = file->texts + (i + 1) * (size_t)model.name_size;
        random_name(name, model.name_size);
        file->descs[i] = random_desc(name);
    }
    model.data_bytes = place_data(file->descs, model.num_desc);
    file->data = allocate(model.data_bytes);
    for (size_t i = 0; i < model.data_bytes; i++)
        file->data[i] = (uint8_t)testing_random();
    model.id = file->texts;
    model.descs = file->descs;
    model.data = file->data;
    place_blocks(&model);

    enum {
        MOST = 8 << 20
    };
    uint8_t *bytes = allocate(MOST);
    file->len = kvmstats_encode(&model, bytes, MOST);
    ck_assert_uint_gt(file->len, 0);
    file->bytes = realloc(bytes, file->len);
    ck_assert_ptr_nonnull(file->bytes);
    file->model = model;
}

void random_file_free(struct random_file *file)
{
    free(file->bytes);
    free(file->descs);
    free(file->texts);
    free(file->data);
}
