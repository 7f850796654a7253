/* SPDX-License-Identifier: Apache-2.0 */
#include "kvmstats/kvmstats.h"

#include "suites.h"

static struct kvmstats_desc log_hist(uint16_t size)
{
    return (struct kvmstats_desc){.type = KVMSTATS_TYPE_LOG_HIST, .known = true, .size = size};
}

static struct kvmstats_desc linear_hist(uint16_t size, uint32_t bucket_size)
{
    return (struct kvmstats_desc){
        .type = KVMSTATS_TYPE_LINEAR_HIST,
        .known = true,
        .size = size,
        .bucket_size = bucket_size,
    };
}

/* The kernel's definition: position of the highest bit set, counted from 1. */
static size_t slow_fls64(uint64_t value)
{
    size_t n = 0;
    for (; value; value >>= 1)
        n++;
    return n;
}

START_TEST(log_bounds)
{
    struct kvmstats_desc desc = log_hist(32);
    uint64_t bound = 99;
    for (size_t i = 0; i < 31; i++) {
        ck_assert(kvmstats_bucket_bound(&desc, i, &bound));
        ck_assert_uint_eq(bound, (UINT64_C(1) << i) - 1);
    }
    bound = 99;
    ck_assert(!kvmstats_bucket_bound(&desc, 31, &bound));
    ck_assert(!kvmstats_bucket_bound(&desc, 32, &bound));
    ck_assert(!kvmstats_bucket_bound(&desc, SIZE_MAX, &bound));
    ck_assert_uint_eq(bound, 99);
}
END_TEST

START_TEST(log_bounds_of_64_bits)
{
    struct kvmstats_desc desc = log_hist(100);
    uint64_t bound = 0;
    ck_assert(kvmstats_bucket_bound(&desc, 63, &bound));
    ck_assert_uint_eq(bound, UINT64_MAX >> 1);
    ck_assert(kvmstats_bucket_bound(&desc, 64, &bound));
    ck_assert_uint_eq(bound, UINT64_MAX);
    /* No value can come here. */
    ck_assert(!kvmstats_bucket_bound(&desc, 65, &bound));
    ck_assert(!kvmstats_bucket_bound(&desc, 98, &bound));
}
END_TEST

START_TEST(linear_bounds)
{
    struct kvmstats_desc desc = linear_hist(4, 10);
    uint64_t bound = 0;
    for (size_t i = 0; i < 3; i++) {
        ck_assert(kvmstats_bucket_bound(&desc, i, &bound));
        ck_assert_uint_eq(bound, i * 10 + 9);
    }
    ck_assert(!kvmstats_bucket_bound(&desc, 3, &bound));
    /* Past 32 bits. */
    desc = linear_hist(UINT16_MAX, UINT32_MAX);
    ck_assert(kvmstats_bucket_bound(&desc, 65533, &bound));
    ck_assert_uint_eq(bound, UINT64_C(65534) * UINT32_MAX - 1);
}
END_TEST

START_TEST(one_bucket_takes_all)
{
    struct kvmstats_desc one_log = log_hist(1), one_linear = linear_hist(1, 5);
    uint64_t bound;
    ck_assert(!kvmstats_bucket_bound(&one_log, 0, &bound));
    ck_assert(!kvmstats_bucket_bound(&one_linear, 0, &bound));
    ck_assert_uint_eq(kvmstats_bucket_of(&one_log, UINT64_MAX), 0);
    ck_assert_uint_eq(kvmstats_bucket_of(&one_linear, UINT64_MAX), 0);
}
END_TEST

