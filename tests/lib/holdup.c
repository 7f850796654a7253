/* SPDX-License-Identifier: Apache-2.0 */
#include "holdup.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "testing.h"

/* Filters calls of this thread alone. Returns the fd that is asked, or -1. */
static int filter_calls(int call, uint32_t argument)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)call, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                 offsetof(struct seccomp_data, args[0]) +
                     (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? sizeof(uint32_t) : 0)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, argument, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {sizeof filter / sizeof filter[0], filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return -1;
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER,
                        &program);
}

static void *let_go(void *arg)
{
    struct holdup *holdup = arg;
    struct seccomp_notif call = {0};
    bool done = false;
    while (!done && ioctl(holdup->listener, SECCOMP_IOCTL_NOTIF_RECV, &call) == 0) {
        struct seccomp_notif_resp go_on = {
            .id = call.id,
            .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE,
        };
        done = atomic_load(&holdup->done);
        if (!atomic_load(&holdup->let_go_ns)) {
            struct timespec now, pause = {.tv_sec = holdup->ms / 1000,
                                          .tv_nsec = (long)(holdup->ms % 1000) * 1000000};
            (void)nanosleep(&pause, NULL);
            (void)clock_gettime(CLOCK_MONOTONIC, &now);
            atomic_store(&holdup->let_go_ns, now.tv_sec * INT64_C(1000000000) + now.tv_nsec);
        }
        (void)ioctl(holdup->listener, SECCOMP_IOCTL_NOTIF_SEND, &go_on);
        call = (struct seccomp_notif){0};
    }
    return NULL;
}

void holdup_start(struct holdup *holdup, int call, uint32_t argument, unsigned ms)
{
    *holdup = (struct holdup){.ms = ms};
    holdup->listener = filter_calls(call, argument);
    if (holdup->listener < 0)
        testing_skip("this kernel has no filter of system calls that asks");
    ck_assert_int_eq(pthread_create(&holdup->thread, NULL, let_go, holdup), 0);
}

void holdup_stop(struct holdup *holdup, void (*make_call)(void *), void *arg)
{
    atomic_store(&holdup->done, true);
    make_call(arg);
    (void)pthread_join(holdup->thread, NULL);
    (void)close(holdup->listener);
}
