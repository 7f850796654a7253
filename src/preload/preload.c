/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libkvmstatd-preload.so: an unmodified, dynamically linked VMM hands over its VMs.
 *
 *     LD_PRELOAD=/usr/lib/…/libkvmstatd-preload.so qemu-system-x86_64 -accel kvm …
 *
 * It stands before libc's ioctl() and close(), and follows KVM_CREATE_VM and KVM_CREATE_VCPU. The
 * statistics file is opened by the thread that has just created the vCPU and before anybody can run
 * it, so that the ioctl does not wait. Where anything fails, the VMM must not notice: nothing is
 * said, its results and its errno are as without us.
 *
 * A VM is given back when the VMM has closed its fd and those of all its vCPUs; a vCPU when its fd
 * is closed. The library's duplicates would keep it alive otherwise. What is closed by other means
 * than close() (close_range(), dup2() over it) is noticed when the number is used again.
 *
 * What runs all the time, KVM_RUN and the close() of anything else, pays one comparison. close() is
 * async-signal-safe, and so must be what is done in it. Memory is allocated under our lock, and the
 * signal handler that closes may have interrupted malloc(): so it never waits for the lock. Where
 * it cannot have it, it marks the fd, and whoever has the lock does the rest when he lets go of it.
 */
#include <dlfcn.h>
#include <errno.h>
#include <linux/kcmp.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kvmstats/handoff.h"

#define EXPORT      __attribute__((visibility("default")))
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
/* Kept out of the way of what runs all the time. */
#define SELDOM __attribute__((noinline, cold))

enum {
    /* Numbers of fds that can be watched: the kernel's default of fs.nr_open. */
    WATCHED_FDS_MAX = 1 << 20,
    BITS = 64,
    VM_ITSELF = -1,
};

