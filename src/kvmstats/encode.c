/* SPDX-License-Identifier: Apache-2.0 */
/* Zeros fill what lies between the blocks, and what of an id or a name is behind its NUL. */
#include "wire.h"

#include "kvmstats/kvmstats.h"

#include <string.h>

static bool texts_fit(const struct kvmstats_model *model)
{
    if (strlen(model->id) >= model->name_size)
        return false;
    for (uint32_t i = 0; i < model->num_desc; i++) {
        if (strlen(model->descs[i].name) >= model->name_size)
            return false;
    }
    return true;
}

static void write_descs(const struct kvmstats_model *model, char *to)
{
    for (uint32_t i = 0; i < model->num_desc; i++) {
        const struct kvmstats_desc *desc = &model->descs[i];
        struct wire_desc wire = {
            .flags = desc->flags,
            .exponent = desc->exponent,
            .size = desc->size,
            .offset = desc->offset,
            .bucket_size = desc->bucket_size,
        };
        memcpy(to, &wire, sizeof wire);
        memcpy(to + sizeof wire, desc->name, strlen(desc->name));
        to += desc_stride(model->name_size);
    }
}

size_t kvmstats_encode(const struct kvmstats_model *model, void *buffer, size_t capacity)
{
    struct wire_header header = {
        .flags = model->flags,
        .name_size = model->name_size,
        .num_desc = model->num_desc,
        .id_offset = model->id_offset,
        .desc_offset = model->desc_offset,
        .data_offset = model->data_offset,
    };
    if (model->data_bytes > UINT32_MAX || !texts_fit(model))
        return 0;
    struct span blocks[] = {
        {0, sizeof header},
        id_span(&header),
        desc_span(&header),
        {header.data_offset, (uint64_t)header.data_offset + model->data_bytes},
    };
    enum {
        N_BLOCKS = sizeof blocks / sizeof blocks[0]
    };
    uint64_t len = 0;
    for (size_t i = 0; i < N_BLOCKS; i++) {
        for (size_t j = 0; j < i; j++) {
            if (spans_overlap(blocks[i], blocks[j]))
                return 0;
        }
        if (!span_is_empty(blocks[i]) && blocks[i].end > len)
            len = blocks[i].end;
    }
    if (len > capacity)
        return 0;

    char *file = buffer;
    memset(file, 0, (size_t)len);
    memcpy(file, &header, sizeof header);
    memcpy(file + header.id_offset, model->id, strlen(model->id));
    if (model->num_desc)
        write_descs(model, file + header.desc_offset);
    if (model->data_bytes)
        memcpy(file + header.data_offset, model->data, model->data_bytes);
    return (size_t)len;
}
