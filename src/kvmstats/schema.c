/* SPDX-License-Identifier: Apache-2.0 */
/* A schema is searched and compared rarely (once for each new target), so that plain loops do. */
#include "schema.h"

#include <string.h>

const char *kvmstats_schema_id(const struct kvmstats_schema *schema)
{
    return schema->id;
}

uint32_t kvmstats_schema_flags(const struct kvmstats_schema *schema)
{
    return schema->flags;
}

uint32_t kvmstats_schema_data_offset(const struct kvmstats_schema *schema)
{
    return schema->data_offset;
}

size_t kvmstats_schema_data_bytes(const struct kvmstats_schema *schema)
{
    return schema->data_bytes;
}

size_t kvmstats_schema_count(const struct kvmstats_schema *schema)
{
    return schema->count;
}

const struct kvmstats_desc *kvmstats_schema_desc(const struct kvmstats_schema *schema, size_t i)
{
    return i < schema->count ? &schema->descs[i] : NULL;
}

const struct kvmstats_desc *kvmstats_schema_find(const struct kvmstats_schema *schema,
                                                 const char *name)
{
    for (size_t i = 0; name && i < schema->count; i++) {
        if (strcmp(schema->descs[i].name, name) == 0)
            return &schema->descs[i];
    }
    return NULL;
}

/* Type, unit, base and `known` follow from the flags. */
static bool desc_equal(const struct kvmstats_desc *a, const struct kvmstats_desc *b)
{
    return a->flags == b->flags && a->exponent == b->exponent && a->size == b->size &&
           a->offset == b->offset && a->bucket_size == b->bucket_size &&
           strcmp(a->name, b->name) == 0;
}

bool kvmstats_schema_equal(const struct kvmstats_schema *a, const struct kvmstats_schema *b)
{
    if (a->flags != b->flags || a->data_offset != b->data_offset || a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++) {
        if (!desc_equal(&a->descs[i], &b->descs[i]))
            return false;
    }
    return true;
}
