/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a VMM calls. A call notes what is wanted in a list and rings the thread's bell; it talks to
 * nobody. The list is the truth from which each new daemon is told everything.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/kvm.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "clock.h"

#ifndef KVM_GET_STATS_FD
#define KVM_GET_STATS_FD _IO(KVMIO, 0xce)
#endif

enum {
    STACK_BYTES = 64 * 1024, /* the thread's; what it calls needs a tenth of that */
    CLOSING_MS = 1000,       /* for telling the daemon that all was taken back */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct kvmstatd_handoff *handles; /* guarded by `lock` */
static sigset_t before_fork;             /* guarded by `lock` */

int raw_close(int fd)
{
    if (fd >= 0)
        (void)syscall(SYS_close, fd);
    return -1;
}

void handoff_lock(sigset_t *ret_before)
{
    sigset_t all;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, ret_before);
    (void)pthread_mutex_lock(&lock);
}

void handoff_unlock(const sigset_t *before)
{
    (void)pthread_mutex_unlock(&lock);
    (void)pthread_sigmask(SIG_SETMASK, before, NULL);
}

void item_close_fds(struct item *item)
{
    item->stats_fd = raw_close(item->stats_fd);
    item->vm_fd = raw_close(item->vm_fd);
}

static void close_all(struct kvmstatd_handoff *h)
{
    for (struct item *item = h->first; item; item = item->next)
        item_close_fds(item);
    h->socket_fd = raw_close(h->socket_fd);
    h->wake_fd = raw_close(h->wake_fd);
}

void handoff_destroy(struct kvmstatd_handoff *h)
{
    struct kvmstatd_handoff **at = &handles;
    while (*at && *at != h)
        at = &(*at)->next;
    if (*at)
        *at = h->next;
    close_all(h);
    while (h->first) {
        struct item *item = h->first;
        h->first = item->next;
        free(item);
    }
    free(h);
}

/* --- fork --- */

static void before_forking(void)
{
    sigset_t before;
    handoff_lock(&before);
    before_fork = before;
}

static void after_fork_in_parent(void)
{
    sigset_t before = before_fork;
    handoff_unlock(&before);
}

/*
 * The thread is the parent's, and so are the VMs: KVM refuses to work for another process than the
 * one that made the VM. The memory stays until the child closes its handle, which it need not.
 */
static void after_fork_in_child(void)
{
    sigset_t before = before_fork;
    for (struct kvmstatd_handoff *h = handles; h; h = h->next) {
        close_all(h);
        h->orphaned = true;
    }
    handles = NULL;
    handoff_unlock(&before);
}

static pthread_once_t fork_once = PTHREAD_ONCE_INIT;
static int fork_error;

static void watch_forks(void)
{
    fork_error = pthread_atfork(before_forking, after_fork_in_parent, after_fork_in_child);
}

/* --- connecting --- */

static int start_thread(struct kvmstatd_handoff *h)
{
    sigset_t all, before;
    pthread_attr_t attributes;
    pthread_t thread;
    int r = pthread_attr_init(&attributes);
    if (r != 0)
        return -r;
    /* A program with much thread-local data may need more than we do: then libc's default stays. */
    (void)pthread_attr_setstacksize(&attributes, MAX_OF(STACK_BYTES, PTHREAD_STACK_MIN));
    (void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&thread, &attributes, link_main, h);
    if (r == EINVAL) {
        (void)pthread_attr_setstacksize(&attributes, 16 * STACK_BYTES);
        r = pthread_create(&thread, &attributes, link_main, h);
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    (void)pthread_attr_destroy(&attributes);
    return -r;
}

static int set_address(struct sockaddr_un *address, const char *path)
{
    if (!path)
        path = secure_getenv("KVMSTATD_HANDOFF_SOCKET");
    if (!path)
        path = KVMSTATD_HANDOFF_SOCKET;
    size_t len = strlen(path);
    if (len == 0)
        return -EINVAL;
    if (len >= sizeof address->sun_path)
        return -ENAMETOOLONG;
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, path, len);
    return 0;
}

int kvmstatd_handoff_connect(const char *socket_path, struct kvmstatd_handoff **ret_handoff)
{
    sigset_t before;
    (void)pthread_once(&fork_once, watch_forks);
    if (fork_error)
        return -fork_error;
    struct kvmstatd_handoff *h = calloc(1, sizeof *h);
    if (!h)
        return -ENOMEM;
    h->pid = getpid();
    h->last = &h->first;
    h->socket_fd = -1;
    h->put_off_until_ns = INT64_MAX;
    int r = set_address(&h->address, socket_path);
    h->wake_fd = r < 0 ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (r == 0 && h->wake_fd < 0)
        r = -errno;
    if (r < 0) {
        free(h);
        return r;
    }
    handoff_lock(&before);
    h->next = handles;
    handles = h;
    /* Here and now: a VMM may be about to forbid itself socket() and connect(). */
    link_connect(h);
    r = start_thread(h);
    if (r < 0)
        handoff_destroy(h);
    handoff_unlock(&before);
    if (r == 0)
        *ret_handoff = h;
    return r;
}