START_TEST(buckets_are_the_kernels)
{
    struct kvmstats_desc desc = log_hist(32);
    ck_assert_uint_eq(kvmstats_bucket_of(&desc, 0), 0);
    ck_assert_uint_eq(kvmstats_bucket_of(&desc, 1), 1);
    ck_assert_uint_eq(kvmstats_bucket_of(&desc, 2), 2);
    ck_assert_uint_eq(kvmstats_bucket_of(&desc, 3), 2);
    ck_assert_uint_eq(kvmstats_bucket_of(&desc, 4), 3);
    ck_assert_uint_eq(kvmstats_bucket_of(&desc, (UINT64_C(1) << 30) - 1), 30);
    ck_assert_uint_eq(kvmstats_bucket_of(&desc, UINT64_C(1) << 30), 31);
    ck_assert_uint_eq(kvmstats_bucket_of(&desc, UINT64_MAX), 31);
    desc = linear_hist(4, 10);
    ck_assert_uint_eq(kvmstats_bucket_of(&desc, 9), 0);
    ck_assert_uint_eq(kvmstats_bucket_of(&desc, 10), 1);
    ck_assert_uint_eq(kvmstats_bucket_of(&desc, 39), 3);
    ck_assert_uint_eq(kvmstats_bucket_of(&desc, UINT64_MAX), 3);
}
END_TEST

START_TEST(buckets_agree_with_their_bounds)
{
    for (int round = 0; round < 20000; round++) {
        uint16_t size = (uint16_t)(1 + testing_random_below(round % 2 ? 70 : UINT16_MAX));
        uint32_t width = (uint32_t)(1 + testing_random_below(round % 4 < 2 ? 100 : UINT32_MAX));
        struct kvmstats_desc desc = round % 3 ? log_hist(size) : linear_hist(size, width);
        uint64_t value = testing_random() >> testing_random_below(64), bound;
        size_t i = kvmstats_bucket_of(&desc, value);
        size_t kernels = desc.type == KVMSTATS_TYPE_LOG_HIST ? slow_fls64(value) : value / width;
        ck_assert_uint_eq(i, kernels < size ? kernels : (size_t)size - 1);
        if (kvmstats_bucket_bound(&desc, i, &bound)) {
            ck_assert_uint_le(value, bound);
            ck_assert_uint_eq(kvmstats_bucket_of(&desc, bound), i);
        }
        if (i > 0) {
            ck_assert(kvmstats_bucket_bound(&desc, i - 1, &bound));
            ck_assert_uint_gt(value, bound);
            ck_assert_uint_eq(kvmstats_bucket_of(&desc, bound + 1), i);
        }
    }
}
END_TEST

START_TEST(what_is_no_histogram_has_no_bounds)
{
    struct kvmstats_desc desc = log_hist(32);
    uint64_t bound;
    desc.known = false; /* e.g. an unknown base */
    ck_assert(!kvmstats_bucket_bound(&desc, 0, &bound));
    ck_assert_uint_eq(kvmstats_bucket_of(&desc, 5), 0);
    desc.known = true;
    desc.type = KVMSTATS_TYPE_PEAK;
    ck_assert(!kvmstats_bucket_bound(&desc, 0, &bound));
    ck_assert_uint_eq(kvmstats_bucket_of(&desc, 5), 0);
    /* Not from the decoder, but nothing may divide by zero or wrap around either. */
    desc = linear_hist(0, 0);
    ck_assert(!kvmstats_bucket_bound(&desc, 0, &bound));
    ck_assert_uint_eq(kvmstats_bucket_of(&desc, 5), 0);
    desc = linear_hist(2, 0);
    ck_assert(!kvmstats_bucket_bound(&desc, 0, &bound));
    ck_assert_uint_eq(kvmstats_bucket_of(&desc, 5), 0);
}
END_TEST

Suite *histogram_suite(void)
{
    Suite *suite = suite_create("histogram");
    TCase *tcase = tcase_create("histogram");
    tcase_add_test(tcase, log_bounds);
    tcase_add_test(tcase, log_bounds_of_64_bits);
    tcase_add_test(tcase, linear_bounds);
    tcase_add_test(tcase, one_bucket_takes_all);
    tcase_add_test(tcase, buckets_are_the_kernels);
    tcase_add_test(tcase, buckets_agree_with_their_bounds);
    tcase_add_test(tcase, what_is_no_histogram_has_no_bounds);
    suite_add_tcase(suite, tcase);
    return suite;
}
