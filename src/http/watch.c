/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why a list that is searched whole: there are at most some hundred connections, and the thread
 * wakes only at a deadline, of which an idle daemon has none.
 *
 * Why shutdown() and not close(): the fd belongs to libmicrohttpd. After shutdown() its epoll sees
 * a hang-up, and it ends the connection in its own thread and time.
 */
#include "watch.h"

#include <netinet/in.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "clock.h"
#include "digest.h"

enum {
    /* Peers are counted by a hash of so many values: some are counted together, which is no harm.
     */
    PEER_BUCKETS = 256,
};

struct peer peer_of(const struct sockaddr *address)
{
    static const uint8_t v4_in_v6[12] = {[10] = 0xff, [11] = 0xff};
    struct peer peer = {{0}};
    if (address && address->sa_family == AF_INET) {
        memcpy(peer.bytes, v4_in_v6, sizeof v4_in_v6);
        memcpy(peer.bytes + 12, &((const struct sockaddr_in *)(const void *)address)->sin_addr, 4);
    } else if (address && address->sa_family == AF_INET6) {
        const struct in6_addr *v6 =
            &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr;
        memcpy(peer.bytes, v6, IN6_IS_ADDR_V4MAPPED(v6) ? 16 : 8);
        if (IN6_IS_ADDR_LOOPBACK(v6))
            peer.bytes[15] = 1; /* the network of ::1 has all bits of nobody */
    }
    return peer;
}

bool peer_equal(const struct peer *a, const struct peer *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

static size_t bucket_of(const struct watch *watch, const struct peer *peer)
{
    uint64_t hash = digest_add(watch->seed, peer->bytes, sizeof peer->bytes);
    /* Neighbours differ in their last byte, which so far has only reached the lower bits. */
    hash = (hash ^ hash >> 32) * UINT64_C(0x9e3779b97f4a7c15);
    return (size_t)(hash >> 56) % PEER_BUCKETS;
}

static void cut(struct watch *watch, struct watched *watched)
{
    if (watched->cut)
        return;
    (void)shutdown(watched->fd, SHUT_RDWR);
    watched->cut = true;
    watch->count--;
}

/* Cuts off the oldest connection without a request, of the peer that has the most connections. */
static void make_room(struct watch *watch)
{
    struct {
        size_t n;
        struct watched *oldest;
    } buckets[PEER_BUCKETS] = {{0}};
    struct watched *watched, *victim = NULL;
    size_t most = 0;
    TAILQ_FOREACH(watched, &watch->list, link)
    {
        size_t i = bucket_of(watch, &watched->peer);
        if (watched->cut)
            continue;
        buckets[i].n++;
        if (!buckets[i].oldest && watched->waiting)
            buckets[i].oldest = watched;
    }
    for (size_t i = 0; i < PEER_BUCKETS; i++) {
        if (buckets[i].oldest && buckets[i].n > most) {
            most = buckets[i].n;
            victim = buckets[i].oldest;
        }
    }
    if (victim)
        cut(watch, victim);
}

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
            cut(watch, watched);
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

int watch_start(struct watch *watch, size_t limit)
{
    pthread_condattr_t monotonic;
    *watch = (struct watch){.sleeping_until_ns = INT64_MAX, .limit = limit};
    (void)!getrandom(&watch->seed, sizeof watch->seed, 0);
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

void watch_set_limit(struct watch *watch, size_t limit)
{
    (void)pthread_mutex_lock(&watch->lock);
    watch->limit = limit;
    (void)pthread_mutex_unlock(&watch->lock);
}

void watch_add(struct watch *watch, struct watched *watched, int fd, struct peer peer,
               int64_t deadline_ns)
{
    *watched = (struct watched){.fd = fd, .peer = peer, .waiting = true};
    (void)pthread_mutex_lock(&watch->lock);
    TAILQ_INSERT_TAIL(&watch->list, watched, link);
    set_deadline(watch, watched, deadline_ns);
    if (++watch->count > watch->limit)
        make_room(watch);
    if (watch->closed)
        cut(watch, watched);
    (void)pthread_mutex_unlock(&watch->lock);
}

void watch_move(struct watch *watch, struct watched *watched, int64_t deadline_ns, bool waiting)
{
    (void)pthread_mutex_lock(&watch->lock);
    watched->waiting = waiting;
    set_deadline(watch, watched, deadline_ns);
    (void)pthread_mutex_unlock(&watch->lock);
}

void watch_cut(struct watch *watch, struct watched *watched)
{
    (void)pthread_mutex_lock(&watch->lock);
    cut(watch, watched);
    (void)pthread_mutex_unlock(&watch->lock);
}

void watch_close(struct watch *watch)
{
    struct watched *watched;
    (void)pthread_mutex_lock(&watch->lock);
    watch->closed = true;
    TAILQ_FOREACH(watched, &watch->list, link)
    {
        cut(watch, watched);
    }
    (void)pthread_mutex_unlock(&watch->lock);
}

bool watch_is_empty(struct watch *watch)
{
    (void)pthread_mutex_lock(&watch->lock);
    bool empty = TAILQ_EMPTY(&watch->list);
    (void)pthread_mutex_unlock(&watch->lock);
    return empty;
}

void watch_make_room(struct watch *watch)
{
    (void)pthread_mutex_lock(&watch->lock);
    make_room(watch);
    (void)pthread_mutex_unlock(&watch->lock);
}

void watch_remove(struct watch *watch, struct watched *watched)
{
    (void)pthread_mutex_lock(&watch->lock);
    TAILQ_REMOVE(&watch->list, watched, link);
    if (!watched->cut)
        watch->count--;
    (void)pthread_mutex_unlock(&watch->lock);
}
