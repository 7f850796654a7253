/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deadlines of connections. libmicrohttpd ends a connection that is idle; one that sends or takes a
 * byte now and then it keeps for ever, and a few hundred of those would shut everybody else out. So
 * every connection has a time by which its request must have come, or its answer be taken, however
 * busy it looks; a thread of our own shuts down what is late.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "cleanup.h"

/* One connection. Owned by who adds it. */
struct watched {
    int fd; /* borrowed: open from watch_add() to watch_remove() */
    int64_t deadline_ns;
    bool cut; /* shut down already */
    TAILQ_ENTRY(watched) link;
};
TAILQ_HEAD(watched_list, watched);

/* THREADS: any may add, move and remove. */
struct watch {
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t wake;
    struct watched_list list;
    int64_t sleeping_until_ns; /* INT64_MAX: until woken */
    bool stopping, running;
    pthread_t thread;
};

/* Starts the thread, which inherits the signal mask. Returns 0 or -errno. */
MUST_USE int watch_start(struct watch *watch);
/* Ends the thread. Nothing may be watched any more. */
void watch_stop(struct watch *watch);

void watch_add(struct watch *watch, struct watched *watched, int fd, int64_t deadline_ns);
void watch_move(struct watch *watch, struct watched *watched, int64_t deadline_ns);
/* To be called before the fd is closed. */
void watch_remove(struct watch *watch, struct watched *watched);
