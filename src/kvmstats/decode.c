/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decoding in one direction: each step looks only at what the steps before it have found sound.
 * The header's numbers come first (alone they say how much must be read), then the id, then each
 * descriptor by itself, then what concerns them together. The rules are those of the kernel's
 * selftest (tools/testing/selftests/kvm/kvm_binary_stats_test.c) as far as breaking them could
 * mislead a reader, and limits of our own on what a file can make us allocate.
 *
 * What we do not know we carry: a type, unit or base of a newer kernel says nothing about the
 * others, and its values are plain numbers to us. So exponents are checked only where they count.
 */
#include "schema.h"
#include "wire.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static_assert(KVMSTATS_HEADER_BYTES == sizeof(struct wire_header), "the public constant is right");

enum {
    NAME_IN_MESSAGE = 64, /* characters of a stat's name that an error message shows */
};

/* A statistic's name before it is known to be sound: not NUL-terminated, any bytes. */
struct raw_name {
    const char *bytes;
    size_t len;
};

/* Names come from the file, and a message may end in a log. */
static void make_printable(char *text)
{
    for (; *text; text++) {
        if (*text < 0x20 || *text > 0x7e)
            *text = '?';
    }
}

__attribute__((format(printf, 4, 0))) static int refuse_v(struct kvmstats_error *ret_error,
                                                          const char *prefix, uint64_t value,
                                                          const char *format, va_list args)
{
    size_t n = strlen(prefix);
    ret_error->value = value;
    memcpy(ret_error->message, prefix, n);
    (void)vsnprintf(ret_error->message + n, sizeof ret_error->message - n, format, args);
    make_printable(ret_error->message);
    return -EBADMSG;
}

/* `format` begins with the field's name: it is the whole message. */
__attribute__((format(printf, 4, 5))) static int
refuse(struct kvmstats_error *ret_error, const char *field, uint64_t value, const char *format, ...)
{
    va_list args;
    (void)snprintf(ret_error->field, sizeof ret_error->field, "%s", field);
    va_start(args, format);
    int r = refuse_v(ret_error, "", value, format, args);
    va_end(args);
    return r;
}

/* The same of descriptor `i`; the message begins with its number and its name. */
__attribute__((format(printf, 6, 7))) static int refuse_desc(struct kvmstats_error *ret_error,
                                                             size_t i, struct raw_name name,
                                                             const char *field, uint64_t value,
                                                             const char *format, ...)
{
    char prefix[NAME_IN_MESSAGE + 48];
    va_list args;
    (void)snprintf(ret_error->field, sizeof ret_error->field, "descriptor %zu: %s", i, field);
    int shown = name.len < NAME_IN_MESSAGE ? (int)name.len : NAME_IN_MESSAGE;
    (void)snprintf(prefix, sizeof prefix, "descriptor %zu (\"%.*s\"): ", i, shown, name.bytes);
    va_start(args, format);
    int r = refuse_v(ret_error, prefix, value, format, args);
    va_end(args);
    return r;
}

static int check_block(const char *field, const char *what, struct span span,
                       struct kvmstats_error *ret_error)
{
    if (span_is_empty(span))
        return 0;
    if (span.start < KVMSTATS_HEADER_BYTES)
        return refuse(ret_error, field, span.start,
                      "%s is %" PRIu64 ": %s would overlap the header, which ends at %u", field,
                      span.start, what, (unsigned)KVMSTATS_HEADER_BYTES);
    if (span.end > KVMSTATS_MAX_FILE_BYTES)
        return refuse(ret_error, field, span.start,
                      "%s is %" PRIu64 ": %s would end at %" PRIu64 ", past the limit of %u bytes",
                      field, span.start, what, span.end, KVMSTATS_MAX_FILE_BYTES);
    return 0;
}

