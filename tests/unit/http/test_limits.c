/* SPDX-License-Identifier: Apache-2.0 */
/* quota.c and watch.c. */
#include "http_test.h"

#include "clock.h"
#include "watch.h"

START_TEST(requests_up_to_the_limit)
{
    struct quota quota;
    quota_init(&quota, 2, 100);
    ck_assert(quota_enter(&quota));
    ck_assert(quota_enter(&quota));
    ck_assert(!quota_enter(&quota));
    quota_leave(&quota);
    ck_assert(quota_enter(&quota));
    ck_assert(!quota_enter(&quota));
    quota_deinit(&quota);
}
END_TEST

START_TEST(bytes_up_to_the_limit)
{
    struct quota quota;
    struct holding a, b;
    quota_init(&quota, 2, 100);
    holding_init(&a, &quota);
    holding_init(&b, &quota);
    ck_assert_int_eq(holding_add(&a, 60), 0);
    ck_assert_int_eq(holding_add(&b, 40), 0);
    ck_assert_int_eq(holding_add(&b, 1), -ENOBUFS);
    ck_assert_uint_eq(b.bytes, 40);
    ck_assert_uint_eq(quota.bytes, 100);
    holding_end(&a);
    ck_assert_uint_eq(quota.bytes, 40);
    ck_assert_int_eq(holding_add(&b, 60), 0);
    holding_end(&b);
    holding_end(&b); /* again is nothing */
    ck_assert_uint_eq(quota.bytes, 0);
    quota_deinit(&quota);
}
END_TEST

START_TEST(the_oldest_answer_may_always_grow)
{
    struct quota quota;
    struct holding a, b;
    quota_init(&quota, 2, 100);
    holding_init(&a, &quota);
    holding_init(&b, &quota);
    ck_assert_int_eq(holding_add(&a, 1000), 0);
    ck_assert_int_eq(holding_add(&b, 1), -ENOBUFS); /* 100 - 1000 must not wrap */
    ck_assert_int_eq(holding_add(&b, 0), 0);
    ck_assert_int_eq(holding_add(&a, 1000), 0);
    holding_end(&a);
    ck_assert_int_eq(holding_add(&b, 1000), 0); /* now it is the oldest itself */
    ck_assert_int_eq(holding_add(&a, 1), -ENOBUFS);
    holding_end(&b);
    quota_deinit(&quota);
}
END_TEST

/* Whether the other end was shut down, now. */
static bool is_ended(int fd)
{
    char byte;
    return recv(fd, &byte, 1, MSG_DONTWAIT) == 0;
}

START_TEST(the_late_are_cut_and_others_are_not)
{
    struct watch watch;
    struct watched late, early, moved;
    int a[2], b[2], c[2];
    int64_t now_ns = clock_now_ns();
    ck_assert_int_eq(watch_start(&watch), 0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, a), 0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, b), 0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, c), 0);
    watch_add(&watch, &early, a[0], now_ns + 3600 * NSEC_PER_SEC);
    watch_add(&watch, &late, b[0], now_ns + 20 * NSEC_PER_MSEC);
    watch_add(&watch, &moved, c[0], now_ns + 3600 * NSEC_PER_SEC);
    (void)client_drain(b[1]); /* returns when the thread has cut it */
    ck_assert(!is_ended(a[1]));
    ck_assert(!is_ended(c[1]));
    watch_move(&watch, &moved, clock_now_ns()); /* earlier than what the thread sleeps for */
    (void)client_drain(c[1]);
    ck_assert(!is_ended(a[1]));
    watch_remove(&watch, &early);
    watch_remove(&watch, &late);
    watch_remove(&watch, &moved);
    watch_stop(&watch);
    for (int i = 0; i < 2; i++) {
        (void)close(a[i]);
        (void)close(b[i]);
        (void)close(c[i]);
    }
}
END_TEST

Suite *suite_limits(void)
{
    Suite *suite = suite_create("limits");
    TCase *tests = tcase_create("limits");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, requests_up_to_the_limit);
    tcase_add_test(tests, bytes_up_to_the_limit);
    tcase_add_test(tests, the_oldest_answer_may_always_grow);
    tcase_add_test(tests, the_late_are_cut_and_others_are_not);
    suite_add_tcase(suite, tests);
    return suite;
}
