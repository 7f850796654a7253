/* SPDX-License-Identifier: Apache-2.0 */
#include "kvmstats/kvmstats.h"

#include "suites.h"

START_TEST(names)
{
    ck_assert_str_eq(kvmstats_type_name(KVMSTATS_TYPE_CUMULATIVE), "cumulative");
    ck_assert_str_eq(kvmstats_type_name(KVMSTATS_TYPE_INSTANT), "instant");
    ck_assert_str_eq(kvmstats_type_name(KVMSTATS_TYPE_PEAK), "peak");
    ck_assert_str_eq(kvmstats_type_name(KVMSTATS_TYPE_LINEAR_HIST), "linear_hist");
    ck_assert_str_eq(kvmstats_type_name(KVMSTATS_TYPE_LOG_HIST), "log_hist");
    ck_assert_str_eq(kvmstats_unit_name(KVMSTATS_UNIT_NONE), "none");
    ck_assert_str_eq(kvmstats_unit_name(KVMSTATS_UNIT_BYTES), "bytes");
    ck_assert_str_eq(kvmstats_unit_name(KVMSTATS_UNIT_SECONDS), "seconds");
    ck_assert_str_eq(kvmstats_unit_name(KVMSTATS_UNIT_CYCLES), "cycles");
    ck_assert_str_eq(kvmstats_unit_name(KVMSTATS_UNIT_BOOLEAN), "boolean");
    ck_assert_str_eq(kvmstats_base_name(KVMSTATS_BASE_POW10), "pow10");
    ck_assert_str_eq(kvmstats_base_name(KVMSTATS_BASE_POW2), "pow2");
}
END_TEST

START_TEST(the_unknown_has_no_name)
{
    for (unsigned i = 5; i < 256; i++) {
        ck_assert_ptr_null(kvmstats_type_name((uint8_t)i));
        ck_assert_ptr_null(kvmstats_unit_name((uint8_t)i));
        ck_assert_ptr_null(kvmstats_base_name((uint8_t)(i - 3)));
    }
    ck_assert_ptr_null(kvmstats_base_name(255));
}
END_TEST

Suite *names_suite(void)
{
    Suite *suite = suite_create("names");
    TCase *tcase = tcase_create("names");
    tcase_add_test(tcase, names);
    tcase_add_test(tcase, the_unknown_has_no_name);
    suite_add_tcase(suite, tcase);
    return suite;
}
