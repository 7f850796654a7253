/* SPDX-License-Identifier: Apache-2.0 */
#include "kvmstats/kvmstats.h"

#include "oracle.h"
#include "random_file.h"
#include "testing.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_DESC = 200,
    MOST_TRUNCATIONS = 4096,
    TIMEOUT_SECONDS = 100, /* a loaded machine and sanitizers; about one second without */
};

/* From memory that ends with the input, so that the address sanitizer sees a read past it. */
static int decode_exactly(const uint8_t *bytes, size_t len, struct kvmstats_schema **ret_schema,
                          struct kvmstats_error *ret_error)
{
    uint8_t *copy = malloc(len ? len : 1);
    ck_assert_ptr_nonnull(copy);
    memcpy(copy, bytes, len);
    int r = kvmstats_schema_decode(copy, len, ret_schema, ret_error);
    free(copy);
    return r;
}

static size_t extent_of(const uint8_t *bytes)
{
    size_t extent = 0;
    ck_assert_int_eq(kvmstats_header_extent(bytes, KVMSTATS_HEADER_BYTES, &extent, NULL), 0);
    return extent;
}

static void assert_desc_equal(const struct kvmstats_desc *is, const struct kvmstats_desc *was)
{
    ck_assert_str_eq(is->name, was->name);
    ck_assert_uint_eq(is->flags, was->flags);
    ck_assert_uint_eq(is->type, was->type);
    ck_assert_uint_eq(is->unit, was->unit);
    ck_assert_uint_eq(is->base, was->base);
    ck_assert_int_eq(is->known, was->known);
    ck_assert_int_eq(is->exponent, was->exponent);
    ck_assert_uint_eq(is->size, was->size);
    ck_assert_uint_eq(is->offset, was->offset);
    ck_assert_uint_eq(is->bucket_size, was->bucket_size);
}

static void check_round_trip(void)
{
    struct random_file file;
    struct kvmstats_schema *schema = NULL;
    struct kvmstats_error error = {.message = ""};
    random_file_make(&file, MAX_DESC);
    const struct kvmstats_model *model = &file.model;
    ck_assert(oracle_accepts(file.bytes, file.len));
    int r = decode_exactly(file.bytes, extent_of(file.bytes), &schema, &error);
    ck_assert_msg(r == 0, "%s", error.message);

    ck_assert_str_eq(kvmstats_schema_id(schema), model->id);
    ck_assert_uint_eq(kvmstats_schema_flags(schema), model->flags);
    ck_assert_uint_eq(kvmstats_schema_count(schema), model->num_desc);
    ck_assert_uint_eq(kvmstats_schema_data_offset(schema), model->data_offset);
    ck_assert_uint_eq(kvmstats_schema_data_bytes(schema), model->data_bytes);
    for (size_t i = 0; i < model->num_desc; i++) {
        const struct kvmstats_desc *desc = kvmstats_schema_desc(schema, i);
        assert_desc_equal(desc, &model->descs[i]);
        for (size_t k = 0; k < desc->size; k++) {
            uint64_t value;
            memcpy(&value, file.data + desc->offset + k * 8, sizeof value);
            ck_assert_uint_eq(kvmstats_value(desc, file.bytes + model->data_offset, k), value);
        }
        const struct kvmstats_desc *found = kvmstats_schema_find(schema, desc->name);
        ck_assert(found <= desc && strcmp(found->name, desc->name) == 0);
    }
    kvmstats_schema_free(schema);
    random_file_free(&file);
}

static void check_truncations(uint32_t max_desc)
{
    struct random_file file;
    struct kvmstats_schema *schema = NULL;
    struct kvmstats_error error;
    random_file_make(&file, max_desc);
    size_t extent = extent_of(file.bytes);
    /* The work grows with the square of it. */
    while (extent > MOST_TRUNCATIONS) {
        random_file_free(&file);
        random_file_make(&file, max_desc);
        extent = extent_of(file.bytes);
    }
    for (size_t len = 0; len < extent; len++) {
        error = (struct kvmstats_error){.value = UINT64_MAX};
        ck_assert_int_eq(decode_exactly(file.bytes, len, &schema, &error), -EBADMSG);
        ck_assert_uint_eq(error.value, len);
        ck_assert(strcmp(error.field, "header") == 0 || strcmp(error.field, "id") == 0 ||
                  strcmp(error.field, "descriptors") == 0);
    }
    ck_assert_ptr_null(schema);
    ck_assert_int_eq(decode_exactly(file.bytes, extent, &schema, &error), 0);
    kvmstats_schema_free(schema);
    random_file_free(&file);
}