/* The header alone; all that is said of data here is where it may begin. */
static int check_header(const struct wire_header *header, struct kvmstats_error *ret_error)
{
    int r;
    if (header->name_size == 0)
        return refuse(ret_error, "name_size", 0, "name_size is 0: not even an empty name fits");
    if (header->name_size > KVMSTATS_MAX_NAME_SIZE)
        return refuse(ret_error, "name_size", header->name_size,
                      "name_size is %" PRIu32 ", over the limit of %u", header->name_size,
                      KVMSTATS_MAX_NAME_SIZE);
    if (header->num_desc > KVMSTATS_MAX_DESCRIPTORS)
        return refuse(ret_error, "num_desc", header->num_desc,
                      "num_desc is %" PRIu32 ", over the limit of %u", header->num_desc,
                      KVMSTATS_MAX_DESCRIPTORS);

    struct span id = id_span(header), descs = desc_span(header);
    r = check_block("id_offset", "the id", id, ret_error);
    if (r < 0)
        return r;
    r = check_block("desc_offset", "the descriptors", descs, ret_error);
    if (r < 0)
        return r;
    if (spans_overlap(id, descs))
        return refuse(ret_error, "desc_offset", header->desc_offset,
                      "desc_offset is %" PRIu64 ": the descriptors (to %" PRIu64
                      ") overlap the id (%" PRIu64 " to %" PRIu64 ")",
                      descs.start, descs.end, id.start, id.end);
    /* Without descriptors there is no data, and its offset means nothing. */
    struct span first = {header->data_offset, header->data_offset + UINT64_C(8)};
    return header->num_desc ? check_block("data_offset", "the data", first, ret_error) : 0;
}

static int read_header(const void *bytes, size_t len, struct wire_header *ret_header,
                       struct kvmstats_error *ret_error)
{
    struct wire_header header = {0}; /* gcc -O3 does not see that read_header() fills it */
    if (len < sizeof header)
        return refuse(ret_error, "header", len, "header: only %zu of its %zu bytes are there", len,
                      sizeof header);
    memcpy(&header, bytes, sizeof header);
    int r = check_header(&header, ret_error);
    if (r < 0)
        return r;
    *ret_header = header;
    return 0;
}

int kvmstats_header_extent(const void *bytes, size_t len, size_t *ret_extent,
                           struct kvmstats_error *ret_error)
{
    struct kvmstats_error unwanted;
    struct wire_header header = {0}; /* gcc -O3 does not see that read_header() fills it */
    int r = read_header(bytes, len, &header, ret_error ? ret_error : &unwanted);
    if (r < 0)
        return r;
    struct span id = id_span(&header), descs = desc_span(&header);
    bool descs_last = !span_is_empty(descs) && descs.end > id.end;
    *ret_extent = (size_t)(descs_last ? descs.end : id.end);
    return 0;
}

/* The id's length, once it is found sound. */
static int check_id(const struct wire_header *header, const char *file, size_t len,
                    size_t *ret_id_len, struct kvmstats_error *ret_error)
{
    struct span span = id_span(header);
    if (len < span.end)
        return refuse(ret_error, "id", len,
                      "id: the file ends at byte %zu, the id stands at %" PRIu64 " to %" PRIu64,
                      len, span.start, span.end);
    const char *id = file + header->id_offset;
    size_t id_len = strnlen(id, header->name_size);
    int shown = id_len < NAME_IN_MESSAGE ? (int)id_len : NAME_IN_MESSAGE;
    if (id_len == header->name_size)
        return refuse(ret_error, "id", id_len, "id (\"%.*s\"): not terminated in its %zu bytes",
                      shown, id, id_len);
    if (id_len < 3 || memcmp(id, "kvm", 3) != 0)
        return refuse(ret_error, "id", header->id_offset,
                      "id (\"%.*s\" at byte %" PRIu32 "): does not begin with \"kvm\"", shown, id,
                      header->id_offset);
    *ret_id_len = id_len;
    return 0;
}

/* Before anything is allocated for descriptors that a header merely claims. */
static int check_descs_are_there(const struct wire_header *header, size_t len,
                                 struct kvmstats_error *ret_error)
{
    struct span span = desc_span(header);
    uint64_t stride = desc_stride(header->name_size);
    if (span_is_empty(span) || len >= span.end)
        return 0;
    uint64_t i = len > span.start ? (len - span.start) / stride : 0;
    return refuse(ret_error, "descriptors", len,
                  "descriptors: the file ends at byte %zu, descriptor %" PRIu64 " of %" PRIu32
                  " stands at %" PRIu64 " to %" PRIu64,
                  len, i, header->num_desc, span.start + i * stride, span.start + (i + 1) * stride);
}

