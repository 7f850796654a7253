/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For LD_PRELOAD under a program that is tested: makes what hardly ever fails fail. The file that
 * KVMSTATD_TEST_FAULTS names is mapped; whoever writes into it decides, at any time:
 *
 *     offset 0, 32 bits   of 65536 allocations as many fail, by a fixed sequence
 *     offset 8, 64 bits   nanoseconds that CLOCK_REALTIME is ahead
 *     offset 16, 64 bits  how many allocations have failed (written here)
 *     offset 24, 64 bits  how many there are at the moment, but for those of the very start (here)
 *     offset 32, 64 bits  their bytes, as the allocator has rounded them up (here)
 *     offset 40, 32 bits  whether lookups of users and hosts hang, for as long as it is not 0
 *     offset 44, 32 bits  how many there have been (here)
 *     offset 48, 64 bits  the effective capabilities of the threads that made them (here)
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <malloc.h>
#include <netdb.h>
#include <pwd.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct faults {
    _Atomic uint32_t allocations_failing;
    uint32_t unused;
    _Atomic int64_t realtime_ahead_ns;
    _Atomic uint64_t allocations_failed;
    _Atomic int64_t live, live_bytes;
    _Atomic uint32_t lookups_hang, lookups;
    _Atomic uint64_t lookups_capabilities;
};

static _Atomic(struct faults *) faults;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("KVMSTATD_TEST_FAULTS");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *map = mmap(NULL, sizeof(struct faults), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    (void)close(fd);
    if (map == MAP_FAILED)
        return;
    atomic_store(&faults, map);
    /* Those of programs that have become this one are not meant. */
    atomic_store(&((struct faults *)map)->lookups, 0);
    atomic_store(&((struct faults *)map)->lookups_capabilities, 0);
}

static int fails(void)
{
    static _Atomic uint64_t calls;
    struct faults *f = atomic_load_explicit(&faults, memory_order_relaxed);
    uint32_t of_65536 = f ? atomic_load_explicit(&f->allocations_failing, memory_order_relaxed) : 0;
    if (!of_65536)
        return 0;
    /* Weyl's sequence: spread evenly, whatever the pattern of the calls. */
    uint64_t at = atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed) * 40503u;
    if ((at & 0xffff) >= of_65536)
        return 0;
    atomic_fetch_add_explicit(&f->allocations_failed, 1, memory_order_relaxed);
    errno = ENOMEM;
    return 1;
}

extern void *__libc_malloc(size_t bytes);
extern void *__libc_calloc(size_t n, size_t bytes);
extern void *__libc_realloc(void *old, size_t bytes);
extern void *__libc_memalign(size_t alignment, size_t bytes);
extern void __libc_free(void *p);

/* `sign` is 1 for what has come and -1 for what is about to go. */
static void count(void *p, int sign)
{
    struct faults *f = atomic_load_explicit(&faults, memory_order_relaxed);
    if (!f || !p)
        return;
    int64_t bytes = (int64_t)malloc_usable_size(p);
    atomic_fetch_add_explicit(&f->live, sign, memory_order_relaxed);
    atomic_fetch_add_explicit(&f->live_bytes, sign * bytes, memory_order_relaxed);
}

static void *counted(void *p)
{
    count(p, 1);
    return p;
}

void *malloc(size_t bytes)
{
    return fails() ? NULL : counted(__libc_malloc(bytes));
}

void *calloc(size_t n, size_t bytes)
{
    return fails() ? NULL : counted(__libc_calloc(n, bytes));
}

void *realloc(void *old, size_t bytes)
{
    if (fails())
        return NULL;
    count(old, -1);
    void *p = __libc_realloc(old, bytes);
    /* One that has failed leaves the old one; one to nothing frees it. */
    count(p || bytes == 0 ? p : old, 1);
    return p;
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
    return fails() ? NULL : counted(__libc_memalign(alignment, bytes));
}

int posix_memalign(void **ret_p, size_t alignment, size_t bytes)
{
    void *p = aligned_alloc(alignment, bytes);
    if (!p)
        return ENOMEM;
    *ret_p = p;
    return 0;
}

void free(void *p)
{
    count(p, -1);
    __libc_free(p);
}

void *mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    if ((flags & MAP_ANONYMOUS) && !(flags & MAP_STACK) && fails())
        return MAP_FAILED;
    long r = syscall(SYS_mmap, at, bytes, protection, flags, fd, offset);
    return (void *)(uintptr_t)r; /* -1 is MAP_FAILED */
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static _Atomic(int (*)(clockid_t, struct timespec *)) real;
    int (*next)(clockid_t, struct timespec *) = atomic_load(&real);
    if (!next) {
        *(void **)&next = dlsym(RTLD_NEXT, "clock_gettime");
        atomic_store(&real, next);
    }
    int r = next(clock, now);
    const struct faults *f = atomic_load_explicit(&faults, memory_order_relaxed);
    if (r == 0 && f && clock == CLOCK_REALTIME) {
        int64_t ns = (int64_t)now->tv_sec * 1000000000 + now->tv_nsec +
                     atomic_load_explicit(&f->realtime_ahead_ns, memory_order_relaxed);
        now->tv_sec = (time_t)(ns / 1000000000);
        now->tv_nsec = (long)(ns % 1000000000);
    }
    return r;
}

static void look_up(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}};
    struct faults *f = atomic_load_explicit(&faults, memory_order_relaxed);
    if (!f)
        return;
    (void)syscall(SYS_capget, &header, data);
    atomic_fetch_or(&f->lookups_capabilities,
                    (uint64_t)data[1].effective << 32 | data[0].effective);
    atomic_fetch_add(&f->lookups, 1);
    while (atomic_load(&f->lookups_hang)) {
        const struct timespec pause = {.tv_nsec = 10000000};
        (void)nanosleep(&pause, NULL);
    }
}

int getpwnam_r(const char *name, struct passwd *entry, char *bytes, size_t size,
               struct passwd **ret_found)
{
    int (*next)(const char *, struct passwd *, char *, size_t, struct passwd **);
    *(void **)&next = dlsym(RTLD_NEXT, "getpwnam_r");
    look_up();
    return next(name, entry, bytes, size, ret_found);
}

int getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
                struct addrinfo **ret_found)
{
    int (*next)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    *(void **)&next = dlsym(RTLD_NEXT, "getaddrinfo");
    if (!hints || !(hints->ai_flags & AI_NUMERICHOST))
        look_up();
    return next(host, port, hints, ret_found);
}
