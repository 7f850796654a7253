/* SPDX-License-Identifier: Apache-2.0 */
#include "clock.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/time.h>

#include "suites.h"

static void interrupt_soon(void)
{
    const struct itimerval soon = {.it_value = {0, 200}};
    (void)setitimer(ITIMER_REAL, &soon, NULL);
}

/* Stands in for whoever takes the CPU away. */
static void take_time(int number)
{
    const struct timespec a_while = {0, 3 * NSEC_PER_MSEC};
    (void)number;
    (void)nanosleep(&a_while, NULL);
    interrupt_soon();
}

/* Recordings of the same tick asked for twice must have the same time. */
START_TEST(offset_does_not_hold_what_came_between)
{
    const struct itimerval never = {{0, 0}, {0, 0}};
    const struct sigaction action = {.sa_handler = take_time};
    int64_t offset_ns = clock_wall_offset_ns(), furthest_ns = 0, end_ns = clock_now_ns();
    end_ns += NSEC_PER_SEC;
    ck_assert_int_eq(sigaction(SIGALRM, &action, NULL), 0);
    interrupt_soon();
    while (clock_now_ns() < end_ns) {
        int64_t off_ns = llabs(clock_wall_offset_ns() - offset_ns);
        furthest_ns = off_ns > furthest_ns ? off_ns : furthest_ns;
    }
    ck_assert_int_eq(setitimer(ITIMER_REAL, &never, NULL), 0);
    ck_assert_int_lt(furthest_ns, NSEC_PER_MSEC);
}
END_TEST

Suite *suite_clock(void)
{
    Suite *suite = suite_create("clock");
    TCase *tests = tcase_create("clock");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, offset_does_not_hold_what_came_between);
    suite_add_tcase(suite, tests);
    return suite;
}
