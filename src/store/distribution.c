/* SPDX-License-Identifier: Apache-2.0 */
#include "distribution.h"

#include <math.h>

#define DECADE(power) 1e##power, 2e##power, 5e##power
#define TENTHS(power) 1e-##power, 2e-##power, 5e-##power

const struct distribution_range distribution_of_counts = {
    .first_power10 = 0,
    .first_power2 = -8,
    .zero_threshold = 0x1p-8,
    .bounds = {DECADE(0), DECADE(1), DECADE(2), DECADE(3), DECADE(4), DECADE(5), DECADE(6), 1e7},
};
const struct distribution_range distribution_of_ratios = {
    .first_power10 = -4,
    .first_power2 = -24,
    .zero_threshold = 0x1p-24,
    .bounds = {TENTHS(4), TENTHS(3), TENTHS(2), TENTHS(1), DECADE(0), DECADE(1), DECADE(2), 1e3},
};
const struct distribution_range distribution_of_large = {
    .first_power10 = 3,
    .first_power2 = 0,
    .zero_threshold = 0x1p0,
    .bounds = {DECADE(3), DECADE(4), DECADE(5), DECADE(6), DECADE(7), DECADE(8), DECADE(9), 1e10},
};

int distribution_new(const struct distribution_range *range, struct distribution **ret_distribution)
{
    struct distribution *distribution = calloc(1, sizeof *distribution);
    if (!distribution)
        return -ENOMEM;
    atomic_init(&distribution->refs, 1);
    distribution->range = range;
    *ret_distribution = distribution;
    return 0;
}

struct distribution *distribution_ref(struct distribution *distribution)
{
    atomic_fetch_add_explicit(&distribution->refs, 1, memory_order_relaxed);
    return distribution;
}

void distribution_unref(struct distribution *distribution)
{
    if (distribution &&
        atomic_fetch_sub_explicit(&distribution->refs, 1, memory_order_acq_rel) == 1)
        free(distribution);
}

unsigned distribution_bound(const struct distribution_range *range, unsigned i, int *ret_power10)
{
    static const uint8_t steps[] = {1, 2, 5};
    *ret_power10 = range->first_power10 + (int)(i / ARRAY_LEN(steps));
    return steps[i % ARRAY_LEN(steps)];
}

/* There is one writer: a plain addition, only stored whole. */
static void count(_Atomic uint64_t *cell)
{
    atomic_store_explicit(cell, atomic_load_explicit(cell, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

static unsigned classic_bucket(const struct distribution_range *range, double value)
{
    unsigned bucket = 0;
    for (unsigned i = 0; i < DISTRIBUTION_BOUNDS; i++)
        bucket += value > range->bounds[i]; /* no branch to mispredict, and several at a time */
    return bucket;
}

/* The native bucket of a value over 2^first_power2. */
static uint32_t native_bucket(double value, int first_power2)
{
    /* 2^(i/8 - 1): the bounds within an octave, in the range of frexp(). */
    static const double bounds[DISTRIBUTION_PER_OCTAVE] = {
        0.5,
        0x1.172b83c7d517bp-1,
        0x1.306fe0a31b715p-1,
        0x1.4bfdad5362a27p-1,
        0x1.6a09e667f3bcdp-1,
        0x1.8ace5422aa0dbp-1,
        0x1.ae89f995ad3adp-1,
        0x1.d5818dcfba487p-1,
    };
    int exponent;
    double fraction = frexp(value, &exponent);
    uint32_t at = 0;
    for (unsigned i = 0; i < DISTRIBUTION_PER_OCTAVE; i++)
        at += fraction > bounds[i];
    /* A fraction of exactly 0.5 ends the octave below, which makes it -1: the value is over
     * 2^first_power2, so the whole is not negative. */
    int32_t bucket = (exponent - 1 - first_power2) * DISTRIBUTION_PER_OCTAVE + (int32_t)at - 1;
    return (uint32_t)MIN_OF(bucket, DISTRIBUTION_NATIVE - 1);
}

void distribution_observe(struct distribution *distribution, double value)
{
    const struct distribution_range *range = distribution->range;
    double sum = distribution_sum(distribution) + value;
    uint64_t bits;
    memcpy(&bits, &sum, sizeof bits);
    atomic_store_explicit(&distribution->sum, bits, memory_order_relaxed);
    count(&distribution->classic[classic_bucket(range, value)]);
    if (value <= range->zero_threshold)
        count(&distribution->zero);
    else
        count(&distribution->native[native_bucket(value, range->first_power2)]);
}
