/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time is cut into buckets at multiples of their span, whatever the times of observations, so that
 * ticks may be late, missing, or come at another interval: nothing depends on it. The maximum over
 * all buckets is kept with each series. An observation costs a compare; when a bucket goes, only
 * those series are looked at again whose maximum it held.
 *
 * The slack of a bucket need not cover the interval of ticks, although an observation is about the
 * time since the tick before: what counts is when readers can see it, and that is at once.
 */
#include "window.h"

int windows_new(int64_t window_ns, uint32_t n_series, struct windows **ret_windows)
{
    size_t cells = (size_t)n_series * (WINDOW_BUCKETS + 1);
    struct windows *windows = calloc(1, sizeof *windows + cells * sizeof(uint64_t));
    if (!windows)
        return -ENOMEM;
    atomic_init(&windows->refs, 1);
    windows->span_ns = (window_ns - 1) / WINDOW_PARTS + 1;
    windows->n_series = n_series;
    windows->open_end_ns = INT64_MIN;
    windows->until_ns = INT64_MIN;
    /* Behind each other in one piece: what a tick touches are the first cells and one bucket. */
    windows->high = (_Atomic uint64_t *)(windows + 1);
    windows->buckets = (uint64_t *)(windows + 1) + n_series;
    *ret_windows = windows;
    return 0;
}

struct windows *windows_ref(struct windows *windows)
{
    atomic_fetch_add_explicit(&windows->refs, 1, memory_order_relaxed);
    return windows;
}

void windows_free(struct windows *windows)
{
    if (windows && atomic_fetch_sub_explicit(&windows->refs, 1, memory_order_acq_rel) == 1)
        free(windows);
}

static uint64_t highest(const struct windows *windows, uint32_t series, uint64_t bound)
{
    uint64_t high = WINDOW_NOTHING;
    for (uint32_t i = 0; i < WINDOW_BUCKETS; i++) {
        uint64_t key = windows->buckets[(size_t)i * windows->n_series + series];
        if (key > high)
            high = key;
        if (high >= bound)
            break; /* a quiet series has the same key in every bucket */
    }
    return high;
}

/* The bucket after the open one, which is the oldest, becomes the open one. */
static void open_next(struct windows *windows)
{
    windows->open = windows->open + 1 == WINDOW_BUCKETS ? 0 : windows->open + 1;
    uint64_t *row = &windows->buckets[(size_t)windows->open * windows->n_series];
    for (uint32_t i = 0; i < windows->n_series; i++) {
        uint64_t gone = row[i];
        row[i] = WINDOW_NOTHING;
        uint64_t high = atomic_load_explicit(&windows->high[i], memory_order_relaxed);
        if (gone && gone == high)
            atomic_store_explicit(&windows->high[i], highest(windows, i, gone),
                                  memory_order_relaxed);
    }
}

void windows_slide(struct windows *windows, int64_t now_ns)
{
    int64_t end_ns = (now_ns / windows->span_ns + 1) * windows->span_ns;
    /* Times are of CLOCK_MONOTONIC, not negative; the first time opens any bucket. */
    int64_t steps = WINDOW_BUCKETS;
    if (windows->open_end_ns != INT64_MIN)
        steps = MIN_OF((end_ns - windows->open_end_ns) / windows->span_ns, steps);
    for (int64_t i = 0; i < steps; i++)
        open_next(windows);
    windows->open_end_ns = end_ns;
}
