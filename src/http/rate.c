/* SPDX-License-Identifier: Apache-2.0 */
#include "rate.h"

#include "clock.h"

void rate_init(struct rate *rate)
{
    (void)pthread_mutex_init(&rate->lock, NULL);
    rate->full_ns = 0;
}

void rate_deinit(struct rate *rate)
{
    (void)pthread_mutex_destroy(&rate->lock);
}

bool rate_take(struct rate *rate, int64_t interval_ns, uint32_t burst, int64_t now_ns)
{
    int64_t room_ns, full_ns;
    if (interval_ns == 0)
        return true;
    if (__builtin_mul_overflow(interval_ns, (int64_t)burst, &room_ns))
        room_ns = INT64_MAX;
    (void)pthread_mutex_lock(&rate->lock);
    /* Of a bucket that was changed meanwhile no more can be missing than what it holds. */
    bool overflows = __builtin_add_overflow(MAX_OF(rate->full_ns, now_ns), interval_ns, &full_ns);
    bool taken = !overflows && full_ns - now_ns <= room_ns;
    if (taken)
        rate->full_ns = full_ns;
    else if (rate->full_ns - now_ns > room_ns)
        rate->full_ns = now_ns + room_ns;
    (void)pthread_mutex_unlock(&rate->lock);
    return taken;
}
