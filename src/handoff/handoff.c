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
static struct guard before_fork;         /* guarded by `lock` */

void guard_begin(struct guard *guard)
{
    sigset_t all;
    (void)sigfillset(&all);
    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &guard->cancel_state);
    (void)pthread_sigmask(SIG_SETMASK, &all, &guard->signals);
}

void guard_end(const struct guard *guard)
{
    (void)pthread_sigmask(SIG_SETMASK, &guard->signals, NULL);
    (void)pthread_setcancelstate(guard->cancel_state, NULL);
}

void handoff_lock(struct guard *guard)
{
    guard_begin(guard);
    (void)pthread_mutex_lock(&lock);
}

void handoff_unlock(const struct guard *guard)
{
    (void)pthread_mutex_unlock(&lock);
    guard_end(guard);
}

void handoff_lock_in_thread(void)
{
    (void)pthread_mutex_lock(&lock);
}

void handoff_unlock_in_thread(void)
{
    (void)pthread_mutex_unlock(&lock);
}

void item_close_fds(struct item *item)
{
    item->stats_fd = fd_close(item->stats_fd);
    item->vm_fd = fd_close(item->vm_fd);
}

static void close_all(struct kvmstatd_handoff *h)
{
    for (struct item *item = h->first; item; item = item->next)
        item_close_fds(item);
    h->socket_fd = fd_close(h->socket_fd);
    h->wake_fd = fd_close(h->wake_fd);
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
        free(item); /* its fds are closed */
    }
    free(h);
}

/* --- fork --- */

static void before_forking(void)
{
    struct guard guard;
    handoff_lock(&guard);
    before_fork = guard;
}

static void after_fork_in_parent(void)
{
    struct guard guard = before_fork;
    handoff_unlock(&guard);
}

/*
 * The thread is the parent's, and so are the VMs: KVM refuses to work for another process than the
 * one that made the VM. The memory stays until the child closes its handle, which it need not.
 */