/* --- giving --- */

/* Rings the thread's bell. Not write(), which would be a cancellation point. */
static void wake(const struct kvmstatd_handoff *h)
{
    uint64_t one = 1;
    (void)syscall(SYS_write, h->wake_fd, &one, sizeof one);
}

static struct item *find(struct kvmstatd_handoff *h, uint64_t vm, int64_t vcpu)
{
    for (struct item *item = h->first; item; item = item->next) {
        if (!item->gone && item->vm == vm && item->vcpu == vcpu)
            return item;
    }
    return NULL;
}

static void append(struct kvmstatd_handoff *h, struct item *item)
{
    *h->last = item;
    h->last = &item->next;
}

/* 8-4-4-4-12 hexadecimal digits. */
static bool is_uuid(const char *text)
{
    size_t i = 0;
    for (; text[i]; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (i == KVMSTATD_HANDOFF_UUID_BYTES ||
            !(dash ? text[i] == '-' : strchr("0123456789abcdefABCDEF", text[i]) != NULL))
            return false;
    }
    return i == KVMSTATD_HANDOFF_UUID_BYTES;
}

/* Takes the fds in every case. `name` and `uuid` may be NULL. */
static int item_new(int stats_fd, int vm_fd, const char *name, const char *uuid,
                    struct item **ret_item)
{
    size_t name_bytes = name ? strlen(name) : 0, uuid_bytes = uuid ? strlen(uuid) : 0;
    struct item *item = NULL;
    int r = -ENOMEM;
    if (name_bytes > KVMSTATD_HANDOFF_NAME_BYTES_MAX)
        r = -ENAMETOOLONG;
    else if (uuid_bytes && !is_uuid(uuid))
        r = -EINVAL;
    else
        item = calloc(1, sizeof *item + name_bytes + uuid_bytes);
    if (!item) {
        (void)raw_close(stats_fd);
        (void)raw_close(vm_fd);
        return r;
    }
    item->vcpu = VM_SCOPE;
    item->stats_fd = stats_fd;
    item->vm_fd = vm_fd;
    item->name_bytes = (uint16_t)name_bytes;
    item->uuid_bytes = (uint16_t)uuid_bytes;
    if (name_bytes)
        memcpy(item->hints, name, name_bytes);
    if (uuid_bytes)
        memcpy(item->hints + name_bytes, uuid, uuid_bytes);
    *ret_item = item;
    return 0;
}

static int duplicate(int fd)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    return copy < 0 ? -errno : copy;
}

/* Another process has no business with this handle, and half of it is not there. */
static bool is_ours(const struct kvmstatd_handoff *h)
{
    return !h->orphaned && h->pid == getpid();
}

/* Takes stats_fd; duplicates vm_fd (-1: none). */
static int give_vm(struct kvmstatd_handoff *h, int stats_fd, int vm_fd, const char *name,
                   const char *uuid, uint64_t *ret_vm)
{
    struct item *item;
    sigset_t before;
    int pin_fd = vm_fd < 0 ? -1 : duplicate(vm_fd);
    if (pin_fd < 0 && vm_fd >= 0) {
        (void)raw_close(stats_fd);
        return pin_fd;
    }
    int r = item_new(stats_fd, pin_fd, name, uuid, &item);
    if (r < 0)
        return r;
    handoff_lock(&before);
    item->vm = ++h->last_vm;
    append(h, item);
    *ret_vm = item->vm;
    wake(h);
    handoff_unlock(&before);
    return 0;
}

/* Takes stats_fd. */
static int give_vcpu(struct kvmstatd_handoff *h, uint64_t vm, uint32_t vcpu_id, int stats_fd)
{
    struct item *item;
    sigset_t before;
    int r = item_new(stats_fd, -1, NULL, NULL, &item);
    if (r < 0)
        return r;
    item->vm = vm;
    item->vcpu = vcpu_id;
    handoff_lock(&before);
    if (!find(h, vm, VM_SCOPE))
        r = -ENOENT;
    else if (find(h, vm, vcpu_id))
        r = -EEXIST;
    else
        append(h, item);
    if (r == 0)
        wake(h);
    handoff_unlock(&before);
    if (r < 0) {
        item_close_fds(item);
        free(item);
    }
    return r;
}

