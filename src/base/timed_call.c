/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why a thread for each call and none that is kept: calls are rare, and one that hangs would take
 * the kept one with it. Who comes last, the thread or who waits for it, frees what both have.
 */
#include "timed_call.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "clock.h"

struct call {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool done, given_up;
    const char *name;
    void (*work)(void *data);
    void (*release)(void *data);
    void *data;
};

static atomic_uint n_left;

static struct call *call_new(void)
{
    pthread_condattr_t monotonic;
    struct call *call = calloc(1, sizeof *call);
    if (!call)
        return NULL;
    (void)pthread_mutex_init(&call->lock, NULL);
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&call->changed, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
    return call;
}

static void call_free(struct call *call)
{
    (void)pthread_cond_destroy(&call->changed);
    (void)pthread_mutex_destroy(&call->lock);
    free(call);
}

static void *call_main(void *arg)
{
    struct call *call = arg;
    (void)pthread_setname_np(pthread_self(), call->name);
    call->work(call->data);
    (void)pthread_mutex_lock(&call->lock);
    bool given_up = call->given_up;
    call->done = true;
    (void)pthread_cond_signal(&call->changed);
    (void)pthread_mutex_unlock(&call->lock);
    if (given_up) {
        call->release(call->data);
        call_free(call);
        (void)atomic_fetch_sub(&n_left, 1);
    }
    return NULL;
}

static int start(struct call *call, pthread_t *ret_thread)
{
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int r = -pthread_create(ret_thread, NULL, call_main, call);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return r;
}

/* Whether it was done in time; else the call is the thread's alone. */
static bool wait_until(struct call *call, int64_t until_ns)
{
    const struct timespec until = {until_ns / NSEC_PER_SEC, until_ns % NSEC_PER_SEC};
    int r = 0;
    (void)pthread_mutex_lock(&call->lock);
    while (!call->done && r == 0)
        r = pthread_cond_timedwait(&call->changed, &call->lock, &until);
    bool done = call->done;
    call->given_up = !done;
    if (!done)
        (void)atomic_fetch_add(&n_left, 1);
    (void)pthread_mutex_unlock(&call->lock);
    return done;
}

int timed_call(const char *name, void (*work)(void *data), void (*release)(void *data), void *data,
               int64_t until_ns)
{
    pthread_t thread;
    bool late = clock_now_ns() >= until_ns || atomic_load(&n_left) >= TIMED_CALLS_LEFT_MAX;
    struct call *call = late ? NULL : call_new();
    int r = late ? -ETIMEDOUT : -ENOMEM;
    if (call) {
        call->name = name;
        call->work = work;
        call->release = release;
        call->data = data;
        r = start(call, &thread);
    }
    if (r < 0) {
        if (call)
            call_free(call);
        release(data);
        return r;
    }
    if (!wait_until(call, until_ns)) {
        (void)pthread_detach(thread);
        return -ETIMEDOUT;
    }
    (void)pthread_join(thread, NULL);
    call_free(call);
    return 0;
}
