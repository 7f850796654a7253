/* SPDX-License-Identifier: Apache-2.0 */
#include "kvmstats/kvmstats.h"

#include "suites.h"

#include <string.h>

enum {
    P10 = KVMSTATS_BASE_POW10,
    P2 = KVMSTATS_BASE_POW2
};

static const struct {
    uint64_t raw;
    uint8_t base;
    int16_t exponent;
    const char *decimal;
} cases[] = {
    {0, P10, 0, "0"},
    {0, P10, -9, "0"},
    {0, P10, 256, "0"},
    {0, P2, -256, "0"},
    {0, P2, 256, "0"},
    {7, P10, 0, "7"},
    {10, P10, 0, "10"},
    {99, P10, 0, "99"},
    {100, P10, 0, "100"},
    {1000, P2, 0, "1000"},
    {UINT64_MAX, P10, 0, "18446744073709551615"},
    {1023, P10, -9, "0.000001023"},
    {1, P10, -9, "0.000000001"},
    {1500000000, P10, -9, "1.5"},
    {1000000000, P10, -9, "1"},
    {123456789012, P10, -9, "123.456789012"},
    {100, P10, -2, "1"},
    {100, P10, -3, "0.1"},
    {100, P10, -1, "10"},
    {UINT64_MAX, P10, -9, "18446744073.709551615"},
    {UINT64_MAX, P10, -19, "1.8446744073709551615"},
    {UINT64_MAX, P10, -20, "0.18446744073709551615"},
    {UINT64_MAX, P10, -21, "0.018446744073709551615"},
    {10000000000000000000u, P10, -19, "1"},
    {5, P10, 3, "5000"},
    {1, P2, -3, "0.125"},
    {8, P2, -3, "1"},
    {9, P2, -3, "1.125"},
    {1, P2, -1, "0.5"},
    {3, P2, 10, "3072"},
    {1, P2, 63, "9223372036854775808"},
    {1, P2, 64, "18446744073709551616"},
    {2, P2, 63, "18446744073709551616"},
    {UINT64_MAX, P2, 1, "36893488147419103230"},
    {UINT64_MAX, P2, -64, "0.9999999999999999999457898913757247782996273599565029144287109375"},
    {1, P2, 100, "1267650600228229401496703205376"},
    /* Limbs of nothing but zeros. */
    {1000000000000000000u, P2, 1, "2000000000000000000"},
    {15625000000000000000u, P2, 12, "64000000000000000000000"},
    /* A base never heard of, and exponents past the limit: the raw value. */
    {1234, 2, -3, "1234"},
    {1234, 255, 3, "1234"},
    {1234, P10, 257, "1234"},
    {1234, P10, -257, "1234"},
    {1234, P2, INT16_MAX, "1234"},
    {1234, P2, INT16_MIN, "1234"},
};

START_TEST(known_values)
{
    char buffer[KVMSTATS_DECIMAL_BYTES];
    memset(buffer, 'x', sizeof buffer);
    size_t n = kvmstats_format_scaled(buffer, cases[_i].raw, cases[_i].base, cases[_i].exponent);
    ck_assert_str_eq(buffer, cases[_i].decimal);
    ck_assert_uint_eq(n, strlen(buffer));
}
END_TEST

START_TEST(longest_values_fit)
{
    char buffer[KVMSTATS_DECIMAL_BYTES], expected[KVMSTATS_DECIMAL_BYTES];
    memset(expected, '0', sizeof expected);
    memcpy(expected, "18446744073709551615", 20);
    expected[20 + 256] = '\0';
    ck_assert_uint_eq(kvmstats_format_scaled(buffer, UINT64_MAX, P10, 256), 276);
    ck_assert_str_eq(buffer, expected);

    memset(expected, '0', sizeof expected);
    expected[1] = '.';
    strcpy(expected + 2 + 256 - 20, "18446744073709551615");
    ck_assert_uint_eq(kvmstats_format_scaled(buffer, UINT64_MAX, P10, -256), 258);
    ck_assert_str_eq(buffer, expected);

    /* (2^64 - 1) * 2^256 = 2^320 - 2^256 */
    ck_assert_uint_eq(kvmstats_format_scaled(buffer, UINT64_MAX, P2, 256), 97);
    ck_assert_str_eq(buffer, "2135987035920910082279229616932235919179133537347"
                             "964862093771623156579161741182966015048957296640");
    /* As many places as the exponent says: 2^-256 is no shorter. */
    ck_assert_uint_eq(kvmstats_format_scaled(buffer, UINT64_MAX, P2, -256), 258);
    ck_assert_int_eq(buffer[257], '5');
}
END_TEST

Suite *decimal_suite(void)
{
    Suite *suite = suite_create("decimal");
    TCase *tcase = tcase_create("decimal");
    tcase_add_loop_test(tcase, known_values, 0, sizeof cases / sizeof cases[0]);
    tcase_add_test(tcase, longest_values_fit);
    suite_add_tcase(suite, tcase);
    return suite;
}
