/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>

#include "kvmstats/kvmstats.h"
#include "number.h"
#include "suites.h"

static void check_number(uint64_t value)
{
    char expected[KVMSTATS_DECIMAL_BYTES], got[64];
    (void)snprintf(expected, sizeof expected, "%" PRIu64, value);
    *number_put_u64(got, value) = '\0';
    ck_assert_str_eq(got, expected);

    kvmstats_format_scaled(expected, value, KVMSTATS_BASE_POW10, -9);
    *number_put_nano(got, value) = '\0';
    ck_assert_str_eq(got, expected);
}

START_TEST(edges)
{
    check_number(0);
    check_number(UINT64_MAX);
    check_number(1500000000);
    for (uint64_t power = 1; power <= UINT64_MAX / 10; power *= 10) {
        for (uint64_t digit = 1; digit <= 9; digit++) {
            check_number(power * digit);
            check_number(power * digit - 1);
            check_number(power * digit + 1);
        }
    }
}
END_TEST

START_TEST(every_short_number)
{
    char got[64];
    for (uint32_t value = 0; value < 100000; value++) {
        char expected[9];
        (void)snprintf(expected, sizeof expected, "%08" PRIu32, value * 1000 + value % 1000);
        *number_put8(got, value * 1000 + value % 1000) = '\0';
        ck_assert_str_eq(got, expected);
    }
}
END_TEST

START_TEST(any_number)
{
    for (int i = 0; i < 20000; i++)
        check_number(testing_random() >> testing_random_below(64));
}
END_TEST

/* Nothing is written further past the end than it says. */
START_TEST(overrun)
{
    for (int i = 0; i < 2000; i++) {
        char got[64];
        uint64_t value = testing_random() >> testing_random_below(64);
        memset(got, '#', sizeof got);
        char *end = i % 2 ? number_put_u64(got, value) : number_put_nano(got, value);
        ck_assert_int_le(end - got, i % 2 ? NUMBER_U64_BYTES : NUMBER_NANO_BYTES);
        for (char *p = end + NUMBER_OVERRUN; p < got + sizeof got; p++)
            ck_assert_int_eq(*p, '#');
    }
}
END_TEST

Suite *number_suite(void)
{
    Suite *suite = suite_create("number");
    TCase *tc = tcase_create("number");
    tcase_add_test(tc, edges);
    tcase_add_test(tc, every_short_number);
    tcase_add_test(tc, any_number);
    tcase_add_test(tc, overrun);
    suite_add_tcase(suite, tc);
    return suite;
}
