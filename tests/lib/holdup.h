/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread that loses the CPU at the worst moment, on purpose: a filter of system calls stands in
 * for the host's scheduler. It holds up the first call of one kind, then lets all go on at once.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

struct holdup {
    pthread_t thread;
    int listener;
    unsigned ms;
    _Atomic int64_t
        let_go_ns; /* when the first call went on, by CLOCK_MONOTONIC; 0: none has come */
    atomic_bool done;
};

/*
 * From now on calls of this thread with this number and this first argument (its low 32 bits) are
 * held up, the first for `ms`. Skips the running test where the kernel has no such filter; at most
 * one a test.
 */
void holdup_start(struct holdup *holdup, int call, uint32_t argument, unsigned ms);
/* Ends it; `make_call` makes one more such call, on this thread. */
void holdup_stop(struct holdup *holdup, void (*make_call)(void *), void *arg);