/* A VM's or a vCPU's fd that the VMM has open. */
struct watched {
    int fd;
    int64_t vcpu; /* VM_ITSELF, or its id */
    uint64_t vm;  /* the library's number */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* Guarded by `lock`: */
static struct kvmstatd_handoff *handoff; /* NULL: not yet, or in vain */
static struct watched *table;
static size_t n_table, table_capacity;
static bool forks_watched;
static sigset_t before_fork;

/* Which fds stand in the table. Written under `lock`, read by any. */
static _Atomic uint64_t watched_fds[WATCHED_FDS_MAX / BITS];
/* Which of them have been closed by one who could not have the lock, and that there are any. A word
 * for that, since riscv64's compilers exchange bytes by libatomic, which we don't want to need. */
static _Atomic uint64_t closed_fds[WATCHED_FDS_MAX / BITS];
static atomic_uint any_closed;
static _Atomic pid_t owner; /* whose `handoff` is */

static int first_ioctl(int fd, unsigned long request, ...);
static int first_close(int fd);
static int (*_Atomic real_ioctl)(int fd, unsigned long request, ...) = first_ioctl;
static int (*_Atomic real_close)(int fd) = first_close;

/* --- what is before us --- */

static void resolve(void)
{
    /* POSIX's way of saying that a pointer to data is one to a function. */
    int (*next_ioctl)(int, unsigned long, ...);
    int (*next_close)(int);
    *(void **)&next_ioctl = dlsym(RTLD_NEXT, "ioctl");
    *(void **)&next_close = dlsym(RTLD_NEXT, "close");
    if (next_ioctl)
        real_ioctl = next_ioctl;
    if (next_close)
        real_close = next_close;
}

/* Before that, only other libraries' constructors run. */
__attribute__((constructor)) static void start(void)
{
    resolve();
}

static int first_ioctl(int fd, unsigned long request, ...)
{
    va_list args;
    va_start(args, request);
    void *argument = va_arg(args, void *);
    va_end(args);
    resolve();
    if (real_ioctl != first_ioctl)
        return real_ioctl(fd, request, argument);
    return (int)syscall(SYS_ioctl, fd, request, argument);
}

static int first_close(int fd)
{
    resolve();
    return real_close != first_close ? real_close(fd) : (int)syscall(SYS_close, fd);
}

/* --- the table --- */

static bool has(const _Atomic uint64_t *fds, int fd)
{
    if ((unsigned)fd >= WATCHED_FDS_MAX)
        return false;
    return atomic_load_explicit(&fds[fd / BITS], memory_order_relaxed) >> (fd % BITS) & 1;
}

static void set(_Atomic uint64_t *fds, int fd)
{
    atomic_fetch_or(&fds[fd / BITS], UINT64_C(1) << (fd % BITS));
}

static void clear(_Atomic uint64_t *fds, int fd)
{
    atomic_fetch_and(&fds[fd / BITS], ~(UINT64_C(1) << (fd % BITS)));
}

static const struct watched *find(int fd)
{
    for (size_t i = 0; i < n_table; i++) {
        if (table[i].fd == fd)
            return &table[i];
    }
    return NULL;
}

static bool make_room(void)
{
    if (n_table < table_capacity)
        return true;
    size_t larger = table_capacity ? table_capacity * 2 : 16;
    struct watched *moved = reallocarray(table, larger, sizeof *moved);
    if (!moved)
        return false;
    table = moved;
    table_capacity = larger;
    return true;
}

/* The fd is no more: gives back what that means. */
static void forget(int fd)
{
    const struct watched *found = find(fd);
    if (!found)
        return;
    struct watched gone = *found;
    bool last = true;
    table[found - table] = table[--n_table];
    clear(watched_fds, fd);
    clear(closed_fds, fd);
    for (size_t i = 0; i < n_table; i++)
        last = last && table[i].vm != gone.vm;
    if (last)
        (void)kvmstatd_handoff_vm_gone(handoff, gone.vm);
    else if (gone.vcpu != VM_ITSELF)
        (void)kvmstatd_handoff_vcpu_gone(handoff, gone.vm, (uint32_t)gone.vcpu);
}

/* There is room for it. */
static void watch(int fd, uint64_t vm, int64_t vcpu)
{
    table[n_table++] = (struct watched){.fd = fd, .vcpu = vcpu, .vm = vm};
    set(watched_fds, fd);
}

/* What was closed while we had the lock. */
static void forget_closed(void)
{
    if (!atomic_exchange(&any_closed, 0))
        return;
    for (size_t i = 0; i < n_table;) {
        if (has(closed_fds, table[i].fd))
            forget(table[i].fd); /* another takes its place */
        else
            i++;
    }
}

/* --- the lock, and what the VMM must not notice --- */

struct guard {
    int error, cancel_state;
    sigset_t before;
};

static void guard_begin(struct guard *guard)
{
    sigset_t all;
    guard->error = errno;
    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &guard->cancel_state);
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &guard->before);
}

static void guard_end(const struct guard *guard)
{
    (void)pthread_sigmask(SIG_SETMASK, &guard->before, NULL);
    (void)pthread_setcancelstate(guard->cancel_state, NULL);
    errno = guard->error;
}

/* Whoever marks after our last look finds the lock free, or leaves it to the next holder. */
static void let_go(void)
{
    do {
        forget_closed();
        (void)pthread_mutex_unlock(&lock);
    } while (atomic_load(&any_closed) && pthread_mutex_trylock(&lock) == 0);
}

static void enter(struct guard *guard)
{
    guard_begin(guard);
    (void)pthread_mutex_lock(&lock);
    forget_closed();
}

static void leave(const struct guard *guard)
{
    let_go();
    guard_end(guard);
}

/* --- fork: the child has no VM --- */

static void before_forking(void)
{
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    (void)pthread_mutex_lock(&lock);
    before_fork = before;
}

