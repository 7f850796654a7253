/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls that take as long as they like, made by threads that must go on: the C library's lookups
 * of users and hosts wait for other daemons and for networks, and take no deadline.
 */
#pragma once

#include <stdint.h>

#include "cleanup.h"

enum {
    /* That were given up and have not returned: something hangs, and one more would hang, too. */
    TIMED_CALLS_LEFT_MAX = 32,
};

/*
 * Calls work(data) on a thread of its own, which has that name and all signals blocked, and waits
 * for it until `until_ns` (clock_now_ns()). Returns 0: it has returned, and `data` is the caller's
 * again. Else `data` is the caller's no more, release(data) is called once `work` is through with
 * it: -ETIMEDOUT (it takes longer; or TIMED_CALLS_LEFT_MAX others do, and it was not begun) or what
 * pthread_create() said. A call that is given up may go on to the process's end, so `work` touches
 * nothing that ends earlier.
 */
MUST_USE int timed_call(const char *name, void (*work)(void *data), void (*release)(void *data),
                        void *data, int64_t until_ns);
