/* SPDX-License-Identifier: Apache-2.0 */
/* Single values. */
#include "values.h"

#include <stdio.h>

#include "clock.h"
#include "suites.h"
#include "words.h"

static const struct {
    const char *text;
    int result;
    int64_t ns;
} durations[] = {
    {"100ms", 0, 100000000},
    {"1ns", 0, 1},
    {"0s", 0, 0},
    {"5us", 0, 5000},
    {"2m", 0, 120000000000},
    {"1h", 0, 3600000000000},
    {"1.5s", 0, 1500000000},
    {"0.000000001s", 0, 1},
    {"1.50000000000000000000000000000s", 0, 1500000000},
    {"0.0001220703125h", 0, 439453125},
    {"007s", 0, 7000000000},
    {"9223372036854775807ns", 0, INT64_MAX},
    {"9223372036.854775807s", 0, INT64_MAX},
    {"9223372036854775808ns", -ERANGE, 0},
    {"9223372036.854775808s", -ERANGE, 0},
    {"18446744073709551616ns", -ERANGE, 0},
    {"99999999999999999999999999h", -ERANGE, 0},
    {"2562048h", -ERANGE, 0},
    {"0.3ns", -EINVAL, 0},
    {"0.0000000001s", -EINVAL, 0},
    {"0.0000000000000000001h", -EINVAL, 0},
    {"", -EINVAL, 0},
    {"100", -EINVAL, 0},
    {"1.5", -EINVAL, 0},
    {"ms", -EINVAL, 0},
    {"-1s", -EINVAL, 0},
    {"+1s", -EINVAL, 0},
    {".5s", -EINVAL, 0},
    {"1.s", -EINVAL, 0},
    {"1,5s", -EINVAL, 0},
    {"1 s", -EINVAL, 0},
    {" 1s", -EINVAL, 0},
    {"1s ", -EINVAL, 0},
    {"1S", -EINVAL, 0},
    {"1e3s", -EINVAL, 0},
    {"0x10s", -EINVAL, 0},
    {"1h30m", -EINVAL, 0},
    {"1d", -EINVAL, 0},
    {"1sec", -EINVAL, 0},
    {"inf", -EINVAL, 0},
};

START_TEST(duration)
{
    int64_t ns = -1;
    int r = config_parse_duration(durations[_i].text, &ns);
    ck_assert_msg(r == durations[_i].result, "%s: %d", durations[_i].text, r);
    ck_assert_int_eq(ns, r == 0 ? durations[_i].ns : -1);
}
END_TEST

/* Any number of nanoseconds, written in any unit that can say it, reads back. */
START_TEST(duration_random)
{
    static const struct {
        const char *unit;
        int decimals;
        int64_t scale;
    } units[] = {
        {"ns", 0, 1}, {"us", 3, NSEC_PER_USEC}, {"ms", 6, NSEC_PER_MSEC}, {"s", 9, NSEC_PER_SEC}};
    for (int i = 0; i < 20000; i++) {
        char text[64];
        int64_t ns = -1, want = (int64_t)(testing_random() >> (1 + testing_random_below(63)));
        size_t u = testing_random_below(ARRAY_LEN(units));
        if (units[u].decimals == 0)
            snprintf(text, sizeof text, "%lld%s", (long long)want, units[u].unit);
        else
            snprintf(text, sizeof text, "%lld.%0*lld%s", (long long)(want / units[u].scale),
                     units[u].decimals, (long long)(want % units[u].scale), units[u].unit);
        ck_assert_msg(config_parse_duration(text, &ns) == 0, "%s", text);
        ck_assert_msg(ns == want, "%s: %lld", text, (long long)ns);
    }
}
END_TEST

static const struct {
    const char *text;
    int result;
    int64_t value;
} sizes[] = {
    {"0", 0, 0},
    {"0B", 0, 0},
    {"1B", 0, 1},
    {"64MiB", 0, 64 << 20},
    {"0.5KiB", 0, 512},
    {"1.000000001GiB", -EINVAL, 0},
    {"1TiB", 0, INT64_C(1) << 40},
    {"8388607TiB", 0, INT64_C(8388607) << 40},
    {"8388608TiB", -ERANGE, 0},
    {"64", -EINVAL, 0},
    {"00", -EINVAL, 0},
    {"64MB", -EINVAL, 0},
    {"64M", -EINVAL, 0},
    {"64mib", -EINVAL, 0},
    {"64 MiB", -EINVAL, 0},
    {"-1MiB", -EINVAL, 0},
    {"0.5B", -EINVAL, 0},
};

START_TEST(size)
{
    struct config_error reason = {{0}};
    int64_t value = -1;
    int r = value_size(sizes[_i].text, "64MiB", &value, &reason);
    ck_assert_msg(r == sizes[_i].result, "%s: %d %s", sizes[_i].text, r, reason.message);
    ck_assert_int_eq(value, r == 0 ? sizes[_i].value : -1);
    ck_assert(r == 0 || strstr(reason.message, "64MiB"));
}
END_TEST