static int open_stats(int fd)
{
    int stats_fd = ioctl(fd, KVM_GET_STATS_FD, 0);
    if (stats_fd < 0)
        return -errno;
    (void)fcntl(stats_fd, F_SETFD, FD_CLOEXEC);
    return stats_fd;
}

int kvmstatd_handoff_vm(struct kvmstatd_handoff *h, int vm_fd, const char *name, const char *uuid,
                        uint64_t *ret_vm)
{
    if (!is_ours(h))
        return -ECHILD;
    int stats_fd = open_stats(vm_fd);
    return stats_fd < 0 ? stats_fd : give_vm(h, stats_fd, vm_fd, name, uuid, ret_vm);
}

int kvmstatd_handoff_vcpu(struct kvmstatd_handoff *h, uint64_t vm, uint32_t vcpu_id, int vcpu_fd)
{
    if (!is_ours(h))
        return -ECHILD;
    int stats_fd = open_stats(vcpu_fd);
    return stats_fd < 0 ? stats_fd : give_vcpu(h, vm, vcpu_id, stats_fd);
}

int kvmstatd_handoff_vm_stats(struct kvmstatd_handoff *h, int stats_fd, int vm_fd, const char *name,
                              const char *uuid, uint64_t *ret_vm)
{
    if (!is_ours(h))
        return -ECHILD;
    int copy = duplicate(stats_fd);
    return copy < 0 ? copy : give_vm(h, copy, vm_fd, name, uuid, ret_vm);
}

int kvmstatd_handoff_vcpu_stats(struct kvmstatd_handoff *h, uint64_t vm, uint32_t vcpu_id,
                                int stats_fd)
{
    if (!is_ours(h))
        return -ECHILD;
    int copy = duplicate(stats_fd);
    return copy < 0 ? copy : give_vcpu(h, vm, vcpu_id, copy);
}

/* --- taking back: nothing is allocated or freed here, see internal.h --- */

static void take_back(struct item *item)
{
    item_close_fds(item);
    item->gone = true;
}

/* A VM takes its vCPUs with it, of which the daemon need not be told. */
static void take_back_vm(struct kvmstatd_handoff *h, struct item *vm)
{
    take_back(vm);
    for (struct item *item = vm->next; item; item = item->next) {
        if (item->vm == vm->vm) {
            take_back(item);
            item->connection = 0;
        }
    }
    wake(h);
}

int kvmstatd_handoff_vm_gone(struct kvmstatd_handoff *h, uint64_t vm)
{
    sigset_t before;
    if (!is_ours(h))
        return -ECHILD;
    handoff_lock(&before);
    struct item *item = find(h, vm, VM_SCOPE);
    if (item)
        take_back_vm(h, item);
    handoff_unlock(&before);
    return item ? 0 : -ENOENT;
}

int kvmstatd_handoff_vcpu_gone(struct kvmstatd_handoff *h, uint64_t vm, uint32_t vcpu_id)
{
    sigset_t before;
    if (!is_ours(h))
        return -ECHILD;
    handoff_lock(&before);
    struct item *item = find(h, vm, vcpu_id);
    if (item) {
        take_back(item);
        wake(h);
    }
    handoff_unlock(&before);
    return item ? 0 : -ENOENT;
}

void kvmstatd_handoff_close(struct kvmstatd_handoff *h)
{
    sigset_t before;
    if (!h)
        return;
    handoff_lock(&before);
    if (!is_ours(h)) {
        /* The child's copy: its fds are closed, or (no fork handler ran) are its exec's to close.
         */
        if (h->orphaned)
            handoff_destroy(h);
    } else {
        for (struct item *item = h->first; item; item = item->next) {
            if (!item->gone && item->vcpu == VM_SCOPE)
                take_back_vm(h, item);
        }
        h->closing = true;
        h->closing_until_ns = clock_now_ns() + CLOSING_MS * NSEC_PER_MSEC;
        wake(h);
    }
    handoff_unlock(&before);
}

int kvmstatd_handoff_get_status(struct kvmstatd_handoff *h,
                                struct kvmstatd_handoff_status *ret_status)
{
    struct kvmstatd_handoff_status status = {0};
    sigset_t before;
    if (!is_ours(h))
        return -ECHILD;
    handoff_lock(&before);
    for (const struct item *item = h->first; item; item = item->next) {
        bool current = h->welcomed && item->connection == h->connection;
        status.given += !item->gone;
        status.accepted += !item->gone && current && item->state == ITEM_ACCEPTED;
        status.refused +=
            !item->gone && current && (item->state == ITEM_REFUSED || item->state == ITEM_PUT_OFF);
    }
    status.connected = h->welcomed;
    status.last_reason = h->last_reason;
    status.n_connected = h->n_welcomed;
    handoff_unlock(&before);
    *ret_status = status;
    return 0;
}
