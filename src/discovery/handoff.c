/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections: who may have one, how many there may be, when they end.
 *
 * Each costs two fds (the socket and the peer's pidfd), and fds are what the rest of the daemon
 * lives on, so all connections together get a quarter of them at most. A peer that is not allowed
 * is asked nothing: what it has sent is dropped by the kernel along with its socket.
 */
#include "handoff_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "clock.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5 */
#endif

enum {
    EVENTS_AT_ONCE = 64,
    ACCEPTS_AT_ONCE = 256,
    MESSAGES_AT_ONCE = 16, /* of one connection, before the others get their turn */
    OPEN_AGAIN_MS = 5000,
    /*
     * For looking up who may: this, what web.listen may take and a quarter of the unit's
     * WatchdogSec= are less than the whole of it.
     */
    LOOKUPS_MS = 8000,
    RESUME_MS = 50,
    FDS_PER_CONNECTION = 2,
    /* For answers that the peer has not read; the kernel doubles it. */
    SEND_BUFFER_BYTES = 64 * 1024,
};

/* --- connections --- */

static void list_remove(struct connection *c)
{
    *c->link = c->next;
    if (c->next)
        c->next->link = c->link;
}

static void list_add(struct connection **list, struct connection *c)
{
    c->next = *list;
    c->link = list;
    if (c->next)
        c->next->link = &c->next;
    *list = c;
}

/* Without a word to the receiver. What has not been read is closed with the socket: not by us. */
static void connection_close(struct handoff *h, struct connection *c)
{
    struct handoff_user *user = handoff_users_find(&h->users, c->peer.uid);
    if (user)
        user->connections--;
    h->n_connections--;
    h->n_waiting -= !c->welcomed;
    (void)epoll_ctl(h->epoll_fd, EPOLL_CTL_DEL, c->fd, NULL);
    handoff_closer_put_connection(h->closer, steal_fd(&c->fd));
    c->peer.pidfd = fd_close(c->peer.pidfd);
    list_remove(c);
    list_add(&h->ended, c);
}

void connection_end(struct handoff *h, struct connection *c, bool revoked)
{
    if (c->fd < 0)
        return;
    if (c->welcomed)
        h->receiver.peer_gone(h->receiver.ctx, &c->peer, revoked);
    connection_close(h, c);
}

void connection_welcome(struct handoff *h, struct connection *c)
{
    c->welcomed = true;
    h->n_waiting--;
}

static void free_ended(struct handoff *h)
{
    while (h->ended) {
        struct connection *c = h->ended;
        list_remove(c);
        free(c);
    }
}

/* --- accepting --- */

static size_t connections_max(const struct handoff *h)
{
    struct rlimit limit;
    size_t most = h->config->limits.max_vms;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        most = MIN_OF(most, (size_t)limit.rlim_cur / 4 / FDS_PER_CONNECTION);
    return most;
}

static size_t connections_of(const struct handoff *h, pid_t pid)
{
    size_t n = 0;
    for (const struct connection *c = h->connections; c; c = c->next)
        n += c->peer.pid == pid;
    return n;
}

/* Who it is, by the kernel's word alone. Returns 0 or -errno. */
static int identify_peer(int fd, struct handoff_peer *ret_peer)
{
    struct ucred cred;
    int pidfd;
    socklen_t len = sizeof cred;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
        return -errno;
    if (cred.pid <= 0)
        return -ESRCH; /* of a PID name space that is not ours nor below it */
    len = sizeof pidfd;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &len) < 0) {
        if (errno != ENOPROTOOPT)
            return -errno;
        /*
         * Before Linux 6.5 the pid may have become another process' since the connection was made.
         * What that one gives must be held by it, and it gives nothing over this socket.
         */
        pidfd = pidfd_open(cred.pid, 0);
        if (pidfd < 0)
            return -errno;
    }
    ret_peer->pid = cred.pid;
    ret_peer->uid = cred.uid;
    ret_peer->pidfd = pidfd;
    return 0;
}

/* Why this peer may not have a connection, or _NONE. `user` NULL: its user may not. */
static enum kvmstatd_handoff_reason objection(const struct handoff *h, const struct connection *c,
                                              const struct handoff_user *user)
{
    size_t most = connections_max(h);
    if (!user)
        return KVMSTATD_HANDOFF_REASON_PEER;
    /* One user leaves some to the others. */
    if (h->n_connections >= most || user->connections >= most - most / 8 ||
        connections_of(h, c->peer.pid) >= HANDOFF_CONNECTIONS_PER_PROCESS)
        return KVMSTATD_HANDOFF_REASON_LIMIT;
    if (broker_fds_are_short(c->peer.pidfd))
        return KVMSTATD_HANDOFF_REASON_LIMIT;
    return KVMSTATD_HANDOFF_REASON_NONE;
}

