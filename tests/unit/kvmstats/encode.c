/* SPDX-License-Identifier: Apache-2.0 */
#include "kvmstats/kvmstats.h"

#include "sample.h"
#include "suites.h"

#include <string.h>

static const struct kvmstats_desc descs[] = {
    {.name = "exits", .flags = SAMPLE_CUMULATIVE, .size = 1, .offset = 0},
    {.name = "wait_ns", .flags = SAMPLE_SECONDS, .exponent = -9, .size = 1, .offset = 8},
    {.name = "wait_hist",
     .flags = SAMPLE_LOG_HIST | SAMPLE_SECONDS,
     .exponent = -9,
     .size = 4,
     .offset = 16},
    {.name = "sizes",
     .flags = SAMPLE_LINEAR_HIST | SAMPLE_BYTES | SAMPLE_POW2,
     .exponent = 10,
     .size = 2,
     .offset = 48,
     .bucket_size = 10},
};

static struct kvmstats_model model_of_sample(const struct sample *file)
{
    return (struct kvmstats_model){
        .flags = file->flags,
        .name_size = file->name_size,
        .id_offset = file->id_offset,
        .desc_offset = file->desc_offset,
        .data_offset = file->data_offset,
        .id = file->id,
        .descs = descs,
        .num_desc = file->num_desc,
        .data = file->data,
        .data_bytes = sizeof file->data,
    };
}

START_TEST(the_bytes_are_those_of_the_format)
{
    struct sample file = sample_file();
    file.flags = 7;
    struct kvmstats_model model = model_of_sample(&file);
    char bytes[sizeof file];
    memset(bytes, 0xee, sizeof bytes);
    ck_assert_uint_eq(kvmstats_encode(&model, bytes, sizeof bytes), sizeof file);
    ck_assert_mem_eq(bytes, &file, sizeof file);
}
END_TEST

START_TEST(gaps_are_zeros_and_order_is_free)
{
    struct sample file = sample_file();
    file.data_offset = 30;
    file.desc_offset = 110;
    file.id_offset = 240;
    struct kvmstats_model model = model_of_sample(&file);
    char bytes[256], expected[256] = {0};
    memset(bytes, 0xee, sizeof bytes);
    memcpy(expected, &file, 24);
    memcpy(expected + 30, file.data, sizeof file.data);
    memcpy(expected + 110, file.descs, sizeof file.descs);
    memcpy(expected + 240, file.id, sizeof file.id);
    ck_assert_uint_eq(kvmstats_encode(&model, bytes, sizeof bytes), sizeof bytes);
    ck_assert_mem_eq(bytes, expected, sizeof bytes);
}
END_TEST

START_TEST(a_schema_without_data)
{
    struct sample file = sample_file();
    struct kvmstats_model model = model_of_sample(&file);
    char bytes[sizeof file];
    model.data = NULL;
    model.data_bytes = 0;
    ck_assert_uint_eq(kvmstats_encode(&model, bytes, sizeof bytes), SAMPLE_EXTENT);
    ck_assert_mem_eq(bytes, &file, SAMPLE_EXTENT);
    model.num_desc = 0;
    model.descs = NULL;
    ck_assert_uint_eq(kvmstats_encode(&model, bytes, sizeof bytes), 40);
}
END_TEST

START_TEST(what_does_not_fit_is_not_written)
{
    struct sample file = sample_file();
    char bytes[sizeof file], untouched[sizeof file];
    memset(bytes, 0xee, sizeof bytes);
    memset(untouched, 0xee, sizeof untouched);
    struct kvmstats_model model = model_of_sample(&file);
    ck_assert_uint_eq(kvmstats_encode(&model, bytes, sizeof bytes - 1), 0);
    ck_assert_uint_eq(kvmstats_encode(&model, NULL, 0), 0);
    model.name_size = 9; /* "wait_hist" and its NUL are 10 */
    model.id = "kvm";
    ck_assert_uint_eq(kvmstats_encode(&model, bytes, sizeof bytes), 0);
    model = model_of_sample(&file);
    model.id = "kvm-123456789012";
    ck_assert_uint_eq(kvmstats_encode(&model, bytes, sizeof bytes), 0);

    static const struct {
        uint32_t id, desc, data;
    } overlaps[] = {
        {23, 40, 168}, {24, 0, 168},   {24, 40, 23},          {24, 39, 168},
        {24, 40, 167}, {153, 24, 169}, {24, UINT32_MAX, 168},
    };
    for (size_t i = 0; i < sizeof overlaps / sizeof overlaps[0]; i++) {
        model = model_of_sample(&file);
        model.id_offset = overlaps[i].id;
        model.desc_offset = overlaps[i].desc;
        model.data_offset = overlaps[i].data;
        ck_assert_msg(kvmstats_encode(&model, bytes, sizeof bytes) == 0, "case %zu", i);
    }
    model = model_of_sample(&file);
    model.data_bytes = SIZE_MAX - 100;
    ck_assert_uint_eq(kvmstats_encode(&model, bytes, sizeof bytes), 0);
    ck_assert_mem_eq(bytes, untouched, sizeof bytes);
}
END_TEST

Suite *encode_suite(void)
{
    Suite *suite = suite_create("encode");
    TCase *tcase = tcase_create("encode");
    tcase_add_test(tcase, the_bytes_are_those_of_the_format);
    tcase_add_test(tcase, gaps_are_zeros_and_order_is_free);
    tcase_add_test(tcase, a_schema_without_data);
    tcase_add_test(tcase, what_does_not_fit_is_not_written);
    suite_add_tcase(suite, tcase);
    return suite;
}
