/* SPDX-License-Identifier: Apache-2.0 */
#include "fdstore.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <time.h>

enum {
    END_WITHIN_S = 5, /* for what is still to be sent; then systemd is not there any more */
};

struct message {
    struct message *next;
    int fd; /* owned; -1: all of that name are to be let go */
    char name[FDSTORE_NAME_BYTES];
};

struct fdstore {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    /* guarded by lock */
    bool stopping;
    struct message *first, **end;
};

/* --- names --- */

#define NAME_FORMAT "kvm-%d-%" PRIu64 "-%u-%" PRIu64

void fdstore_name(const struct fdstore_vm *vm, char ret_name[FDSTORE_NAME_BYTES])
{
    (void)snprintf(ret_name, FDSTORE_NAME_BYTES, NAME_FORMAT, (int)vm->pid, vm->start_ticks,
                   (unsigned)vm->uid, vm->number);
}

bool fdstore_parse_name(const char *name, struct fdstore_vm *ret_vm)
{
    char again[FDSTORE_NAME_BYTES];
    unsigned uid;
    int pid;
    struct fdstore_vm vm = {0};
    if (sscanf(name, "kvm-%d-%" SCNu64 "-%u-%" SCNu64, &pid, &vm.start_ticks, &uid, &vm.number) !=
        4)
        return false;
    vm.pid = pid;
    vm.uid = uid;
    /* Exactly as we write it, or it is not from us. */
    fdstore_name(&vm, again);
    if (pid <= 0 || strcmp(name, again) != 0)
        return false;
    *ret_vm = vm;
    return true;
}

/* --- sending --- */

static void send_removal(const char *name)
{
    (void)sd_notifyf(0, "FDSTOREREMOVE=1\nFDNAME=%s", name);
}

static void send_message(struct message *message)
{
    char text[FDSTORE_NAME_BYTES + 32];
    if (message->fd < 0) {
        send_removal(message->name);
    } else {
        (void)snprintf(text, sizeof text, "FDSTORE=1\nFDNAME=%s", message->name);
        (void)sd_pid_notify_with_fds(0, 0, text, &message->fd, 1);
    }
    message->fd = fd_close(message->fd);
    free(message);
}

static struct message *take_first(struct fdstore *store)
{
    struct message *message = store->first;
    if (message) {
        store->first = message->next;
        if (!store->first)
            store->end = &store->first;
    }
    return message;
}

static void *store_main(void *arg)
{
    struct fdstore *store = arg;
    (void)pthread_setname_np(pthread_self(), "kvmstatd-store");
    (void)pthread_mutex_lock(&store->lock);
    for (;;) {
        struct message *message = take_first(store);
        if (message) {
            (void)pthread_mutex_unlock(&store->lock);
            send_message(message);
            (void)pthread_mutex_lock(&store->lock);
        } else if (store->stopping) {
            break;
        } else {
            (void)pthread_cond_wait(&store->wake, &store->lock);
        }
    }
    (void)pthread_mutex_unlock(&store->lock);
    return NULL;
}

int fdstore_new(struct fdstore **ret_store)
{
    sigset_t all, before;
    if (!getenv("NOTIFY_SOCKET")) {
        *ret_store = NULL;
        return 0;
    }
    struct fdstore *store = calloc(1, sizeof *store);
    if (!store)
        return -ENOMEM;
    store->end = &store->first;
    (void)pthread_mutex_init(&store->lock, NULL);
    (void)pthread_cond_init(&store->wake, NULL);
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int r = -pthread_create(&store->thread, NULL, store_main, store);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r < 0) {
        free(store);
        return r;
    }
    *ret_store = store;
    return 0;
}

void fdstore_free(struct fdstore *store)
{
    struct timespec until;
    if (!store)
        return;
    (void)pthread_mutex_lock(&store->lock);
    store->stopping = true;
    (void)pthread_cond_signal(&store->wake);
    (void)pthread_mutex_unlock(&store->lock);
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += END_WITHIN_S;
    if (pthread_timedjoin_np(store->thread, NULL, &until) != 0) {
        (void)pthread_detach(store->thread);
        return; /* it still has the memory */
    }
    (void)pthread_cond_destroy(&store->wake);
    (void)pthread_mutex_destroy(&store->lock);
    free(store);
}

static void put(struct fdstore *store, struct message *message)
{
    (void)pthread_mutex_lock(&store->lock);
    *store->end = message;
    store->end = &message->next;
    (void)pthread_cond_signal(&store->wake);
    (void)pthread_mutex_unlock(&store->lock);
}

static int put_new(struct fdstore *store, const char *name, int fd)
{
    struct message *message = calloc(1, sizeof *message);
    if (!message)
        return -ENOMEM;
    (void)snprintf(message->name, sizeof message->name, "%s", name);
    message->fd = fd;
    put(store, message);
    return 0;
}

int fdstore_add(struct fdstore *store, const char *name, int fd)
{
    if (!store)
        return 0;
    CLEANUP_FD int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (copy < 0)
        return -errno;
    int r = put_new(store, name, copy);
    if (r == 0)
        (void)steal_fd(&copy);
    return r;
}

/* What waits would keep the VM until systemd has time. */
static void drop_waiting(struct fdstore *store, const char *name)
{
    (void)pthread_mutex_lock(&store->lock);
    for (struct message **at = &store->first; *at;) {
        struct message *message = *at;
        if (message->fd < 0 || strcmp(message->name, name) != 0) {
            at = &message->next;
            continue;
        }
        *at = message->next;
        message->fd = fd_close(message->fd);
        free(message);
    }
    store->end = &store->first;
    while (*store->end)
        store->end = &(*store->end)->next;
    (void)pthread_mutex_unlock(&store->lock);
}

void fdstore_remove(struct fdstore *store, const char *name)
{
    if (!store)
        return;
    drop_waiting(store, name);
    if (put_new(store, name, -1) < 0)
        send_removal(name); /* late is better than never */
}

/* --- after a start --- */

void fdstore_disown(const char *name)
{
    send_removal(name);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct passed_fd *)a)->name, ((const struct passed_fd *)b)->name);
}

void fdstore_sort(struct passed_fds *passed)
{
    if (passed->n)
        qsort(passed->fds, passed->n, sizeof *passed->fds, compare_names);
}

static bool is_gone(const struct proc *proc, const struct fdstore_vm *vm)
{
    struct proc_stat stat;
    int r = proc_stat_read(proc, vm->pid, &stat);
    return r == -ESRCH || (r == 0 && stat.start_ticks != vm->start_ticks);
}

size_t fdstore_drop_gone(struct passed_fds *passed)
{
    CLEANUP(proc_close) struct proc proc = {.dir_fd = -1};
    struct fdstore_vm vm;
    const char *before = "";
    bool gone = false;
    size_t n = 0;
    if (passed->n == 0 || proc_open("", &proc) < 0)
        return 0;
    fdstore_sort(passed);
    for (size_t i = 0; i < passed->n; i++) {
        struct passed_fd *at = &passed->fds[i];
        if (strcmp(at->name, before) != 0) {
            before = at->name;
            gone = fdstore_parse_name(at->name, &vm) && is_gone(&proc, &vm);
            if (gone)
                send_removal(at->name);
        }
        if (gone) {
            at->fd = fd_close(at->fd);
            n++;
        }
    }
    return n;
}
