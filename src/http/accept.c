/* SPDX-License-Identifier: Apache-2.0 */
#include "accept.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/un.h>

#include "clock.h"

enum {
    EVENTS = 8,
    /* Connections from one listener before the others get their turn. */
    IN_A_ROW = 16,
    /* How long nothing is accepted where there are no fds: those that make room need a moment. */
    SHORT_OF_MS = 20,
    /* What has not arrived by then never will: libmicrohttpd had no memory for it. */
    AHEAD_S = 10,
};

static void listener_free(struct listener *listener)
{
    if (!listener)
        return;
    listen_close(&listener->socket);
    free(listener->text);
    free(listener);
}
DEFINE_CLEANUP(struct listener *, listener_free)

static int listener_new(const char *text, const struct listen_how *how,
                        struct listener **ret_listener, struct config_error *ret_error)
{
    CLEANUP(cleanup_listener_free) struct listener *listener = calloc(1, sizeof *listener);
    if (!listener)
        return -ENOMEM;
    listener->socket = (struct listen_socket)LISTEN_SOCKET_INIT;
    listener->text = strdup(text);
    if (!listener->text)
        return -ENOMEM;
    int r = listen_open_text(text, how, &listener->socket, ret_error);
    if (r < 0)
        return r;
    *ret_listener = steal_ptr(&listener);
    return 0;
}

/* --- those that are on their way to libmicrohttpd's threads --- */

/* A place for one more. The caller holds ahead_lock. */
static int *free_place(struct acceptor *acceptor, int64_t now_ns)
{
    for (size_t i = 0; i < ACCEPT_AHEAD_MAX; i++) {
        if (acceptor->ahead[i].fd < 0 ||
            now_ns - acceptor->ahead[i].since_ns > AHEAD_S * NSEC_PER_SEC) {
            acceptor->ahead[i].since_ns = now_ns;
            return &acceptor->ahead[i].fd;
        }
    }
    return NULL;
}

/* Waits until there is a place for one more; false when it ends before. */
static bool wait_for_place(struct acceptor *acceptor, int **ret_place)
{
    struct timespec until;
    (void)pthread_mutex_lock(&acceptor->ahead_lock);
    while (!acceptor->stopping && !(*ret_place = free_place(acceptor, clock_now_ns()))) {
        (void)clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec++;
        (void)pthread_cond_timedwait(&acceptor->arrived, &acceptor->ahead_lock, &until);
    }
    bool go_on = !acceptor->stopping;
    (void)pthread_mutex_unlock(&acceptor->ahead_lock);
    return go_on;
}

static void take_place(struct acceptor *acceptor, int *place, int fd)
{
    (void)pthread_mutex_lock(&acceptor->ahead_lock);
    *place = fd;
    (void)pthread_mutex_unlock(&acceptor->ahead_lock);
}

void acceptor_arrived(struct acceptor *acceptor, int fd)
{
    (void)pthread_mutex_lock(&acceptor->ahead_lock);
    for (size_t i = 0; i < ACCEPT_AHEAD_MAX; i++) {
        if (acceptor->ahead[i].fd == fd)
            acceptor->ahead[i].fd = -1;
    }
    (void)pthread_cond_signal(&acceptor->arrived);
    (void)pthread_mutex_unlock(&acceptor->ahead_lock);
}

bool acceptor_is_idle(struct acceptor *acceptor)
{
    bool idle = true;
    (void)pthread_mutex_lock(&acceptor->ahead_lock);
    for (size_t i = 0; i < ACCEPT_AHEAD_MAX; i++)
        idle = idle && acceptor->ahead[i].fd < 0;
    (void)pthread_mutex_unlock(&acceptor->ahead_lock);
    return idle;
}

/* --- the thread --- */

