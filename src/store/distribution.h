/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How values are distributed: a cumulative histogram of rates (or ratios), twice. Once with the
 * bounds 1, 2, 5, 10 … that people read, and once as Prometheus' native histograms have it, eight
 * buckets to a doubling. It only ever grows, so any number of scrapers may read it at any time.
 *
 * THREADS: one writer, by distribution_observe(); any number of readers, by relaxed loads of the
 * cells. Cells of one observation may be seen one by one: a reader takes its count from the cells
 * it has read.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#include "cleanup.h"

enum {
    /* 1, 2, 5 of seven decades, and the first of the eighth. The last bucket is open. */
    DISTRIBUTION_BOUNDS = 22,
    DISTRIBUTION_CLASSIC = DISTRIBUTION_BOUNDS + 1,
    /* A native bucket ends 2^(2^-3) times above the one before it: schema 3. */
    DISTRIBUTION_SCHEMA = 3,
    DISTRIBUTION_PER_OCTAVE = 1 << DISTRIBUTION_SCHEMA,
    DISTRIBUTION_OCTAVES = 40,
    DISTRIBUTION_NATIVE = DISTRIBUTION_OCTAVES * DISTRIBUTION_PER_OCTAVE,
};

/* Which values are told apart. Immutable, static. */
struct distribution_range {
    int first_power10;     /* the lowest classic bound is 10^first_power10 */
    int first_power2;      /* native[0] begins above 2^first_power2 … */
    double zero_threshold; /* … which this is: values up to it are in `zero` */
    double bounds[DISTRIBUTION_BOUNDS];
};

extern const struct distribution_range
    distribution_of_counts, /* events a second: bounds 1 … 10^7, native 2^-8 … 2^32 */
    distribution_of_ratios, /* seconds a second: bounds 10^-4 … 10^3, native 2^-24 … 2^16 */
    distribution_of_large;  /* bytes or cycles a second: 10^3 … 10^10, native 2^0 … 2^40 */

struct distribution {
    atomic_uint refs;
    const struct distribution_range *range;
    _Atomic uint64_t sum; /* the bits of a double */
    /* Not cumulative: classic[i] counts what is over bound i - 1 and not over bound i. */
    _Atomic uint64_t classic[DISTRIBUTION_CLASSIC];
    /*
     * native[i] has the bucket index first_power2 * DISTRIBUTION_PER_OCTAVE + i + 1, so it counts
     * what is over 2^(first_power2 + i / 8) and not over 2^(first_power2 + (i + 1) / 8). The last
     * one also counts all that is beyond.
     */
    _Atomic uint64_t zero;
    _Atomic uint64_t native[DISTRIBUTION_NATIVE];
};

/* `range` is one of the three. Returns 0 or -ENOMEM. */
MUST_USE int distribution_new(const struct distribution_range *range,
                              struct distribution **ret_distribution);
struct distribution *distribution_ref(struct distribution *distribution);
void distribution_unref(struct distribution *distribution);
DEFINE_CLEANUP(struct distribution *, distribution_unref)

/* THREADS: the writer. `value` is finite and not negative. */
void distribution_observe(struct distribution *distribution, double value);

/* Classic bound i, exactly: 1, 2 or 5, which is returned, times 10^*ret_power10. */
unsigned distribution_bound(const struct distribution_range *range, unsigned i, int *ret_power10);

/* The index of native bucket i, as a native histogram counts them. */
static inline int32_t distribution_native_index(const struct distribution_range *range, uint32_t i)
{
    return range->first_power2 * DISTRIBUTION_PER_OCTAVE + (int32_t)i + 1;
}

static inline double distribution_sum(const struct distribution *distribution)
{
    uint64_t bits = atomic_load_explicit(&distribution->sum, memory_order_relaxed);
    double sum;
    memcpy(&sum, &bits, sizeof sum);
    return sum;
}