/* Only called where type, unit and base are known, so that the exponent will be used. */
static int check_exponent(const struct kvmstats_desc *desc, size_t i, struct raw_name name,
                          struct kvmstats_error *ret_error)
{
    const char *rule = NULL;
    int exponent = desc->exponent;
    if (exponent > KVMSTATS_MAX_EXPONENT || exponent < -KVMSTATS_MAX_EXPONENT)
        return refuse_desc(ret_error, i, name, "exponent", (uint64_t)(int64_t)exponent,
                           "exponent is %d: over the limit of %d either way", exponent,
                           KVMSTATS_MAX_EXPONENT);
    if (desc->unit == KVMSTATS_UNIT_SECONDS)
        rule = exponent > 0 ? "must not be positive where the unit is seconds" : NULL;
    else if (desc->unit == KVMSTATS_UNIT_BOOLEAN)
        rule = exponent != 0 ? "must be 0 where the unit is boolean" : NULL;
    else if (exponent < 0)
        rule = "must not be negative where the unit is none, bytes or cycles";
    if (!rule)
        return 0;
    return refuse_desc(ret_error, i, name, "exponent", (uint64_t)(int64_t)exponent,
                       "exponent is %d: it %s", exponent, rule);
}

static struct span desc_data_span(const struct kvmstats_desc *desc)
{
    uint64_t start = desc->offset;
    return (struct span){start, start + desc->size * (uint64_t)sizeof(uint64_t)};
}

static int check_desc(const struct wire_header *header, const struct kvmstats_desc *desc, size_t i,
                      struct raw_name name, struct kvmstats_error *ret_error)
{
    if (name.len == header->name_size)
        return refuse_desc(ret_error, i, name, "name", name.len,
                           "name is not terminated in its %zu bytes", name.len);
    if (name.len == 0)
        return refuse_desc(ret_error, i, name, "name", 0, "name is empty");
    if (desc->size == 0)
        return refuse_desc(ret_error, i, name, "size", 0, "size is 0: there is at least one value");
    if (desc->type == KVMSTATS_TYPE_LINEAR_HIST && desc->bucket_size == 0)
        return refuse_desc(ret_error, i, name, "bucket_size", 0,
                           "bucket_size is 0: the buckets of a linear histogram have a width");
    struct span data = desc_data_span(desc);
    if (header->data_offset + data.end > KVMSTATS_MAX_FILE_BYTES)
        return refuse_desc(ret_error, i, name, "offset", desc->offset,
                           "offset is %" PRIu32 ": its data would end at byte %" PRIu64
                           " of the file, past the limit of %u bytes",
                           desc->offset, header->data_offset + data.end, KVMSTATS_MAX_FILE_BYTES);
    return desc->known ? check_exponent(desc, i, name, ret_error) : 0;
}

static struct kvmstats_desc desc_of(const struct wire_desc *wire)
{
    struct kvmstats_desc desc = {
        .flags = wire->flags,
        .type = wire->flags >> FLAGS_TYPE_SHIFT & FLAGS_NIBBLE,
        .unit = wire->flags >> FLAGS_UNIT_SHIFT & FLAGS_NIBBLE,
        .base = wire->flags >> FLAGS_BASE_SHIFT & FLAGS_NIBBLE,
        .exponent = wire->exponent,
        .size = wire->size,
        .offset = wire->offset,
        .bucket_size = wire->bucket_size,
    };
    desc.known = kvmstats_type_name(desc.type) && kvmstats_unit_name(desc.unit) &&
                 kvmstats_base_name(desc.base);
    return desc;
}

/* Fills schema->descs and data_bytes; names go to `names`, which has room for all of them. */
static int read_descs(const struct wire_header *header, const char *file,
                      struct kvmstats_schema *schema, char *names, struct kvmstats_error *ret_error)
{
    uint64_t stride = desc_stride(header->name_size);
    for (size_t i = 0; i < schema->count; i++) {
        uint64_t start = header->desc_offset + i * stride;
        struct wire_desc wire;
        memcpy(&wire, file + start, sizeof wire);
        struct kvmstats_desc desc = desc_of(&wire);
        struct raw_name name = {.bytes = file + start + sizeof wire};
        name.len = strnlen(name.bytes, header->name_size);
        int r = check_desc(header, &desc, i, name, ret_error);
        if (r < 0)
            return r;

        memcpy(names, name.bytes, name.len);
        names[name.len] = '\0';
        desc.name = names;
        names += name.len + 1;
        schema->descs[i] = desc;
        size_t end = (size_t)desc_data_span(&desc).end;
        if (end > schema->data_bytes)
            schema->data_bytes = end;
    }
    return 0;
}

