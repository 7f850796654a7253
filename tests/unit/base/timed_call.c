/* SPDX-License-Identifier: Apache-2.0 */
#include "timed_call.h"

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "clock.h"
#include "suites.h"

#define FOR_EVER (INT64_MAX / 2)

static sem_t may_return, released;
static atomic_int n_begun;

struct work {
    bool hangs;
    pthread_t thread;
    char name[16];
    sigset_t blocked;
};

static void work_run(void *data)
{
    struct work *work = data;
    (void)atomic_fetch_add(&n_begun, 1);
    work->thread = pthread_self();
    (void)pthread_getname_np(work->thread, work->name, sizeof work->name);
    (void)pthread_sigmask(SIG_SETMASK, NULL, &work->blocked);
    if (work->hangs)
        (void)sem_wait(&may_return);
}

static void work_release(void *data)
{
    free(data);
    (void)sem_post(&released);
}

static struct work *work_new(bool hangs)
{
    struct work *work = calloc(1, sizeof *work);
    ck_assert_ptr_nonnull(work);
    work->hangs = hangs;
    return work;
}

static int run(struct work *work, int64_t until_ns)
{
    return timed_call("timed-call-test", work_run, work_release, work, until_ns);
}

static void setup(void)
{
    ck_assert_int_eq(sem_init(&may_return, 0, 0), 0);
    ck_assert_int_eq(sem_init(&released, 0, 0), 0);
}

static int n_released(void)
{
    int n = -1;
    ck_assert_int_eq(sem_getvalue(&released, &n), 0);
    return n;
}

START_TEST(what_returns_in_time)
{
    struct work *work = work_new(false);
    ck_assert_int_eq(run(work, FOR_EVER), 0);
    ck_assert(!pthread_equal(work->thread, pthread_self()));
    ck_assert_str_eq(work->name, "timed-call-test");
    ck_assert_int_eq(sigismember(&work->blocked, SIGTERM), 1);
    ck_assert_int_eq(sigismember(&work->blocked, SIGSEGV), 1);
    ck_assert_int_eq(n_released(), 0); /* it is ours */
    free(work);
    sigset_t own;
    ck_assert_int_eq(pthread_sigmask(SIG_SETMASK, NULL, &own), 0);
    ck_assert_int_eq(sigismember(&own, SIGTERM), 0);
}
END_TEST

/* Calls of which `n` hang; others may have been too late to be begun. */
static void hang(int n)
{
    while (atomic_load(&n_begun) < n)
        ck_assert_int_eq(run(work_new(true), clock_now_ns() + NSEC_PER_MSEC), -ETIMEDOUT);
}

static void wait_for_released(int n)
{
    for (int i = 0; i < n; i++)
        ck_assert_int_eq(sem_wait(&released), 0);
}

START_TEST(what_hangs_is_given_up)
{
    hang(1);
    int before = n_released();
    ck_assert_int_eq(sem_post(&may_return), 0);
    wait_for_released(before + 1); /* by its own thread */
}
END_TEST

START_TEST(what_is_late_already_is_not_begun)
{
    ck_assert_int_eq(run(work_new(false), clock_now_ns()), -ETIMEDOUT);
    ck_assert_int_eq(n_released(), 1);
    ck_assert_int_eq(n_begun, 0);
}
END_TEST

START_TEST(so_many_may_hang_and_no_more)
{
    hang(TIMED_CALLS_LEFT_MAX);
    int before = n_released();
    ck_assert_int_eq(run(work_new(false), FOR_EVER), -ETIMEDOUT);
    ck_assert_int_eq(n_released(), before + 1);
    for (int i = 0; i < TIMED_CALLS_LEFT_MAX; i++)
        ck_assert_int_eq(sem_post(&may_return), 0);
    wait_for_released(before + 1 + TIMED_CALLS_LEFT_MAX);
    struct work *work;
    int r;
    do { /* their threads are about to end */
        work = work_new(false);
        r = run(work, FOR_EVER);
    } while (r == -ETIMEDOUT);
    ck_assert_int_eq(r, 0);
    free(work);
}
END_TEST

/* The process ends, and a sanitizer has nothing to say, though the call never returns. */
START_TEST(what_hangs_at_the_end)
{
    hang(1);
}
END_TEST

Suite *suite_timed_call(void)
{
    Suite *suite = suite_create("timed_call");
    TCase *tcase = tcase_create("timed_call");
    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, setup, NULL);
    tcase_add_test(tcase, what_returns_in_time);
    tcase_add_test(tcase, what_hangs_is_given_up);
    tcase_add_test(tcase, what_is_late_already_is_not_begun);
    tcase_add_test(tcase, so_many_may_hang_and_no_more);
    tcase_add_test(tcase, what_hangs_at_the_end);
    suite_add_tcase(suite, tcase);
    return suite;
}