static bool is_shortage(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

static bool has(const struct acceptor *acceptor, const struct listener *listener)
{
    const struct listener *at;
    TAILQ_FOREACH(at, &acceptor->listeners, link)
    {
        if (at == listener)
            return at->is_open;
    }
    return false;
}

/* The next connection of a listener, which may have been closed since its event. As accept4(). */
static int take(struct acceptor *acceptor, const struct listener *listener, struct sockaddr *peer,
                socklen_t *len)
{
    int fd = -1;
    errno = EAGAIN;
    (void)pthread_mutex_lock(&acceptor->lock);
    if (has(acceptor, listener))
        fd = accept4(listener->socket.fd, peer, len, SOCK_CLOEXEC | SOCK_NONBLOCK);
    int error = errno;
    (void)pthread_mutex_unlock(&acceptor->lock);
    errno = error;
    return fd;
}

/*
 * Returns 0, or -errno when there are no resources for more. The lock is not held while there is no
 * place: who changes the listeners does not wait for those that serve.
 */
static int take_some(struct acceptor *acceptor, const struct listener *listener)
{
    for (int i = 0; i < IN_A_ROW; i++) {
        union {
            struct sockaddr any;
            struct sockaddr_in6 v6;
            struct sockaddr_un local; /* NOLINT: the largest there is */
        } peer;
        socklen_t len = sizeof peer;
        int *place;
        if (!wait_for_place(acceptor, &place))
            return 0;
        int fd = take(acceptor, listener, &peer.any, &len);
        if (fd < 0)
            return is_shortage(errno) ? -errno : 0; /* all else is about one peer, or EAGAIN */
        take_place(acceptor, place, fd);
        acceptor->ops.admit(acceptor->ops.ctx, fd, &peer.any, MIN_OF(len, (socklen_t)sizeof peer));
    }
    return 0;
}

static void *acceptor_run(void *arg)
{
    struct acceptor *acceptor = arg;
    struct epoll_event events[EVENTS];
    while (!acceptor->stopping) {
        int error = 0, n = epoll_wait(acceptor->epoll_fd, events, EVENTS, -1);
        for (int i = 0; i < n && error == 0; i++) {
            if (events[i].data.ptr)
                error = take_some(acceptor, events[i].data.ptr);
        }
        if (error < 0 && !acceptor->stopping) {
            const struct timespec pause = {.tv_nsec = SHORT_OF_MS * NSEC_PER_MSEC};
            acceptor->ops.short_of(acceptor->ops.ctx, error);
            (void)nanosleep(&pause, NULL);
        }
    }
    return NULL;
}

int acceptor_start(struct acceptor *acceptor, const struct acceptor_ops *ops)
{
    struct epoll_event event = {.events = EPOLLIN};
    pthread_condattr_t monotonic;
    *acceptor = (struct acceptor){.ops = *ops};
    TAILQ_INIT(&acceptor->listeners);
    for (size_t i = 0; i < ACCEPT_AHEAD_MAX; i++)
        acceptor->ahead[i].fd = -1;
    (void)pthread_mutex_init(&acceptor->lock, NULL);
    (void)pthread_mutex_init(&acceptor->ahead_lock, NULL);
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&acceptor->arrived, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);

    acceptor->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    acceptor->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (acceptor->epoll_fd < 0 || acceptor->wake_fd < 0 ||
        epoll_ctl(acceptor->epoll_fd, EPOLL_CTL_ADD, acceptor->wake_fd, &event) < 0)
        return -errno;
    int error = pthread_create(&acceptor->thread, NULL, acceptor_run, acceptor);
    acceptor->running = error == 0;
    if (acceptor->running)
        (void)pthread_setname_np(acceptor->thread, "kvmstatd-accept");
    return -error;
}

