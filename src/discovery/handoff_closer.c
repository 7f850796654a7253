/* SPDX-License-Identifier: Apache-2.0 */
#include "handoff_closer.h"

#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <time.h>

enum {
    PENDING_MAX = 1024, /* many at a time, or the thread hangs */
    DISCARD_MAX = 1024, /* messages; a peer may go on sending */
};

struct handoff_closer {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    unsigned first, n; /* guarded by lock, as all below */
    struct pending {
        int fd;
        bool is_connection;
    } pending[PENDING_MAX];
    bool stopping;
};

static void discard(int socket_fd)
{
    char byte;
    for (int i = 0; i < DISCARD_MAX; i++) {
        /* Without room for fds: none is installed. */
        if (recv(socket_fd, &byte, sizeof byte, MSG_DONTWAIT) <= 0)
            return;
    }
}

static void *closer_main(void *arg)
{
    struct handoff_closer *closer = arg;
    (void)pthread_setname_np(pthread_self(), "handoff-closer");
    (void)pthread_mutex_lock(&closer->lock);
    for (;;) {
        while (closer->n == 0 && !closer->stopping)
            (void)pthread_cond_wait(&closer->wake, &closer->lock);
        if (closer->n == 0)
            break;
        struct pending next = closer->pending[closer->first];
        closer->first = (closer->first + 1) % PENDING_MAX;
        closer->n--;
        (void)pthread_mutex_unlock(&closer->lock);
        if (next.is_connection)
            discard(next.fd);
        (void)fd_close(next.fd);
        (void)pthread_mutex_lock(&closer->lock);
    }
    (void)pthread_mutex_unlock(&closer->lock);
    return NULL;
}

int handoff_closer_new(struct handoff_closer **ret_closer)
{
    sigset_t all, before;
    struct handoff_closer *closer = calloc(1, sizeof *closer);
    if (!closer)
        return -ENOMEM;
    (void)pthread_mutex_init(&closer->lock, NULL);
    (void)pthread_cond_init(&closer->wake, NULL);
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int r = -pthread_create(&closer->thread, NULL, closer_main, closer);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r < 0) {
        free(closer);
        return r;
    }
    *ret_closer = closer;
    return 0;
}

void handoff_closer_free(struct handoff_closer *closer)
{
    struct timespec until;
    if (!closer)
        return;
    (void)pthread_mutex_lock(&closer->lock);
    closer->stopping = true;
    (void)pthread_cond_signal(&closer->wake);
    (void)pthread_mutex_unlock(&closer->lock);
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec++;
    if (pthread_timedjoin_np(closer->thread, NULL, &until) != 0) {
        (void)pthread_detach(closer->thread);
        return; /* it still has the memory */
    }
    (void)pthread_cond_destroy(&closer->wake);
    (void)pthread_mutex_destroy(&closer->lock);
    free(closer);
}

bool handoff_closer_has_room(struct handoff_closer *closer, unsigned n)
{
    (void)pthread_mutex_lock(&closer->lock);
    bool room = closer->n + n <= PENDING_MAX;
    (void)pthread_mutex_unlock(&closer->lock);
    return room;
}

static void put(struct handoff_closer *closer, int fd, bool is_connection)
{
    if (fd < 0)
        return;
    (void)pthread_mutex_lock(&closer->lock);
    bool room = closer->n < PENDING_MAX;
    if (room) {
        closer->pending[(closer->first + closer->n++) % PENDING_MAX] =
            (struct pending){fd, is_connection};
        (void)pthread_cond_signal(&closer->wake);
    }
    (void)pthread_mutex_unlock(&closer->lock);
    if (!room)
        (void)fd_close(fd);
}

void handoff_closer_put(struct handoff_closer *closer, int fd)
{
    put(closer, fd, false);
}

void handoff_closer_put_connection(struct handoff_closer *closer, int fd)
{
    put(closer, fd, true);
}