static void converse(struct handoff *h, struct connection *c)
{
    for (int i = 0; i < MESSAGES_AT_ONCE && talk(h, c); i++)
        ;
}

/* The fd and the peer's pidfd are the connection's now. */
static void begin(struct handoff *h, struct connection *c, struct handoff_user *user)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    int buffer = SEND_BUFFER_BYTES;
    c->peer.id = ++h->last_id;
    c->hello_until_ns = clock_now_ns() + HANDOFF_HELLO_WITHIN_MS * NSEC_PER_MSEC;
    list_add(&h->connections, c);
    h->n_connections++;
    h->n_waiting++;
    user->connections++;
    (void)setsockopt(c->fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
    if (epoll_ctl(h->epoll_fd, EPOLL_CTL_ADD, c->fd, &event) < 0) {
        connection_end(h, c, false);
        return;
    }
    /* Who means well has said hello by now: a crowd of silent peers cannot keep them out. */
    converse(h, c);
    if (c->fd >= 0 && !c->welcomed && h->n_waiting > HANDOFF_WAITING_MAX) {
        talk_reject(h, c, 0, KVMSTATD_HANDOFF_REASON_LIMIT);
        connection_end(h, c, false);
    }
}

/* Consumes fd. */
static void greet(struct handoff *h, int fd)
{
    struct connection *c = calloc(1, sizeof *c);
    if (!c || identify_peer(fd, &c->peer) < 0) {
        handoff_closer_put(h->closer, fd);
        free(c);
        return;
    }
    c->fd = fd;
    struct handoff_user *user = handoff_users_find(&h->users, c->peer.uid);
    enum kvmstatd_handoff_reason reason = objection(h, c, user);
    if (reason == KVMSTATD_HANDOFF_REASON_NONE) {
        begin(h, c, user);
        return;
    }
    talk_reject(h, c, 0, reason);
    handoff_closer_put_connection(h->closer, fd);
    c->peer.pidfd = fd_close(c->peer.pidfd);
    free(c);
}

static void accept_some(struct handoff *h)
{
    for (int i = 0; i < ACCEPTS_AT_ONCE; i++) {
        if (!handoff_closer_has_room(h->closer, 1)) {
            handoff_pause(h);
            return;
        }
        int fd = accept4(h->socket.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            greet(h, fd);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            handoff_pause(h);
            return;
        } else if (errno != EINTR && errno != ECONNABORTED) {
            return;
        }
    }
}

static int watch_socket(struct handoff *h)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    return epoll_ctl(h->epoll_fd, EPOLL_CTL_ADD, h->socket.fd, &event) < 0 ? -errno : 0;
}

/* --- listening --- */

static bool is_source(const struct config *config)
{
    for (size_t i = 0; i < config->discovery.n_sources; i++) {
        if (config->discovery.sources[i] == CONFIG_SOURCE_HANDOFF)
            return true;
    }
    return false;
}

static bool is_wanted(const struct handoff *h)
{
    return is_source(h->config) && h->users.n > 0;
}

static const char *why_not(int error)
{
    return error == -EEXIST       ? "there is a file that is not a socket"
           : error == -EADDRINUSE ? "another process listens there"
                                  : strerrordesc_np(-error);
}

static const char *why_unknown(int error)
{
    return error == -ETIMEDOUT ? "timed out" : strerrordesc_np(-error);
}

static int resolve_users(const struct config *config, struct handoff_users *ret_users,
                         const char **ret_unknown)
{
    return handoff_users_resolve(&config->handoff.allow_users,
                                 clock_now_ns() + LOOKUPS_MS * NSEC_PER_MSEC, ret_users,
                                 ret_unknown);
}

static void open_socket(struct handoff *h)
{
    const char *path = h->config->handoff.socket;
    bool passed = h->passed_fd >= 0;
    int r = passed ? handoff_socket_adopt(h->passed_fd, &h->socket)
                   : handoff_socket_open(path, &h->users, &h->socket);
    h->open_ns = INT64_MAX;
    if (r == 0)
        r = watch_socket(h);
    if (r == 0) {
        log_info("handoff", "listening at %s",
                 passed ? "the socket that systemd has opened" : path);
        h->open_error = 0;
        return;
    }
    handoff_socket_close(&h->socket);
    h->open_ns = clock_now_ns() + OPEN_AGAIN_MS * NSEC_PER_MSEC;
    if (r != h->open_error)
        log_warn("handoff", "cannot listen at %s: %s, trying again every %d s",
                 passed ? "the socket that systemd has opened" : path,
                 r == -EINVAL && passed ? "it is not a listening SOCK_SEQPACKET socket"
                                        : why_not(r),
                 OPEN_AGAIN_MS / 1000);
    h->open_error = r;
}

