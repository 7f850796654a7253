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

/* What a file says may be anything: where sum or difference does not fit, it is some time or other.
 */
static inline int64_t clock_add_ns(int64_t a_ns, int64_t b_ns)
{
    return (int64_t)((uint64_t)a_ns + (uint64_t)b_ns);
}

static inline int64_t clock_since_ns(int64_t then_ns, int64_t now_ns)
{
    return (int64_t)((uint64_t)now_ns - (uint64_t)then_ns);
}

static inline int64_t clock_now_ns(void)
{
    return clock_read_ns(CLOCK_MONOTONIC);
}

/*
 * What to add to a monotonic time to get nanoseconds since the epoch, as the wall clock stands now.
 * The two clocks are read one after the other: where the thread lost the CPU in between, again.
 */
static inline int64_t clock_wall_offset_ns(void)
{
    int64_t offset_ns = 0, shortest_ns = INT64_MAX;
    for (int i = 0; i < 8 && shortest_ns > 10 * NSEC_PER_USEC; i++) {
        int64_t before_ns = clock_now_ns(), wall_ns = clock_read_ns(CLOCK_REALTIME);
        int64_t took_ns = clock_now_ns() - before_ns;
        if (took_ns < shortest_ns) {
            shortest_ns = took_ns;
            offset_ns = wall_ns - (before_ns + took_ns / 2);
        }
    }
    return offset_ns;
}