static const struct {
    const char *text;
    int result;
    int64_t value;
} counts[] = {
    {"0", 0, 0},
    {"40", 0, 40},
    {"9223372036854775807", 0, INT64_MAX},
    {"9223372036854775808", -ERANGE, 0},
    {"18446744073709551617", -ERANGE, 0},
    {"", -EINVAL, 0},
    {"010", -EINVAL, 0},
    {"00", -EINVAL, 0},
    {"-1", -EINVAL, 0},
    {"+1", -EINVAL, 0},
    {"1.0", -EINVAL, 0},
    {"0x28", -EINVAL, 0},
    {"1_000", -EINVAL, 0},
    {"1e3", -EINVAL, 0},
    {" 1", -EINVAL, 0},
};

START_TEST(count)
{
    struct config_error reason = {{0}};
    int64_t value = -1;
    int r = value_count(counts[_i].text, "40", &value, &reason);
    ck_assert_msg(r == counts[_i].result, "%s: %d %s", counts[_i].text, r, reason.message);
    ck_assert_int_eq(value, r == 0 ? counts[_i].value : -1);
}
END_TEST

/* 107 bytes, the longest path of a Unix socket, its first the slash. */
#define PATH_107                                                                          \
    "/2345678901234567890123456789012345678901234567890123456789012345678901234567890123" \
    "456789012345678901234567"

static const struct {
    const char *text;
    const char *host; /* NULL: refused */
    uint16_t port;
    bool is_unix, is_v6;
} addresses[] = {
    {"127.0.0.1:10177", "127.0.0.1", 10177, false, false},
    {"localhost:1", "localhost", 1, false, false},
    {"a-b.c_d.example.:65535", "a-b.c_d.example.", 65535, false, false},
    {":10177", "", 10177, false, false},
    {":0", "", 0, false, false},
    {"[::]:80", "::", 80, false, true},
    {"[2001:db8::1]:443", "2001:db8::1", 443, false, true},
    {"[::ffff:1.2.3.4]:443", "::ffff:1.2.3.4", 443, false, true},
    {"unix:/run/k.sock", "/run/k.sock", 0, true, false},
    {"unix:" PATH_107, PATH_107, 0, true, false},
    {"unix:" PATH_107 "8", NULL, 0, false, false},
    {"unix:", NULL, 0, false, false},
    {"unix:/", NULL, 0, false, false},
    {"unix:k.sock", NULL, 0, false, false},
    {"unix:@abstract", NULL, 0, false, false},
    {"", NULL, 0, false, false},
    {":", NULL, 0, false, false},
    {"10177", NULL, 0, false, false},
    {"localhost", NULL, 0, false, false},
    {"localhost:", NULL, 0, false, false},
    {"localhost:http", NULL, 0, false, false},
    {"localhost:65536", NULL, 0, false, false},
    {"localhost:-1", NULL, 0, false, false},
    {"localhost:+1", NULL, 0, false, false},
    {"localhost: 1", NULL, 0, false, false},
    {"localhost:1 ", NULL, 0, false, false},
    {"localhost:99999999999999999999999", NULL, 0, false, false},
    {"1.2.3:80", NULL, 0, false, false},
    {"1.2.3.256:80", NULL, 0, false, false},
    {"*:80", NULL, 0, false, false},
    {"-a:80", NULL, 0, false, false},
    {"ho st:80", NULL, 0, false, false},
    {"http://localhost:80", NULL, 0, false, false},
    {"localhost:80/metrics", NULL, 0, false, false},
    {"/run/k.sock", NULL, 0, false, false},
    {"::1", NULL, 0, false, false},
    {"::1:10177", NULL, 0, false, false},
    {"[::1]", NULL, 0, false, false},
    {"[::1]10177", NULL, 0, false, false},
    {"[::1]:", NULL, 0, false, false},
    {"[::1]:x", NULL, 0, false, false},
    {"[::1", NULL, 0, false, false},
    {"[]:1", NULL, 0, false, false},
    {"[fe80::1%eth0]:1", NULL, 0, false, false},
    {"[1.2.3.4]:1", NULL, 0, false, false},
    {"[", NULL, 0, false, false},
    {"\x1b[2J\xff:1", NULL, 0, false, false},
};

START_TEST(listen)
{
    struct config_error error = {{0}};
    struct listen_address a = {.port = 4711};
    int r = config_parse_listen(addresses[_i].text, &a, &error);
    if (!addresses[_i].host) {
        ck_assert_msg(r == -EINVAL, "%s", addresses[_i].text);
        ck_assert_msg(is_printable_line(error.message), "%s", addresses[_i].text);
        ck_assert_ptr_nonnull(strchr(error.message, ';'));
        ck_assert_uint_eq(a.port, 4711);
        return;
    }
    ck_assert_msg(r == 0, "%s: %s", addresses[_i].text, error.message);
    ck_assert_str_eq(a.host, addresses[_i].host);
    ck_assert_uint_eq(a.port, addresses[_i].port);
    ck_assert_int_eq(a.is_unix, addresses[_i].is_unix);
    ck_assert_int_eq(a.is_v6, addresses[_i].is_v6);
}
END_TEST

