/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time. Inside the daemon there is one time: nanoseconds of CLOCK_MONOTONIC, in an int64_t whose
 * name ends in _ns. Wall time appears only where something leaves the process.
 */
#pragma once

#include <stdint.h>
#include <time.h>

#define NSEC_PER_USEC INT64_C(1000)
#define NSEC_PER_MSEC INT64_C(1000000)
#define NSEC_PER_SEC  INT64_C(1000000000)

static inline int64_t clock_read_ns(clockid_t id)
{
    struct timespec ts;
    (void)clock_gettime(id, &ts); /* cannot fail for the clocks used here */
    return (int64_t)ts.tv_sec * NSEC_PER_SEC + ts.tv_nsec;
}

static inline int64_t clock_now_ns(void)
{
    return clock_read_ns(CLOCK_MONOTONIC);
}

/* What to add to a monotonic time to get nanoseconds since the epoch, as the wall clock stands now.
 */
static inline int64_t clock_wall_offset_ns(void)
{
    int64_t mono = clock_now_ns();
    return clock_read_ns(CLOCK_REALTIME) - mono;
}