static void close_socket(struct handoff *h)
{
    if (h->socket.fd >= 0)
        (void)epoll_ctl(h->epoll_fd, EPOLL_CTL_DEL, h->socket.fd, NULL);
    handoff_socket_close(&h->socket);
    h->open_ns = INT64_MAX;
}

/* --- configuration --- */

static bool lists_equal(const struct string_list *a, const struct string_list *b)
{
    bool equal = a->n == b->n;
    for (size_t i = 0; equal && i < a->n; i++)
        equal = strcmp(a->items[i], b->items[i]) == 0;
    return equal;
}

/* Who may no more is sent away, and those who stay are counted anew. */
static void apply_users(struct handoff *h, struct handoff_users *users)
{
    struct connection *next;
    handoff_users_free(&h->users);
    h->users = *users;
    *users = (struct handoff_users){0};
    for (struct connection *c = h->connections; c; c = next) {
        struct handoff_user *user = handoff_users_find(&h->users, c->peer.uid);
        next = c->next;
        if (user)
            user->connections++;
        else
            connection_end(h, c, true);
    }
    free_ended(h);
}

static bool listens_for(const struct config *config)
{
    return is_source(config) && config->handoff.allow_users.n > 0;
}

int handoff_prepare(const struct handoff *h, const struct config *former,
                    const struct config *config, struct handoff_prepared *ret_prepared,
                    struct config_error *ret_error)
{
    CLEANUP(handoff_prepared_free) struct handoff_prepared prepared = HANDOFF_PREPARED_INIT;
    const char *path = config->handoff.socket;
    bool stays = listens_for(former) && strcmp(former->handoff.socket, path) == 0;
    const char *unknown = "they";
    int r = resolve_users(config, &prepared.users, &unknown);
    if (r < 0) { /* nobody is turned out because the user database does not answer just now */
        (void)snprintf(ret_error->message, sizeof ret_error->message,
                       "handoff.allow_users: %s cannot be looked up: %s", unknown, why_unknown(r));
        return r;
    }
    if (h->passed_fd < 0 && !stays && listens_for(config) && prepared.users.n)
        r = handoff_socket_open(path, &prepared.users, &prepared.socket);
    /* Of two reloads in quick succession the second may go back to what is not closed yet. */
    if (r == -EADDRINUSE && handoff_socket_is_ours(path))
        r = 0;
    if (r < 0) {
        (void)snprintf(ret_error->message, sizeof ret_error->message, "handoff.socket: %s: %s",
                       path, why_not(r));
        return r;
    }
    *ret_prepared = prepared;
    prepared = HANDOFF_PREPARED_INIT;
    return 0;
}

static void use_prepared(struct handoff *h, struct handoff_socket *prepared)
{
    close_socket(h);
    h->socket = *prepared;
    *prepared = HANDOFF_SOCKET_INIT;
    if (watch_socket(h) < 0)
        close_socket(h); /* and opened again as any that could not be */
    else
        log_info("handoff", "listening at %s", h->config->handoff.socket);
}

void handoff_set_config(struct handoff *h, struct config *config, struct handoff_prepared *prepared)
{
    bool same_users = lists_equal(&h->config->handoff.allow_users, &config->handoff.allow_users);
    bool same_path = strcmp(h->config->handoff.socket, config->handoff.socket) == 0;

    config_ref(config);
    config_unref(h->config);
    h->config = config;
    /* The user database may have changed though the list has not. */
    apply_users(h, &prepared->users);
    if (!h->started)
        return;
    if (prepared->socket.fd >= 0)
        use_prepared(h, &prepared->socket);
    else if (!same_path || !same_users || !is_wanted(h))
        close_socket(h);
    if (is_wanted(h) && h->socket.fd < 0)
        open_socket(h);
}

/* --- life --- */

static struct epoll_event gate_open = {.events = EPOLLIN};

