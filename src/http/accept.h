/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking connections, from any number of listening sockets that may change at any time.
 *
 * Why not libmicrohttpd, which can do that itself: it stops accepting where it has its number of
 * connections, so that a few hundred idle ones shut everybody out until they time out; it can be
 * told to give up a listening socket, but aborts the process when one of its threads is just
 * looking (MHD_quiesce_daemon() with a pool of threads, 0.9.75); and whether a connection is TLS
 * would be settled when its listener starts, not by the configuration of the moment.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include "listen.h"

enum {
    /* Connections that were accepted and that libmicrohttpd's threads have not yet looked at. */
    ACCEPT_AHEAD_MAX = 64,
};

/* One address of web.listen. On the heap, for it moves from an acceptor's list to another. */
struct listener {
    struct listen_socket socket;
    char *text;   /* as in web.listen */
    bool is_open; /* connections are taken from it */
    TAILQ_ENTRY(listener) link;
};
TAILQ_HEAD(listener_list, listener);

struct acceptor_ops {
    /* A connection, of which the fd is consumed: non-blocking, close-on-exec. */
    void (*admit)(void *ctx, int fd, const struct sockaddr *peer, socklen_t len);
    /* There are no fds or no memory for another connection: make room if you can. */
    void (*short_of)(void *ctx, int error);
    void *ctx;
};

/* THREADS: acceptor_arrived() and acceptor_is_idle() any, the rest one at a time. */
struct acceptor {
    struct acceptor_ops ops;
    int epoll_fd, wake_fd;
    pthread_mutex_t lock; /* guards the next line; held while a connection is taken */
    struct listener_list listeners;
    struct {
        int fd; /* -1: a free place */
        int64_t since_ns;
    } ahead[ACCEPT_AHEAD_MAX];
    pthread_mutex_t ahead_lock; /* guards ahead */
    pthread_cond_t arrived;
    _Atomic bool stopping;
    bool running;
    pthread_t thread;
};

/* Starts the thread, which inherits the signal mask. Returns 0 or -errno. */
MUST_USE int acceptor_start(struct acceptor *acceptor, const struct acceptor_ops *ops);
/* Ends the thread and closes all listeners. To be called once even when acceptor_start() failed. */
void acceptor_stop(struct acceptor *acceptor);
/* Whether all that were admitted have arrived. */
bool acceptor_is_idle(struct acceptor *acceptor);
/* When nothing that was admitted can arrive any more. */
void acceptor_deinit(struct acceptor *acceptor);

/*
 * Opens an address (listen.h says how) and takes no connection from it yet.
 * Returns 0 or -errno with *ret_error filled.
 */
MUST_USE int acceptor_add(struct acceptor *acceptor, const char *text, const struct listen_how *how,
                          struct config_error *ret_error);
/* Takes connections from all of them. Cannot fail. */
void acceptor_open(struct acceptor *acceptor);
/* The listener of that address, or NULL; good until it is removed. */
struct listener *acceptor_find(struct acceptor *acceptor, const char *text);
/*
 * Closes those of which `goes` is true. Connections that were taken from them go on.
 */
void acceptor_close(struct acceptor *acceptor,
                    bool (*goes)(const void *ctx, const struct listener *listener),
                    const void *ctx);
/* Lets new sockets be bound beside those of which `goes` is true, or no more. */
void acceptor_share(struct acceptor *acceptor, bool share,
                    bool (*goes)(const void *ctx, const struct listener *listener),
                    const void *ctx);
/* An fd that was admitted is now looked after. */
void acceptor_arrived(struct acceptor *acceptor, int fd);
