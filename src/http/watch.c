/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why a list that is searched whole: there are at most some hundred connections, and the thread
 * wakes only at a deadline, of which an idle daemon has none.
 *
 * Why shutdown() and not close(): the fd belongs to libmicrohttpd. After shutdown() its epoll sees
 * a hang-up, and it ends the connection in its own thread and time.
 */
#include "watch.h"

#include <sys/socket.h>
#include <time.h>

#include "clock.h"

/* Cuts off what is late. Returns the earliest deadline that is left. */
static int64_t cut_late(struct watch *watch, int64_t now_ns)
{
    struct watched *watched;
    int64_t next_ns = INT64_MAX;
    TAILQ_FOREACH(watched, &watch->list, link)
    {
        if (watched->cut)
            continue;
        if (watched->deadline_ns <= now_ns) {
            (void)shutdown(watched->fd, SHUT_RDWR);
            watched->cut = true;
        } else {
            next_ns = MIN_OF(next_ns, watched->deadline_ns);
        }
    }
    return next_ns;
}

static void *watch_run(void *arg)
{
    struct watch *watch = arg;
    (void)pthread_mutex_lock(&watch->lock);
    while (!watch->stopping) {
        watch->sleeping_until_ns = cut_late(watch, clock_now_ns());
        if (watch->sleeping_until_ns == INT64_MAX) {
            (void)pthread_cond_wait(&watch->wake, &watch->lock);
        } else {
            struct timespec until = {.tv_sec = watch->sleeping_until_ns / NSEC_PER_SEC,
                                     .tv_nsec = watch->sleeping_until_ns % NSEC_PER_SEC};
            (void)pthread_cond_timedwait(&watch->wake, &watch->lock, &until);
        }
    }
    (void)pthread_mutex_unlock(&watch->lock);
    return NULL;
}

int watch_start(struct watch *watch)
{
    pthread_condattr_t monotonic;
    *watch = (struct watch){.sleeping_until_ns = INT64_MAX};
    TAILQ_INIT(&watch->list);
    (void)pthread_mutex_init(&watch->lock, NULL);
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&watch->wake, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);

    int error = pthread_create(&watch->thread, NULL, watch_run, watch);
    watch->running = error == 0;
    if (watch->running)
        (void)pthread_setname_np(watch->thread, "kvmstatd-http");
    return -error;
}

void watch_stop(struct watch *watch)
{
    if (watch->running) {
        (void)pthread_mutex_lock(&watch->lock);
        watch->stopping = true;
        (void)pthread_cond_signal(&watch->wake);
        (void)pthread_mutex_unlock(&watch->lock);
        (void)pthread_join(watch->thread, NULL);
        watch->running = false;
    }
    (void)pthread_cond_destroy(&watch->wake);
    (void)pthread_mutex_destroy(&watch->lock);
}

static void set_deadline(struct watch *watch, struct watched *watched, int64_t deadline_ns)
{
    watched->deadline_ns = deadline_ns;
    if (deadline_ns < watch->sleeping_until_ns)
        (void)pthread_cond_signal(&watch->wake);
}

void watch_add(struct watch *watch, struct watched *watched, int fd, int64_t deadline_ns)
{
    *watched = (struct watched){.fd = fd};
    (void)pthread_mutex_lock(&watch->lock);
    TAILQ_INSERT_TAIL(&watch->list, watched, link);
    set_deadline(watch, watched, deadline_ns);
    (void)pthread_mutex_unlock(&watch->lock);
}

void watch_move(struct watch *watch, struct watched *watched, int64_t deadline_ns)
{
    (void)pthread_mutex_lock(&watch->lock);
    set_deadline(watch, watched, deadline_ns);
    (void)pthread_mutex_unlock(&watch->lock);
}

void watch_remove(struct watch *watch, struct watched *watched)
{
    (void)pthread_mutex_lock(&watch->lock);
    TAILQ_REMOVE(&watch->list, watched, link);
    (void)pthread_mutex_unlock(&watch->lock);
}
