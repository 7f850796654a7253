/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sliding maxima in constant memory: "the highest value of the last 15 s" of several series that
 * are observed at the same times. Whoever reads at intervals no longer than the window sees every
 * observation: a value stays for at least the window and a thirtieth more (the slack is for a
 * scraper's jitter), and for at most the window, two thirtieths and the time to the next ageing.
 *
 * Values are keys: unsigned integers that keep the order of what they stand for, so that a minimum
 * is a maximum of other keys and no integer goes through a double. Key 0 is "nothing was observed
 * in the window", which is not a value of zero.
 *
 * THREADS: one writer; any number of readers, by windows_read() only, which takes no lock.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#include "cleanup.h"

enum {
    WINDOW_PARTS = 30,                 /* the span of a bucket is this part of the window */
    WINDOW_BUCKETS = WINDOW_PARTS + 2, /* the slack, and the one that is being filled */
};

#define WINDOW_NOTHING UINT64_C(0)

/* A rate or ratio: finite, not negative. The order of such doubles is that of their bits. */
static inline uint64_t window_key_of_double(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits + 1;
}

static inline double window_double_of_key(uint64_t key)
{
    uint64_t bits = key - 1;
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* A gauge whose highest value is wanted. The one value that has no key counts as that below it. */
static inline uint64_t window_key_of_high(uint64_t value)
{
    return value == UINT64_MAX ? value : value + 1;
}

static inline uint64_t window_high_of_key(uint64_t key)
{
    return key - 1;
}

/* The same where the lowest is wanted. */
static inline uint64_t window_key_of_low(uint64_t value)
{
    return value == UINT64_MAX ? 1 : UINT64_MAX - value;
}

static inline uint64_t window_low_of_key(uint64_t key)
{
    return UINT64_MAX - key;
}

/* One window over `n_series` series. */
struct windows {
    atomic_uint refs;
    /* immutable */
    int64_t span_ns; /* of a bucket */
    uint32_t n_series;
    /* THREADS: the writer */
    uint32_t open;            /* the bucket that is being filled; the oldest follows it, round */
    int64_t open_end_ns;      /* when it ends; a multiple of span_ns */
    uint64_t *buckets;        /* WINDOW_BUCKETS × n_series, one bucket after another */
    _Atomic uint64_t *high;   /* n_series: the maximum of all buckets; readers look at it */
    _Atomic int64_t until_ns; /* until when readers may believe `high` */
};

/* window_ns > 0. Returns 0 or -ENOMEM. */
MUST_USE int windows_new(int64_t window_ns, uint32_t n_series, struct windows **ret_windows);
struct windows *windows_ref(struct windows *windows);
/* Lets go of a reference; the last one frees. */
void windows_free(struct windows *windows);
DEFINE_CLEANUP(struct windows *, windows_free)

/*
 * THREADS: the writer. Brings the windows to `now_ns` (which never falls): what is too old goes. To
 * be called before the observations of a time, and also when there are none, as long as the series
 * are wanted: a target that is not readable any more must not keep its last peak. Readers believe
 * what they see until `until_ns`: the writer's promise to have been here again.
 */
void windows_slide(struct windows *windows, int64_t now_ns);

static inline void windows_age(struct windows *windows, int64_t now_ns, int64_t until_ns)
{
    if (now_ns >= windows->open_end_ns)
        windows_slide(windows, now_ns);
    atomic_store_explicit(&windows->until_ns, until_ns, memory_order_relaxed);
}

/* THREADS: the writer. Counts as of the time of the newest windows_age(). */
static inline void windows_add(struct windows *windows, uint32_t series, uint64_t key)
{
    uint64_t *cell = &windows->buckets[(size_t)windows->open * windows->n_series + series];
    if (key <= *cell)
        return;
    *cell = key;
    if (key > atomic_load_explicit(&windows->high[series], memory_order_relaxed))
        atomic_store_explicit(&windows->high[series], key, memory_order_relaxed);
}

/* THREADS: any. The highest key in the window; WINDOW_NOTHING: no observation, or nobody aged it.
 */
static inline uint64_t windows_read(const struct windows *windows, uint32_t series, int64_t now_ns)
{
    if (now_ns > atomic_load_explicit(&windows->until_ns, memory_order_relaxed))
        return WINDOW_NOTHING;
    return atomic_load_explicit(&windows->high[series], memory_order_relaxed);
}
