/* SPDX-License-Identifier: Apache-2.0 */
/* Distributions against the definition of their buckets, bound by bound. */
#include <math.h>
#include <stdio.h>

#include "distribution.h"
#include "suites.h"

static const struct distribution_range *const ranges[] = {
    &distribution_of_counts,
    &distribution_of_ratios,
    &distribution_of_large,
};

static double classic_bound(const struct distribution_range *range, unsigned i)
{
    char text[32];
    int power10;
    unsigned step = distribution_bound(range, i, &power10);
    (void)snprintf(text, sizeof text, "%ue%d", step, power10);
    return strtod(text, NULL);
}

/* As a native histogram has it: bucket i of schema 3 ends at 2^(i/8). */
static double native_bound(const struct distribution_range *range, uint32_t i)
{
    return exp2(distribution_native_index(range, i) / 8.0);
}

/* All magnitudes, bounds themselves among them, and what is beyond. */
static double random_value(const struct distribution_range *range)
{
    switch (testing_random_below(5)) {
    case 0:
        return 0;
    case 1:
        return classic_bound(range, (unsigned)testing_random_below(DISTRIBUTION_BOUNDS));
    case 2:
        return ldexp(1, range->first_power2 - 3 + (int)testing_random_below(46));
    }
    double power = range->first_power2 - 4 + (double)testing_random_below(1000000) / 1e6 * 48;
    return exp2(power);
}

static size_t one_that_rose(const _Atomic uint64_t *now, uint64_t *before, size_t n)
{
    size_t found = n;
    for (size_t i = 0; i < n; i++) {
        if (now[i] == before[i])
            continue;
        ck_assert_uint_eq(now[i], before[i] + 1);
        ck_assert_uint_eq(found, n);
        found = i;
        before[i]++;
    }
    return found;
}

START_TEST(value_is_counted_where_it_belongs)
{
    const struct distribution_range *range = ranges[_i];
    struct distribution *d;
    uint64_t classic[DISTRIBUTION_CLASSIC] = {0}, native[DISTRIBUTION_NATIVE] = {0}, zero = 0;
    double sum = 0;
    ck_assert_int_eq(distribution_new(range, &d), 0);
    for (int i = 0; i < 20000; i++) {
        double value = random_value(range);
        distribution_observe(d, value);
        sum += value;

        size_t at = one_that_rose(d->classic, classic, DISTRIBUTION_CLASSIC);
        ck_assert_uint_lt(at, DISTRIBUTION_CLASSIC);
        ck_assert(at == DISTRIBUTION_BOUNDS || value <= classic_bound(range, (unsigned)at));
        ck_assert(at == 0 || value > classic_bound(range, (unsigned)at - 1));

        at = one_that_rose(d->native, native, DISTRIBUTION_NATIVE);
        if (value <= range->zero_threshold) {
            ck_assert_uint_eq(at, DISTRIBUTION_NATIVE);
            ck_assert_uint_eq(d->zero, ++zero);
            continue;
        }
        ck_assert_uint_lt(at, DISTRIBUTION_NATIVE);
        /* exp2() may be off by a last place where the bound is no power of two. */
        ck_assert(at == DISTRIBUTION_NATIVE - 1 ||
                  value <= native_bound(range, (uint32_t)at) * (1 + 1e-15));
        ck_assert(value > (at ? native_bound(range, (uint32_t)at - 1) * (1 - 1e-15)
                              : range->zero_threshold));
        if (exp2(rint(log2(value))) == value && at < DISTRIBUTION_NATIVE - 1)
            ck_assert(value == native_bound(range, (uint32_t)at)); /* powers of two are exact */
    }
    ck_assert(distribution_sum(d) == sum);
    distribution_unref(d);
}
END_TEST

/* The first native bucket begins where the zero bucket ends, and classic bounds rise. */
START_TEST(ranges_have_no_gaps)
{
    const struct distribution_range *range = ranges[_i];
    ck_assert(native_bound(range, 0) > range->zero_threshold);
    ck_assert(exp2((distribution_native_index(range, 0) - 1) / 8.0) == range->zero_threshold);
    ck_assert(native_bound(range, DISTRIBUTION_NATIVE - 1) ==
              range->zero_threshold * exp2(DISTRIBUTION_OCTAVES));
    for (unsigned i = 0; i < DISTRIBUTION_BOUNDS; i++)
        ck_assert(range->bounds[i] == classic_bound(range, i));
}
END_TEST

Suite *distribution_suite(void)
{
    Suite *suite = suite_create("distributions");
    TCase *tc = tcase_create("distributions");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, value_is_counted_where_it_belongs, 0, (int)ARRAY_LEN(ranges));
    tcase_add_loop_test(tc, ranges_have_no_gaps, 0, (int)ARRAY_LEN(ranges));
    suite_add_tcase(suite, tc);
    return suite;
}
