/* SPDX-License-Identifier: Apache-2.0 */
#include "schedstat.h"

#include <string.h>

#include "suites.h"

static const struct {
    const char *text;
    int r;
    uint64_t run_ns, wait_ns;
} texts[] = {
    {"123456789 987654321 42\n", 0, 123456789, 987654321},
    {"0 5 1\n", 0, 0, 5},
    {"1 0 0\n", 0, 1, 0},
    {"0 0 1\n", 0, 0, 0},
    {"18446744073709551615 18446744073709551615 1\n", 0, UINT64_MAX, UINT64_MAX},
    {"1 2 3\n4 5 6\n", 0, 1, 2}, /* a later kernel may have more to say */
    {"0 0 0\n", SCHEDSTAT_NOTHING, 0, 0},
    {"18446744073709551616 1 1\n", -EBADMSG, 0, 0},
    {"1 2\n", -EBADMSG, 0, 0},
    {"1 2 3", -EBADMSG, 0, 0},
    {"1  2 3\n", -EBADMSG, 0, 0},
    {" 1 2 3\n", -EBADMSG, 0, 0},
    {"-1 2 3\n", -EBADMSG, 0, 0},
    {"1 2 x\n", -EBADMSG, 0, 0},
    {"\n", -EBADMSG, 0, 0},
    {"", -EBADMSG, 0, 0},
};

START_TEST(parses)
{
    struct times times = {7, 8}; /* written only on success */
    ck_assert_int_eq(schedstat_parse(texts[_i].text, strlen(texts[_i].text), &times), texts[_i].r);
    ck_assert_uint_eq(times.run_ns, texts[_i].r ? 7 : texts[_i].run_ns);
    ck_assert_uint_eq(times.wait_ns, texts[_i].r ? 8 : texts[_i].wait_ns);
}
END_TEST

/* No byte behind the length is looked at. */
START_TEST(every_prefix_is_refused)
{
    static const char text[] = "12 34 56\n";
    for (size_t len = 0; len < sizeof text - 1; len++) {
        CLEANUP_FREE char *copy = malloc(len + 1);
        struct times times;
        memcpy(copy, text, len);
        ck_assert_int_eq(schedstat_parse(copy, len, &times), -EBADMSG);
    }
}
END_TEST

Suite *suite_schedstat(void)
{
    Suite *suite = suite_create("schedstat");
    TCase *tcase = tcase_create("schedstat");
    tcase_add_loop_test(tcase, parses, 0, sizeof texts / sizeof texts[0]);
    tcase_add_test(tcase, every_prefix_is_refused);
    suite_add_tcase(suite, tcase);
    return suite;
}
