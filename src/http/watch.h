/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connections there are: their deadlines, and who goes when there are too many.
 *
 * libmicrohttpd ends a connection that is idle; one that sends or takes a byte now and then it
 * keeps for ever, and a few hundred of those would shut everybody else out. So every connection has
 * a time by which its request must have come, or its answer be taken, however busy it looks; a
 * thread of our own shuts down what is late. And where there are more connections than there may
 * be, one gives way that has no request in progress: the oldest of the peer that has the most. A
 * peer that floods us thus pushes out itself.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include "cleanup.h"

/* Who is at the other end: an IP address, or nobody in particular (a Unix socket). */
struct peer {
    uint8_t bytes[16];
};
/* `address` may be NULL. Of an IPv6 address, the network: a host has all of its /64. */
struct peer peer_of(const struct sockaddr *address);
bool peer_equal(const struct peer *a, const struct peer *b);

/* One connection. Owned by who adds it. */
struct watched {
    int fd; /* borrowed: open from watch_add() to watch_remove() */
    struct peer peer;
    int64_t deadline_ns;
    bool waiting; /* for a handshake or a request: may be made to give way */
    bool cut;     /* shut down already */
    TAILQ_ENTRY(watched) link;
};
TAILQ_HEAD(watched_list, watched);

/* THREADS: any may add, move and remove. */
struct watch {
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t wake;
    struct watched_list list;  /* in the order in which they came */
    size_t count, limit;       /* of those that are not cut */
    uint64_t seed;             /* so that nobody can tell whom it is counted with */
    int64_t sleeping_until_ns; /* INT64_MAX: until woken */
    bool closed;               /* who comes is cut at once */
    bool stopping, running;
    pthread_t thread;
};

/* Starts the thread, which inherits the signal mask. Returns 0 or -errno. */
MUST_USE int watch_start(struct watch *watch, size_t limit);
/* Ends the thread. Nothing may be watched any more. */
void watch_stop(struct watch *watch);
/* Those beyond a lower limit give way as new ones come. */
void watch_set_limit(struct watch *watch, size_t limit);

/* A connection that waits for its first request. When there are too many, one gives way. */
void watch_add(struct watch *watch, struct watched *watched, int fd, struct peer peer,
               int64_t deadline_ns);
void watch_move(struct watch *watch, struct watched *watched, int64_t deadline_ns, bool waiting);
/* Shuts it down at once. */
void watch_cut(struct watch *watch, struct watched *watched);
/* Makes one connection give way, for something else that there is too little of (fds). */
void watch_make_room(struct watch *watch);
/* Shuts down all there are and all that come. */
void watch_close(struct watch *watch);
bool watch_is_empty(struct watch *watch);
/* To be called before the fd is closed. */
void watch_remove(struct watch *watch, struct watched *watched);
