/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a stats file. What the decoder refuses it must explain; what it accepts must hold to
 * its promises to the consumers, and survive being encoded and decoded again.
 */
#include "kvmstats/kvmstats.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Not assert(): it must hold in builds with NDEBUG too. */
static void require(bool holds)
{
    if (!holds)
        abort();
}

static void require_explained(const struct kvmstats_error *error)
{
    require(error->field[0] && error->message[0]);
    require(memchr(error->field, '\0', sizeof error->field));
    require(memchr(error->message, '\0', sizeof error->message));
    for (const char *p = error->message; *p; p++)
        require(*p >= 0x20 && *p <= 0x7e);
}

static void use_desc(const struct kvmstats_desc *desc, const void *data)
{
    char decimal[KVMSTATS_DECIMAL_BYTES];
    uint64_t bound = 0, before = 0;
    require(desc->name[0] && desc->size > 0);
    for (size_t i = 0; i < desc->size; i++) {
        uint64_t value = kvmstats_value(desc, data, i);
        size_t n = kvmstats_format_scaled(decimal, value, desc->base, desc->exponent);
        require(n > 0 && n < sizeof decimal && n == strlen(decimal));
        require(strspn(decimal, "0123456789.") == n);
        require(kvmstats_bucket_of(desc, value) < desc->size);
        if (kvmstats_bucket_bound(desc, i, &bound)) {
            require(i == 0 || bound > before);
            require(kvmstats_bucket_of(desc, bound) == i);
            before = bound;
        }
    }
}

/* The schema once more, by way of the encoder, in a plain order. */
static void require_survives_encoding(const struct kvmstats_schema *schema)
{
    struct kvmstats_model model = {
        .flags = kvmstats_schema_flags(schema),
        .id_offset = KVMSTATS_HEADER_BYTES,
        .data_offset = kvmstats_schema_data_offset(schema),
        .id = kvmstats_schema_id(schema),
        .descs = kvmstats_schema_desc(schema, 0),
        .num_desc = (uint32_t)kvmstats_schema_count(schema),
    };
    size_t longest = strlen(model.id);
    for (uint32_t i = 0; i < model.num_desc; i++) {
        size_t len = strlen(model.descs[i].name);
        longest = len > longest ? len : longest;
    }
    model.name_size = (uint32_t)longest + 1;
    model.desc_offset = model.id_offset + model.name_size;
    size_t capacity = model.desc_offset + model.num_desc * (16 + (size_t)model.name_size);
    char *file = malloc(capacity);
    require(file != NULL);
    require(kvmstats_encode(&model, file, capacity) == capacity);
    /* Where the data stood before, something else may stand now: they go behind. */
    uint32_t data_offset = (uint32_t)capacity;
    memcpy(file + 20, &data_offset, sizeof data_offset);

    struct kvmstats_schema *again = NULL;
    if (capacity + kvmstats_schema_data_bytes(schema) <= KVMSTATS_MAX_FILE_BYTES) {
        require(kvmstats_schema_decode(file, capacity, &again, NULL) == 0);
        require(kvmstats_schema_count(again) == model.num_desc);
        require(kvmstats_schema_data_bytes(again) == kvmstats_schema_data_bytes(schema));
        require(strcmp(kvmstats_schema_id(again), model.id) == 0);
        bool moved = kvmstats_schema_data_offset(again) != kvmstats_schema_data_offset(schema);
        require(kvmstats_schema_equal(schema, again) == !moved);
        kvmstats_schema_free(again);
    }
    free(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kvmstats_schema *schema = NULL;
    struct kvmstats_error error = {.message = ""};
    size_t extent = 0;
    int r = kvmstats_header_extent(data, size, &extent, &error);
    require(r == 0 || r == -EBADMSG);
    int decoded = kvmstats_schema_decode(data, size, &schema, &error);
    require(decoded == 0 || decoded == -EBADMSG);
    if (decoded < 0) {
        require_explained(&error);
        return 0;
    }
    require(r == 0 && extent <= size);

    size_t len = kvmstats_schema_data_bytes(schema), at = kvmstats_schema_data_offset(schema);
    require(len <= KVMSTATS_MAX_FILE_BYTES);
    /* A block of exactly its length; what the file has of it, else zeros. */
    char *block = calloc(1, len ? len : 1);
    require(block != NULL);
    if (len && at < size)
        memcpy(block, data + at, size - at < len ? size - at : len);
    for (size_t i = 0; i < kvmstats_schema_count(schema); i++) {
        const struct kvmstats_desc *desc = kvmstats_schema_desc(schema, i);
        const struct kvmstats_desc *found = kvmstats_schema_find(schema, desc->name);
        require(found && found <= desc);
        use_desc(desc, block);
    }
    require(kvmstats_schema_equal(schema, schema));
    require_survives_encoding(schema);
    free(block);
    kvmstats_schema_free(schema);
    return 0;
}