static void after_fork_in_child(void)
{
    struct guard guard = before_fork;
    for (struct kvmstatd_handoff *h = handles; h; h = h->next) {
        close_all(h);
        h->orphaned = true;
    }
    handles = NULL;
    handoff_unlock(&guard);
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
    struct guard guard;
    pthread_attr_t attributes;
    pthread_t thread;
    int r = pthread_attr_init(&attributes);
    if (r != 0)
        return -r;
    /* A program with much thread-local data may need more than we do: then libc's default stays. */
    (void)pthread_attr_setstacksize(&attributes, MAX_OF(STACK_BYTES, PTHREAD_STACK_MIN));
    (void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    guard_begin(&guard);
    r = pthread_create(&thread, &attributes, link_main, h);
    if (r == EINVAL) {
        (void)pthread_attr_setstacksize(&attributes, 16 * STACK_BYTES);
        r = pthread_create(&thread, &attributes, link_main, h);
    }
    guard_end(&guard);
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
    struct guard guard;
    (void)pthread_once(&fork_once, watch_forks);
    if (fork_error)
        return -fork_error;
    struct kvmstatd_handoff *h = calloc(1, sizeof *h);
    if (!h)
        return -ENOMEM;
    h->pid = getpid();
    h->last = &h->first;
    (void)sem_init(&h->ready, 0, 0);
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
    handoff_lock(&guard);
    h->next = handles;
    handles = h;
    /* Here and now: a VMM may be about to forbid itself socket() and connect(). */
    link_connect(h);
    r = start_thread(h);
    if (r < 0)
        handoff_destroy(h);
    (void)pthread_mutex_unlock(&lock);
    while (r == 0 && sem_wait(&h->ready) < 0)
        ; /* EINTR: a debugger's */
    guard_end(&guard);
    if (r == 0)
        *ret_handoff = h;
    return r;
}

/* --- giving --- */

/* Rings the thread's bell. */
static void wake(const struct kvmstatd_handoff *h)
{
    uint64_t one = 1;
    ssize_t n = write(h->wake_fd, &one, sizeof one);
    (void)n; /* EAGAIN: it rings */
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

/* `name` and `uuid` may be NULL. */
static int item_new(const char *name, const char *uuid, struct item **ret_item)
{
    size_t name_bytes = name ? strlen(name) : 0, uuid_bytes = uuid ? strlen(uuid) : 0;
    if (name_bytes > KVMSTATD_HANDOFF_NAME_BYTES_MAX)
        return -ENAMETOOLONG;
    if (uuid_bytes && !is_uuid(uuid))
        return -EINVAL;
    struct item *item = calloc(1, sizeof *item + name_bytes + uuid_bytes);
    if (!item)
        return -ENOMEM;
    item->vcpu = VM_SCOPE;
    item->stats_fd = item->vm_fd = -1;
    item->name_bytes = (uint16_t)name_bytes;
    item->uuid_bytes = (uint16_t)uuid_bytes;
    if (name_bytes)
        memcpy(item->hints, name, name_bytes);
    if (uuid_bytes)
        memcpy(item->hints + name_bytes, uuid, uuid_bytes);
    *ret_item = item;
    return 0;
}

static void item_free(struct item *item)
{
    item_close_fds(item);
    free(item);
}

/* Duplicates are made with the lock held: a fork finds them in the list, or not at all. */
static int duplicate(int fd, int *ret_copy)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (copy < 0)
        return -errno;
    *ret_copy = copy;
    return 0;
}

/* Another process has no business with this handle, and half of it is not there. */
static bool is_ours(const struct kvmstatd_handoff *h)
{
    return !h->orphaned && h->pid == getpid();
}

/* Takes the item, which may have its stats_fd; otherwise, and of the VM's fd, it gets duplicates.
 */
static int give_vm(struct kvmstatd_handoff *h, struct item *item, int stats_fd, int vm_fd,
                   uint64_t *ret_vm)
{
    struct guard guard;
    int r = 0;
    handoff_lock(&guard);
    if (item->stats_fd < 0)
        r = duplicate(stats_fd, &item->stats_fd);
    if (r == 0 && vm_fd >= 0)
        r = duplicate(vm_fd, &item->vm_fd);
    if (r == 0) {
        item->vm = ++h->last_vm;
        append(h, item);
        *ret_vm = item->vm;
        wake(h);
    }
    handoff_unlock(&guard);
    if (r < 0)
        item_free(item);
    return r;
}

static int give_vcpu(struct kvmstatd_handoff *h, struct item *item, int stats_fd, uint64_t vm,
                     uint32_t vcpu_id)
{
    struct guard guard;
    int r = 0;
    item->vm = vm;
    item->vcpu = vcpu_id;
    handoff_lock(&guard);
    handoff_take_notes(h);
    if (!find(h, vm, VM_SCOPE))
        r = -ENOENT;
    else if (find(h, vm, vcpu_id))
        r = -EEXIST;
    else if (item->stats_fd < 0)
        r = duplicate(stats_fd, &item->stats_fd);
    if (r == 0) {
        append(h, item);
        wake(h);
    }
    handoff_unlock(&guard);
    if (r < 0)
        item_free(item);
    return r;
}

static int open_stats(int fd, int *ret_fd)
{
    int stats_fd = ioctl(fd, KVM_GET_STATS_FD, 0);
    if (stats_fd < 0)
        return -errno;
    (void)fcntl(stats_fd, F_SETFD, FD_CLOEXEC);
    *ret_fd = stats_fd;
    return 0;
}

int kvmstatd_handoff_vm(struct kvmstatd_handoff *h, int vm_fd, const char *name, const char *uuid,
                        uint64_t *ret_vm)
{
    struct item *item;
    if (!is_ours(h))
        return -ECHILD;
    int r = item_new(name, uuid, &item);
    if (r < 0)
        return r;
    r = open_stats(vm_fd, &item->stats_fd);
    if (r < 0) {
        item_free(item);
        return r;
    }
    return give_vm(h, item, -1, vm_fd, ret_vm);
}

int kvmstatd_handoff_vcpu(struct kvmstatd_handoff *h, uint64_t vm, uint32_t vcpu_id, int vcpu_fd)
{
    struct item *item;
    if (!is_ours(h))
        return -ECHILD;
    int r = item_new(NULL, NULL, &item);
    if (r < 0)
        return r;
    r = open_stats(vcpu_fd, &item->stats_fd);
    if (r < 0) {
        item_free(item);
        return r;
    }
    return give_vcpu(h, item, -1, vm, vcpu_id);
}

int kvmstatd_handoff_vm_stats(struct kvmstatd_handoff *h, int stats_fd, int vm_fd, const char *name,
                              const char *uuid, uint64_t *ret_vm)
{
    struct item *item;
    if (!is_ours(h))
        return -ECHILD;
    int r = item_new(name, uuid, &item);
    return r < 0 ? r : give_vm(h, item, stats_fd, vm_fd, ret_vm);
}

int kvmstatd_handoff_vcpu_stats(struct kvmstatd_handoff *h, uint64_t vm, uint32_t vcpu_id,
                                int stats_fd)
{
    struct item *item;
    if (!is_ours(h))
        return -ECHILD;
    int r = item_new(NULL, NULL, &item);
    return r < 0 ? r : give_vcpu(h, item, stats_fd, vm, vcpu_id);
}

/* --- taking back: nothing is allocated, freed or waited for here, see internal.h --- */

static void take_back(struct item *item)
{
    item_close_fds(item);
    item->gone = true;
}

/* A VM takes its vCPUs with it, of which the daemon need not be told. */
static void take_back_vm(struct item *vm)
{
    take_back(vm);
    for (struct item *item = vm->next; item; item = item->next) {
        if (item->vm == vm->vm) {
            take_back(item);
            item->connection = 0;
        }
    }
}

static int take_back_one(struct kvmstatd_handoff *h, uint64_t vm, int64_t vcpu)
{
    struct item *item = find(h, vm, vcpu);
    if (!item)
        return -ENOENT;
    if (vcpu == VM_SCOPE)
        take_back_vm(item);
    else
        take_back(item);
    return 0;
}

void handoff_take_notes(struct kvmstatd_handoff *h)
{
    for (size_t i = 0; i < NOTES; i++) {
        struct note *note = &h->notes[i];
        if (atomic_load(&note->state) != NOTE_WRITTEN)
            continue;
        (void)take_back_one(h, note->vm, note->vcpu);
        atomic_store(&note->state, NOTE_EMPTY);
    }
}

static bool leave_note(struct kvmstatd_handoff *h, uint64_t vm, int64_t vcpu)
{
    for (size_t i = 0; i < NOTES; i++) {
        struct note *note = &h->notes[i];
        unsigned empty = NOTE_EMPTY;
        if (!atomic_compare_exchange_strong(&note->state, &empty, NOTE_BEING_WRITTEN))
            continue;
        note->vm = vm;
        note->vcpu = vcpu;
        atomic_store(&note->state, NOTE_WRITTEN);
        return true;
    }
    return false;
}

static int gone(struct kvmstatd_handoff *h, uint64_t vm, int64_t vcpu)
{
    struct guard guard;
    int r = 0;
    if (!is_ours(h))
        return -ECHILD;
    guard_begin(&guard);
    if (pthread_mutex_trylock(&lock) == 0) {
        handoff_take_notes(h);
        r = take_back_one(h, vm, vcpu);
        (void)pthread_mutex_unlock(&lock);
    } else if (!leave_note(h, vm, vcpu)) {
        (void)pthread_mutex_lock(&lock); /* so many at once have never been seen */
        r = take_back_one(h, vm, vcpu);
        (void)pthread_mutex_unlock(&lock);
    }
    if (r == 0)
        wake(h);
    guard_end(&guard);
    return r;
}

int kvmstatd_handoff_vm_gone(struct kvmstatd_handoff *h, uint64_t vm)
{
    return gone(h, vm, VM_SCOPE);
}

int kvmstatd_handoff_vcpu_gone(struct kvmstatd_handoff *h, uint64_t vm, uint32_t vcpu_id)
{
    return gone(h, vm, vcpu_id);
}

void kvmstatd_handoff_close(struct kvmstatd_handoff *h)
{
    struct guard guard;
    if (!h)
        return;
    handoff_lock(&guard);
    if (!is_ours(h)) {
        /* The child's copy: its fds are closed, or (no fork handler ran) are its exec's to close.
         */
        if (h->orphaned)
            handoff_destroy(h);
    } else {
        for (struct item *item = h->first; item; item = item->next) {
            if (!item->gone && item->vcpu == VM_SCOPE)
                take_back_vm(item);
        }
        h->closing = true;
        h->closing_until_ns = clock_now_ns() + CLOSING_MS * NSEC_PER_MSEC;
        wake(h);
    }
    handoff_unlock(&guard);
}

int kvmstatd_handoff_get_status(struct kvmstatd_handoff *h,
                                struct kvmstatd_handoff_status *ret_status)
{
    struct kvmstatd_handoff_status status = {0};
    struct guard guard;
    if (!is_ours(h))
        return -ECHILD;
    handoff_lock(&guard);
    handoff_take_notes(h);
    for (const struct item *item = h->first; item; item = item->next) {
        bool current = h->welcomed && item->connection == h->connection;
        status.given += !item->gone;
        status.accepted += !item->gone && current && item->state == ITEM_ACCEPTED;
        bool now = current && (item->state == ITEM_REFUSED || item->state == ITEM_PUT_OFF);
        status.refused += !item->gone && (now || item->state == ITEM_HOPELESS);
    }
    status.connected = h->welcomed;
    status.last_reason = h->last_reason;
    status.n_connected = h->n_welcomed;
    handoff_unlock(&guard);
    *ret_status = status;
    return 0;
}
