/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ownership by scope. A variable declared with one of these macros is released when it goes out of
 * scope; steal_fd() and steal_ptr() hand it on instead. Every release function accepts "nothing".
 */
#pragma once

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define CLEANUP(fn)                     __attribute__((cleanup(fn)))
#define MUST_USE                        __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, first)         __attribute__((format(printf, fmt, first)))
#define ARRAY_LEN(a)                    (sizeof(a) / sizeof((a)[0]))
#define MAX_OF(a, b)                    ((a) > (b) ? (a) : (b))
#define MIN_OF(a, b)                    ((a) < (b) ? (a) : (b))
#define CONTAINER_OF(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

/* Closes fd if it is one, keeps errno, returns -1: `fd = fd_close(fd)`. */
static inline int fd_close(int fd)
{
    if (fd >= 0) {
        int saved = errno;
        (void)close(fd);
        errno = saved;
    }
    return -1;
}

static inline int steal_fd(int *fd)
{
    int taken = *fd;
    *fd = -1;
    return taken;
}

static inline void *steal_pointer(void *pp)
{
    void *taken = *(void **)pp;
    *(void **)pp = NULL;
    return taken;
}
#define steal_ptr(pp) ((__typeof__(*(pp)))steal_pointer(pp))

static inline void cleanup_fd_fn(int *fd)
{
    (void)fd_close(*fd);
}

static inline void cleanup_free_fn(void *pp)
{
    free(*(void **)pp);
}

#define CLEANUP_FD   CLEANUP(cleanup_fd_fn)
#define CLEANUP_FREE CLEANUP(cleanup_free_fn)

/* Declares cleanup_<fn>() for a release function that takes `type` (a pointer) and accepts NULL. */
#define DEFINE_CLEANUP(type, fn)             \
    static inline void cleanup_##fn(type *p) \
    {                                        \
        if (*p)                              \
            fn(*p);                          \
    }