void acceptor_stop(struct acceptor *acceptor)
{
    struct listener *listener;
    if (acceptor->running) {
        /* The thread may be in either of its waits. */
        (void)pthread_mutex_lock(&acceptor->ahead_lock);
        acceptor->stopping = true;
        (void)pthread_cond_signal(&acceptor->arrived);
        (void)pthread_mutex_unlock(&acceptor->ahead_lock);
        (void)eventfd_write(acceptor->wake_fd, 1);
        (void)pthread_join(acceptor->thread, NULL);
        acceptor->running = false;
    }
    while ((listener = TAILQ_FIRST(&acceptor->listeners))) {
        TAILQ_REMOVE(&acceptor->listeners, listener, link);
        listener_free(listener);
    }
    acceptor->epoll_fd = fd_close(acceptor->epoll_fd);
    acceptor->wake_fd = fd_close(acceptor->wake_fd);
}

void acceptor_deinit(struct acceptor *acceptor)
{
    (void)pthread_cond_destroy(&acceptor->arrived);
    (void)pthread_mutex_destroy(&acceptor->ahead_lock);
    (void)pthread_mutex_destroy(&acceptor->lock);
}

int acceptor_add(struct acceptor *acceptor, const char *text, const struct listen_how *how,
                 struct config_error *ret_error)
{
    CLEANUP(cleanup_listener_free) struct listener *listener = NULL;
    int r = listener_new(text, how, &listener, ret_error);
    if (r < 0)
        return r;
    /* Nothing is waited for yet, but the place in the epoll set is there: opening cannot fail. */
    struct epoll_event event = {.data.ptr = listener};
    (void)pthread_mutex_lock(&acceptor->lock);
    if (epoll_ctl(acceptor->epoll_fd, EPOLL_CTL_ADD, listener->socket.fd, &event) < 0) {
        r = -errno;
        (void)snprintf(ret_error->message, sizeof ret_error->message, "web.listen: %.200s: %s",
                       text, strerrordesc_np(-r));
    } else {
        TAILQ_INSERT_TAIL(&acceptor->listeners, listener, link);
        listener = NULL;
    }
    (void)pthread_mutex_unlock(&acceptor->lock);
    return r;
}

void acceptor_open(struct acceptor *acceptor)
{
    struct listener *listener;
    (void)pthread_mutex_lock(&acceptor->lock);
    TAILQ_FOREACH(listener, &acceptor->listeners, link)
    {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = listener};
        (void)epoll_ctl(acceptor->epoll_fd, EPOLL_CTL_MOD, listener->socket.fd, &event);
        listener->is_open = true;
    }
    (void)pthread_mutex_unlock(&acceptor->lock);
}

struct listener *acceptor_find(struct acceptor *acceptor, const char *text)
{
    struct listener *listener;
    (void)pthread_mutex_lock(&acceptor->lock);
    TAILQ_FOREACH(listener, &acceptor->listeners, link)
    {
        if (strcmp(listener->text, text) == 0)
            break;
    }
    (void)pthread_mutex_unlock(&acceptor->lock);
    return listener;
}

void acceptor_close(struct acceptor *acceptor,
                    bool (*goes)(const void *ctx, const struct listener *listener), const void *ctx)
{
    struct listener *next;
    (void)pthread_mutex_lock(&acceptor->lock);
    for (struct listener *at = TAILQ_FIRST(&acceptor->listeners); at; at = next) {
        next = TAILQ_NEXT(at, link);
        if (!goes(ctx, at))
            continue;
        TAILQ_REMOVE(&acceptor->listeners, at, link);
        (void)epoll_ctl(acceptor->epoll_fd, EPOLL_CTL_DEL, at->socket.fd, NULL);
        listener_free(at);
    }
    (void)pthread_mutex_unlock(&acceptor->lock);
}

void acceptor_share(struct acceptor *acceptor, bool share,
                    bool (*goes)(const void *ctx, const struct listener *listener), const void *ctx)
{
    struct listener *listener;
    (void)pthread_mutex_lock(&acceptor->lock);
    TAILQ_FOREACH(listener, &acceptor->listeners, link)
    {
        if (goes(ctx, listener))
            listen_share(&listener->socket, share);
    }
    (void)pthread_mutex_unlock(&acceptor->lock);
}