static int by_offset(const void *left, const void *right)
{
    const struct kvmstats_desc *a = *(const struct kvmstats_desc *const *)left;
    const struct kvmstats_desc *b = *(const struct kvmstats_desc *const *)right;
    if (a->offset != b->offset)
        return a->offset < b->offset ? -1 : 1;
    return a < b ? -1 : a > b; /* in the order of the file, so that messages don't vary */
}

/* No two statistics share a value: in the order of offsets it is enough to look at neighbours. */
static int check_data_overlap(const struct kvmstats_schema *schema,
                              struct kvmstats_error *ret_error)
{
    int r = 0;
    if (schema->count < 2)
        return 0;
    const struct kvmstats_desc **sorted = malloc(schema->count * sizeof *sorted);
    if (!sorted)
        return -ENOMEM;
    for (size_t i = 0; i < schema->count; i++)
        sorted[i] = &schema->descs[i];
    qsort(sorted, schema->count, sizeof *sorted, by_offset);
    for (size_t i = 1; i < schema->count && r == 0; i++) {
        const struct kvmstats_desc *desc = sorted[i], *before = sorted[i - 1];
        if (!spans_overlap(desc_data_span(before), desc_data_span(desc)))
            continue;
        struct raw_name name = {.bytes = desc->name, .len = strlen(desc->name)};
        r = refuse_desc(ret_error, (size_t)(desc - schema->descs), name, "offset", desc->offset,
                        "offset is %" PRIu32 ": descriptor %zu (\"%.*s\") has its data at %" PRIu32
                        " to %" PRIu64,
                        desc->offset, (size_t)(before - schema->descs), NAME_IN_MESSAGE,
                        before->name, before->offset, desc_data_span(before).end);
    }
    free(sorted);
    return r;
}

/* The data block runs from data_offset to the end of the last statistic in it. */
static int check_data_block(const struct wire_header *header, const struct kvmstats_schema *schema,
                            struct kvmstats_error *ret_error)
{
    struct span data = {header->data_offset, (uint64_t)header->data_offset + schema->data_bytes};
    bool over_id = spans_overlap(data, id_span(header));
    struct span other = over_id ? id_span(header) : desc_span(header);
    if (!over_id && !spans_overlap(data, other))
        return 0;
    return refuse(ret_error, "data_offset", header->data_offset,
                  "data_offset is %" PRIu64 ": the data (to %" PRIu64 ") overlaps the %s (%" PRIu64
                  " to %" PRIu64 ")",
                  data.start, data.end, over_id ? "id" : "descriptors", other.start, other.end);
}

int kvmstats_schema_decode(const void *bytes, size_t len, struct kvmstats_schema **ret_schema,
                           struct kvmstats_error *ret_error)
{
    struct kvmstats_error unwanted;
    struct wire_header header = {0}; /* gcc -O3 does not see that read_header() fills it */
    const char *file = bytes;
    size_t id_len = 0;
    if (!ret_error)
        ret_error = &unwanted;
    int r = read_header(bytes, len, &header, ret_error);
    if (r < 0)
        return r;
    r = check_id(&header, file, len, &id_len, ret_error);
    if (r == 0)
        r = check_descs_are_there(&header, len, ret_error);
    if (r < 0)
        return r;

    size_t count = header.num_desc;
    size_t descs_bytes = count * sizeof(struct kvmstats_desc);
    size_t names_bytes = count * header.name_size;
    struct kvmstats_schema *schema =
        malloc(sizeof *schema + descs_bytes + names_bytes + id_len + 1);
    if (!schema)
        return -ENOMEM;
    char *texts = (char *)schema + sizeof *schema + descs_bytes;
    memcpy(texts, file + header.id_offset, id_len);
    texts[id_len] = '\0';
    *schema = (struct kvmstats_schema){
        .id = texts,
        .flags = header.flags,
        .data_offset = header.data_offset,
        .count = count,
    };
    r = read_descs(&header, file, schema, texts + id_len + 1, ret_error);
    if (r == 0)
        r = check_data_overlap(schema, ret_error);
    if (r == 0)
        r = check_data_block(&header, schema, ret_error);
    if (r < 0) {
        free(schema);
        return r;
    }
    *ret_schema = schema;
    return 0;
}

void kvmstats_schema_free(struct kvmstats_schema *schema)
{
    free(schema);
}