static void after_fork_in_parent(void)
{
    sigset_t before = before_fork;
    let_go();
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void after_fork_in_child(void)
{
    sigset_t before = before_fork;
    for (size_t i = 0; i < n_table; i++) {
        clear(watched_fds, table[i].fd);
        clear(closed_fds, table[i].fd);
    }
    n_table = 0;
    any_closed = 0;
    kvmstatd_handoff_close(handoff);
    handoff = NULL;
    (void)pthread_mutex_unlock(&lock);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* --- following the VMM --- */

/*
 * Connects with the first VM: early, for a VMM may confine itself later. Returns whether there is
 * something to give to. A child of vfork() shares our memory but has fds of its own: it is not the
 * owner, and nothing is done for it.
 */
static bool is_ready(void)
{
    if (handoff)
        return owner == getpid();
    if (kvmstatd_handoff_connect(NULL, &handoff) < 0)
        return false;
    owner = getpid();
    /* After the library's, so that our lock is taken before its own there, as it is elsewhere. */
    if (!forks_watched)
        forks_watched =
            pthread_atfork(before_forking, after_fork_in_parent, after_fork_in_child) == 0;
    return true;
}

static const struct watched *give_vm(int fd)
{
    uint64_t vm;
    if (!make_room() || kvmstatd_handoff_vm(handoff, fd, NULL, NULL, &vm) < 0)
        return NULL;
    watch(fd, vm, VM_ITSELF);
    return &table[n_table - 1];
}

/* A VM's fd that the VMM has duplicated is watched too. NULL: it is none, or kcmp() is forbidden.
 */
static const struct watched *find_duplicate(int fd)
{
    pid_t pid = getpid();
    for (size_t i = 0; i < n_table; i++) {
        if (table[i].vcpu != VM_ITSELF || syscall(SYS_kcmp, pid, pid, KCMP_FILE, (unsigned long)fd,
                                                  (unsigned long)table[i].fd) != 0)
            continue;
        uint64_t number = table[i].vm;
        if (!make_room())
            return NULL;
        watch(fd, number, VM_ITSELF);
        return &table[n_table - 1];
    }
    return NULL;
}

static void give_vcpu(int vm_fd, uint32_t id, int fd)
{
    const struct watched *vm = find(vm_fd);
    if (!vm)
        vm = find_duplicate(vm_fd);
    if (!vm)
        vm = give_vm(vm_fd); /* the VM was made where we could not see it */
    if (!vm)
        return;
    uint64_t number = vm->vm;
    if (make_room() && kvmstatd_handoff_vcpu(handoff, number, id, fd) == 0)
        watch(fd, number, id);
}

static SELDOM void vm_created(int fd)
{
    struct guard guard;
    enter(&guard);
    if ((unsigned)fd < WATCHED_FDS_MAX && is_ready()) {
        forget(fd);
        (void)give_vm(fd);
    }
    leave(&guard);
}

static SELDOM void vcpu_created(int vm_fd, uint32_t id, int fd)
{
    struct guard guard;
    enter(&guard);
    if ((unsigned)fd < WATCHED_FDS_MAX && (unsigned)vm_fd < WATCHED_FDS_MAX && is_ready()) {
        forget(fd);
        give_vcpu(vm_fd, id, fd);
    }
    leave(&guard);
}

/* A child of vfork() shares our memory but not our fds: what it closes is not closed. */
static SELDOM void closing(int fd)
{
    struct guard guard;
    guard_begin(&guard);
    if (owner == getpid()) {
        set(closed_fds, fd);
        any_closed = 1;
        if (pthread_mutex_trylock(&lock) == 0)
            let_go();
    }
    guard_end(&guard);
}

/* --- what the VMM calls --- */

static SELDOM int creating_ioctl(int fd, unsigned long request, void *argument)
{
    int result = real_ioctl(fd, request, argument);
    if (result >= 0 && request == KVM_CREATE_VM)
        vm_created(result);
    else if (result >= 0)
        vcpu_created(fd, (uint32_t)(uintptr_t)argument, result);
    return result;
}

EXPORT int ioctl(int fd, unsigned long request, ...)
{
    va_list args;
    va_start(args, request);
    void *argument = va_arg(args, void *);
    va_end(args);
    /* 0xae01 and 0xae41 */
    _Static_assert((KVM_CREATE_VCPU & ~0x40) == KVM_CREATE_VM, "one comparison for both");
    if (!UNLIKELY((request & ~0x40UL) == KVM_CREATE_VM))
        return atomic_load_explicit(&real_ioctl, memory_order_relaxed)(fd, request, argument);

    return creating_ioctl(fd, request, argument);
}

EXPORT int close(int fd)
{
    if (UNLIKELY(has(watched_fds, fd)))
        closing(fd);
    return atomic_load_explicit(&real_close, memory_order_relaxed)(fd);
}