int handoff_new(struct broker *broker, struct selfstats *self, struct config *config,
                const struct handoff_receiver *receiver, struct handoff **ret_handoff)
{
    CLEANUP(cleanup_handoff_free) struct handoff *h = calloc(1, sizeof *h);
    if (!h)
        return -ENOMEM;
    h->socket = HANDOFF_SOCKET_INIT;
    h->epoll_fd = h->gate_fd = h->passed_fd = -1;
    h->open_ns = h->resume_ns = INT64_MAX;
    h->broker = broker;
    h->self = self;
    h->receiver = *receiver;
    h->pid = getpid();
    h->config = config_ref(config);
    h->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    h->gate_fd = epoll_create1(EPOLL_CLOEXEC);
    if (h->epoll_fd < 0 || h->gate_fd < 0 ||
        epoll_ctl(h->gate_fd, EPOLL_CTL_ADD, h->epoll_fd, &gate_open) < 0)
        return -errno;
    *ret_handoff = steal_ptr(&h);
    return 0;
}

void handoff_use_socket(struct handoff *h, int fd)
{
    h->passed_fd = fd;
}

int handoff_start(struct handoff *h)
{
    const char *unknown;
    int r = handoff_closer_new(&h->closer);
    if (r == 0)
        r = handoff_closer_new(&h->kvm_closer);
    if (r < 0)
        return r;
    r = resolve_users(h->config, &h->users, &unknown);
    if (r == -ENOMEM)
        return r;
    if (r < 0) /* the others are not to wait for it */
        log_warn(
            "handoff",
            "%s (handoff.allow_users) cannot be looked up: %s; looking again at the next reload",
            unknown, why_unknown(r));
    h->started = true;
    if (is_wanted(h))
        open_socket(h);
    return 0;
}

bool handoff_allows(struct handoff *h, uid_t uid)
{
    return handoff_users_find(&h->users, uid) != NULL;
}

bool handoff_would_take(struct handoff *h, uid_t uid)
{
    return is_wanted(h) && handoff_allows(h, uid);
}

void handoff_free(struct handoff *h)
{
    if (!h)
        return;
    close_socket(h);
    while (h->connections)
        connection_close(h, h->connections);
    free_ended(h);
    handoff_closer_free(h->closer);
    handoff_closer_free(h->kvm_closer);
    handoff_users_free(&h->users);
    h->passed_fd = fd_close(h->passed_fd);
    h->epoll_fd = fd_close(h->epoll_fd);
    h->gate_fd = fd_close(h->gate_fd);
    config_unref(h->config);
    free(h);
}

void handoff_close_fd(struct handoff *h, int fd)
{
    handoff_closer_put(h->kvm_closer, fd);
}

/* --- dispatching --- */

int handoff_epoll_fd(const struct handoff *h)
{
    return h->gate_fd;
}

void handoff_pause(struct handoff *h)
{
    struct epoll_event gate_closed = {0};
    if (h->resume_ns == INT64_MAX)
        h->resume_ns = clock_now_ns() + RESUME_MS * NSEC_PER_MSEC;
    (void)epoll_ctl(h->gate_fd, EPOLL_CTL_MOD, h->epoll_fd, &gate_closed);
}

static void resume(struct handoff *h)
{
    struct epoll_event event = gate_open;
    h->resume_ns = INT64_MAX;
    (void)epoll_ctl(h->gate_fd, EPOLL_CTL_MOD, h->epoll_fd, &event);
}

static void end_the_silent(struct handoff *h, int64_t now_ns)
{
    struct connection *next;
    for (struct connection *c = h->connections; c && h->n_waiting; c = next) {
        next = c->next;
        if (!c->welcomed && now_ns >= c->hello_until_ns)
            connection_end(h, c, false);
    }
}

int64_t handoff_due_ns(const struct handoff *h)
{
    int64_t due_ns = MIN_OF(h->open_ns, h->resume_ns);
    size_t left = h->n_waiting;
    for (const struct connection *c = h->connections; c && left; c = c->next) {
        if (!c->welcomed) {
            due_ns = MIN_OF(due_ns, c->hello_until_ns);
            left--;
        }
    }
    return due_ns;
}

void handoff_dispatch(struct handoff *h)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    int64_t now_ns = clock_now_ns();
    if (now_ns >= h->resume_ns)
        resume(h);
    int n = h->resume_ns == INT64_MAX ? epoll_wait(h->epoll_fd, events, EVENTS_AT_ONCE, 0) : 0;
    for (int i = 0; i < n; i++) {
        struct connection *c = events[i].data.ptr;
        if (!c)
            accept_some(h);
        else if (c->fd >= 0)
            converse(h, c);
    }
    end_the_silent(h, now_ns);
    if (now_ns >= h->open_ns)
        open_socket(h);
    free_ended(h);
}