/* Writes a value at the edge of something over a random field. */
static void mutate(struct random_file *file)
{
    static const uint32_t edges[] = {
        0,         1,          2,           3,           4,           7,           8,
        16,        23,         24,          25,          47,          48,          255,
        256,       257,        4095,        4096,        4097,        32767,       32768,
        0xff00,    0xfeff,     0xffff,      65536,       65537,       0xffffff,    0x1000000,
        0x1000001, 0x7fffffff, 0x80000000u, 0xfffffff7u, 0xfffffff8u, 0xfffffff9u, 0xffffffffu,
    };
    const struct kvmstats_model *model = &file->model;
    const uint32_t near[] = {
        model->id_offset,
        model->desc_offset,
        model->data_offset,
        model->data_offset + (uint32_t)model->data_bytes,
        (uint32_t)file->len,
        model->num_desc,
        model->name_size,
        KVMSTATS_MAX_FILE_BYTES - (uint32_t)model->data_bytes,
        model->num_desc ? model->descs[0].offset : 0,
    };
    enum {
        EDGES = sizeof edges / sizeof edges[0],
        NEAR = sizeof near / sizeof near[0]
    };
    uint32_t value = testing_random_below(2) ? edges[testing_random_below(EDGES)]
                                             : near[testing_random_below(NEAR)] +
                                                   (uint32_t)testing_random_below(17) - 8;
    uint64_t what = testing_random_below(4);
    size_t at = 4 * testing_random_below(6), bytes = 4;
    if (what >= 1 && model->num_desc) {
        static const struct {
            size_t offset, bytes;
        } fields[] = {{0, 4}, {4, 2}, {6, 2}, {8, 4}, {12, 4}, {16, 1}};
        size_t field = testing_random_below(6);
        size_t i = testing_random_below(model->num_desc);
        at = model->desc_offset + i * (16 + (size_t)model->name_size) + fields[field].offset;
        bytes = fields[field].bytes;
        if (bytes == 1 && testing_random_below(2)) {
            memset(file->bytes + at, 'n', model->name_size);
            return;
        }
    } else if (what == 0 && testing_random_below(4) == 0) {
        at = model->id_offset + testing_random_below(model->name_size);
        bytes = 1;
    }
    uint16_t u16 = (uint16_t)value;
    uint8_t u8 = (uint8_t)value;
    memcpy(file->bytes + at,
           bytes == 1   ? (const void *)&u8
           : bytes == 2 ? (const void *)&u16
                        : (const void *)&value,
           bytes);
}

/* All that a consumer does with a schema, on memory of just the sizes it is told. */
static void walk(const struct kvmstats_schema *schema)
{
    size_t data_bytes = kvmstats_schema_data_bytes(schema);
    uint64_t sum = 0, bound;
    ck_assert_uint_le(kvmstats_schema_data_offset(schema) + (uint64_t)data_bytes,
                      kvmstats_schema_count(schema) ? KVMSTATS_MAX_FILE_BYTES : UINT32_MAX);
    char *data = calloc(1, data_bytes ? data_bytes : 1);
    ck_assert_ptr_nonnull(data);
    for (size_t i = 0; i < kvmstats_schema_count(schema); i++) {
        const struct kvmstats_desc *desc = kvmstats_schema_desc(schema, i);
        char decimal[KVMSTATS_DECIMAL_BYTES];
        ck_assert_uint_gt(strlen(desc->name), 0);
        for (size_t k = 0; k < desc->size; k++) {
            sum += kvmstats_value(desc, data, k);
            (void)kvmstats_bucket_bound(desc, k, &bound);
        }
        ck_assert_uint_lt(kvmstats_bucket_of(desc, testing_random()), desc->size);
        ck_assert_uint_lt(kvmstats_format_scaled(decimal, UINT64_MAX, desc->base, desc->exponent),
                          sizeof decimal);
    }
    ck_assert_uint_eq(sum, 0);
    free(data);
}

static void assert_error_explains(const struct kvmstats_error *error)
{
    ck_assert_uint_gt(strlen(error->field), 0);
    ck_assert_uint_gt(strlen(error->message), strlen("size is 0"));
    for (const char *p = error->message; *p; p++)
        ck_assert(*p >= 0x20 && *p <= 0x7e);
}

static void check_mutations(uint32_t max_desc)
{
    struct random_file file;
    random_file_make(&file, max_desc);
    uint8_t *original = malloc(file.len);
    ck_assert_ptr_nonnull(original);
    memcpy(original, file.bytes, file.len);
    for (int round = 0; round < 100; round++) {
        struct kvmstats_schema *schema = NULL;
        struct kvmstats_error error = {.message = ""};
        size_t len = testing_random_below(8) ? file.len : testing_random_below(file.len + 1);
        for (uint64_t n = 1 + testing_random_below(2); n > 0; n--)
            mutate(&file);
        bool sound = oracle_accepts(file.bytes, len);
        int r = decode_exactly(file.bytes, len, &schema, &error);
        ck_assert_msg(r == (sound ? 0 : -EBADMSG), "decoder: %d %s, oracle: %d", r, error.message,
                      sound);
        if (sound)
            walk(schema);
        else
            assert_error_explains(&error);
        kvmstats_schema_free(schema);
        memcpy(file.bytes, original, file.len);
    }
    free(original);
    random_file_free(&file);
}

/* Loops of our own: check's would fork, and each fork would go on from the same random state. */
START_TEST(decoding_gives_back_what_was_encoded)
{
    for (int round = 0; round < 60; round++)
        check_round_trip();
}
END_TEST

START_TEST(every_truncation_is_refused)
{
    for (int round = 0; round < 12; round++)
        check_truncations(round % 4 ? 10 : 60);
}
END_TEST

START_TEST(mutated_files_are_judged_by_the_rules)
{
    for (int round = 0; round < 60; round++)
        check_mutations(round % 4 ? 12 : MAX_DESC);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("kvmstats");
    TCase *tcase = tcase_create("random files");
    tcase_set_timeout(tcase, TIMEOUT_SECONDS);
    tcase_add_test(tcase, decoding_gives_back_what_was_encoded);
    tcase_add_test(tcase, every_truncation_is_refused);
    tcase_add_test(tcase, mutated_files_are_judged_by_the_rules);
    suite_add_tcase(suite, tcase);
    return testing_run(suite, (Suite *)NULL);
}