START_TEST(listen_long)
{
    static const char *const around[][2] = {{"", ":1"}, {"[", "]:1"}, {"", ""}, {"unix:/", ""}};
    for (size_t i = 0; i < ARRAY_LEN(around); i++) {
        for (size_t len = 250; len < 260; len++) {
            struct listen_address a;
            struct config_error error = {{0}};
            char text[300] = "";
            strcpy(text, around[i][0]);
            memset(text + strlen(text), 'a', len);
            strcat(text, around[i][1]);
            int want = i == 0 && len <= 253 ? 0 : -EINVAL;
            ck_assert_int_eq(config_parse_listen(text, &a, &error), want);
        }
    }
}
END_TEST

START_TEST(quoting)
{
    ck_assert_str_eq(quoted("").text, "\"\"");
    ck_assert_str_eq(quoted("a b").text, "\"a b\"");
    ck_assert_str_eq(quoted("\"\\").text, "\"\\\"\\\\\"");
    ck_assert_str_eq(quoted("\n\x1b\xff\xc3\xa9").text, "\"\\x0a\\x1b\\xff\\xc3\\xa9\"");
    char text[QUOTED_BYTES + 2];
    memset(text, '\xff', sizeof text);
    text[QUOTED_BYTES] = '\0';
    ck_assert_uint_eq(strlen(quoted(text).text), QUOTED_BYTES * 4 + 2);
    text[QUOTED_BYTES] = 'x';
    text[QUOTED_BYTES + 1] = '\0';
    ck_assert_uint_eq(strlen(quoted(text).text), QUOTED_BYTES * 4 + 5);
}
END_TEST

START_TEST(escaping_is_bounded)
{
    char small[8] = "ab";
    words_escape(small, sizeof small, "c\xff\xff", 3);
    ck_assert_str_eq(small, "abc\\xff");
    words_escape(small, sizeof small, "d", 1);
    ck_assert_str_eq(small, "abc\\xff");
}
END_TEST

START_TEST(nearest)
{
    static const char *const words[] = {"interval", "cpu_affinity", "rules", "vm", NULL};
    ck_assert_str_eq(words_nearest("intervall", words), "interval");
    ck_assert_str_eq(words_nearest("Interval", words), "interval");
    ck_assert_str_eq(words_nearest("intreval", words), "interval");
    ck_assert_str_eq(words_nearest("cpu-affinity", words), "cpu_affinity");
    ck_assert_str_eq(words_nearest("rule", words), "rules");
    ck_assert_str_eq(words_nearest("vms", words), "vm");
    ck_assert_ptr_null(words_nearest("period", words));
    ck_assert_ptr_null(words_nearest("", words));
    ck_assert_ptr_null(words_nearest("a_word_longer_than_any_of_the_schema", words));
    ck_assert_str_eq(words_join(words, " or ").text, "interval, cpu_affinity, rules or vm");
    ck_assert_str_eq(words_join(words + 3, " or ").text, "vm");
}
END_TEST

START_TEST(users)
{
    static const char *const right[] = {"root", "libvirt-qemu", "0", "4294967294", "a.b$", "_x"};
    static const char *const wrong[] = {
        "", "4294967295", "99999999999999999999999", "a b", "-", "a:b", "a/b", "-1"};
    struct config_error reason;
    for (size_t i = 0; i < ARRAY_LEN(right); i++)
        ck_assert_int_eq(check_user(right[i], &reason), 0);
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
        ck_assert_int_eq(check_user(wrong[i], &reason), -EINVAL);
}
END_TEST

START_TEST(globs)
{
    struct config_error reason;
    char long_glob[1026];
    memset(long_glob, 'a', sizeof long_glob);
    long_glob[1025] = '\0';
    ck_assert_int_eq(check_glob(long_glob, &reason), -EINVAL);
    long_glob[1024] = '\0';
    ck_assert_int_eq(check_glob(long_glob, &reason), 0);
    ck_assert_int_eq(check_glob("", &reason), 0);
    ck_assert_int_eq(check_stat_glob("", &reason), -EINVAL);
    ck_assert_int_eq(check_glob("a\\", &reason), -EINVAL);
    ck_assert_int_eq(check_glob("a\\\\", &reason), 0);
    ck_assert_int_eq(check_glob("\\\\\\", &reason), -EINVAL);
}
END_TEST

Suite *suite_values(void)
{
    Suite *suite = suite_create("values");
    TCase *tc = tcase_create("values");
    tcase_add_loop_test(tc, duration, 0, ARRAY_LEN(durations));
    tcase_add_test(tc, duration_random);
    tcase_add_loop_test(tc, size, 0, ARRAY_LEN(sizes));
    tcase_add_loop_test(tc, count, 0, ARRAY_LEN(counts));
    tcase_add_loop_test(tc, listen, 0, ARRAY_LEN(addresses));
    tcase_add_test(tc, listen_long);
    tcase_add_test(tc, quoting);
    tcase_add_test(tc, escaping_is_bounded);
    tcase_add_test(tc, nearest);
    tcase_add_test(tc, users);
    tcase_add_test(tc, globs);
    suite_add_tcase(suite, tc);
    return suite;
}
