/* SPDX-License-Identifier: Apache-2.0 */
/* Recordings that no recorder makes: what they could cost or break is refused. */
#include <string.h>

#include "history.h"
#include "suites.h"

enum {
    RECORDS_BYTES = 8 << 20,
    VALUES_MAX = 64 << 20,
};

/* Schema 0 has no statistics at all, so that its blocks cost nothing; 1 has one. */
static struct replay_schemas schemas;
static struct kvmstats_schema *decoded[2];
static uint8_t records[RECORDS_BYTES];
static size_t len;
static int64_t now_ns;

static struct kvmstats_schema *make_schema(uint32_t n)
{
    uint8_t file[512];
    struct kvmstats_schema *schema;
    const struct kvmstats_desc desc = {.name = "any", .size = 1};
    const struct kvmstats_model model = {
        .name_size = 8,
        .id_offset = 24,
        .desc_offset = 32,
        .data_offset = 256,
        .id = "kvm-1",
        .descs = &desc,
        .num_desc = n,
    };
    size_t bytes = kvmstats_encode(&model, file, sizeof file);
    ck_assert_uint_gt(bytes, 0);
    ck_assert_int_eq(kvmstats_schema_decode(file, bytes, &schema, NULL), 0);
    return schema;
}

static void setup(void)
{
    schemas = (struct replay_schemas){0};
    len = 0;
    now_ns = 1000;
    for (uint32_t i = 0; i < ARRAY_LEN(decoded); i++) {
        decoded[i] = make_schema(i);
        ck_assert_int_eq(replay_schemas_add(&schemas, i, decoded[i]), 0);
    }
}

static void teardown(void)
{
    for (size_t i = 0; i < ARRAY_LEN(decoded); i++)
        kvmstats_schema_free(decoded[i]);
}

/* `n` targets, all of them read: vCPU first_vcpu, and each so many `further` on. */
static void put_record(enum record_kind kind, uint32_t schema, int32_t first_vcpu, uint32_t n,
                       int32_t further)
{
    const uint64_t before = kind != RECORD_FIRST, now = kind != RECORD_LAST;
    struct codec_writer w;
    size_t record_len;
    now_ns += kind != RECORD_LAST;
    codec_begin(&w, records + len, kind, now_ns, now_ns - 1, kind == RECORD_TICK, n);
    for (uint32_t i = 0; kind != RECORD_TICK && i < n; i++)
        codec_put_target(&w, &(struct codec_target){first_vcpu + (int32_t)i * further, schema});
    for (uint32_t i = 0; i < n; i++) {
        codec_put_state(&w, &(struct codec_state){.status = kind == RECORD_LAST ? 0 : 1,
                                                  .had_before = kind != RECORD_FIRST,
                                                  .read_ns = now_ns});
        w.to = codec_put_block(w.to, &schemas.shapes[schema], &before, &now);
    }
    const uint8_t *record = codec_end(&w, &record_len);
    ck_assert_ptr_nonnull(record);
    memmove(records + len, record, record_len);
    len += record_len;
    ck_assert_uint_lt(len, RECORDS_BYTES / 2);
}

static int collect(struct history *history)
{
    CLEANUP_REPLAY struct replay replay = {0};
    const struct history_query all = {.vcpu = HISTORY_VCPU_ALL, .since_ns = INT64_MIN};
    ck_assert_int_eq(replay_begin(&replay, &schemas, records, len, now_ns, SIZE_MAX), 0);
    ck_assert_int_eq(replay_seek_last(&replay), 0);
    return history_collect(&replay, &all, VALUES_MAX, history);
}

static int collect_and_free(void)
{
    CLEANUP_HISTORY struct history history = {0};
    return collect(&history);
}

START_TEST(as_many_targets_as_a_vm_may_have)
{
    CLEANUP_HISTORY struct history history = {0};
    put_record(RECORD_FIRST, 0, -1, REPLAY_TARGETS_MAX, 1);
    put_record(RECORD_LAST, 0, -1, REPLAY_TARGETS_MAX, 1);
    ck_assert_int_eq(collect(&history), 0);
    ck_assert_uint_eq(history.n_targets, REPLAY_TARGETS_MAX);
    len = 0;
    put_record(RECORD_FIRST, 0, -1, REPLAY_TARGETS_MAX + 1, 1);
    put_record(RECORD_LAST, 0, -1, REPLAY_TARGETS_MAX + 1, 1);
    ck_assert_int_eq(collect_and_free(), -EBADMSG);
}
END_TEST

/* Each list has others, from the highest down: none is found where it is looked for first. */
START_TEST(targets_that_are_always_others)
{
    enum {
        A_LIST = 4096,
        LISTS = HISTORY_TARGETS_MAX / A_LIST,
    };
    CLEANUP_HISTORY struct history history = {0};
    for (int32_t i = 0; i < LISTS; i++) {
        put_record(RECORD_FIRST, 0, (i + 1) * A_LIST, A_LIST, -1);
        put_record(RECORD_LAST, 0, (i + 1) * A_LIST, A_LIST, -1);
    }
    ck_assert_int_eq(collect(&history), 0);
    ck_assert_uint_eq(history.n_targets, LISTS * A_LIST);
    put_record(RECORD_FIRST, 0, 1000000, A_LIST, -1);
    put_record(RECORD_LAST, 0, 1000000, A_LIST, -1);
    ck_assert_int_eq(collect_and_free(), -EFBIG);
}
END_TEST

/* The same ones, in another order every time. */
START_TEST(targets_in_any_order)
{
    CLEANUP_HISTORY struct history history = {0};
    for (int i = 0; i < 4; i++) {
        put_record(RECORD_FIRST, 1, i % 2 ? 99 : 0, 100, i % 2 ? -1 : 1);
        put_record(RECORD_LAST, 1, i % 2 ? 99 : 0, 100, i % 2 ? -1 : 1);
    }
    ck_assert_int_eq(collect(&history), 0);
    ck_assert_uint_eq(history.n_targets, 100);
}
END_TEST

START_TEST(a_target_that_stands_twice)
{
    put_record(RECORD_FIRST, 1, 5, 2, 0);
    for (int i = 0; i < 100; i++)
        put_record(RECORD_TICK, 1, 5, 2, 0);
    put_record(RECORD_LAST, 1, 5, 2, 0);
    ck_assert_int_eq(collect_and_free(), -EBADMSG);
}
END_TEST

Suite *replay_suite(void)
{
    Suite *suite = suite_create("replay");
    TCase *tests = tcase_create("replay");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, as_many_targets_as_a_vm_may_have);
    tcase_add_test(tests, targets_that_are_always_others);
    tcase_add_test(tests, targets_in_any_order);
    tcase_add_test(tests, a_target_that_stands_twice);
    suite_add_tcase(suite, tests);
    return suite;
}
