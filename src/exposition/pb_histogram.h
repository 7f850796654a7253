/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Histograms in protobuf: classic ones, and Prometheus' native ones, whose buckets have no bounds
 * of their own: of schema s, bucket i holds what is above 2^((i-1) / 2^s) and at most 2^(i / 2^s).
 *
 * KVM's logarithmic histograms have one bucket for each power of two of their raw unit, mostly
 * nanoseconds; those of native schema 0 have one for each power of two of a second. So each of
 * KVM's becomes one native bucket, the one whose bounds are nearest, and all counts stay what they
 * are. With bounds in nanoseconds, 2^k ns is shown as 2^(k-30) s, which is 0.931 times as much; for
 * any power of ten it is within a factor of the square root of two, for powers of two it is exact.
 */
#pragma once

#include "protobuf.h"

struct native_buckets {
    int schema; /* -4 … 8 */
    double zero_threshold;
    uint64_t zero_count; /* of what is not above zero_threshold */
    int32_t first;       /* the number of the bucket that counts[0] is of */
    size_t n;
    const uint64_t *counts;
};

/* How many bytes native_put() may write, some only for a while. */
size_t native_room(size_t labels_len, const struct native_buckets *b);
/* A whole metric of a family. `labels` are encoded; `sum` may be pb_unknown(). */
char *native_put(char *to, const char *labels, size_t labels_len, const struct native_buckets *b,
                 double sum);

/* KVM's bucket k is native bucket k + shift of schema 0. */
int native_shift(uint8_t base, int16_t exponent);
/* A zero bucket that holds nothing but 0 and what could not be told from it. */
double native_zero_threshold(int shift);

struct classic_buckets {
    size_t n;               /* finite bounds */
    const double *bounds;   /* ascending */
    const uint64_t *counts; /* n + 1, not cumulative */
};
size_t classic_room(size_t labels_len, const struct classic_buckets *b);
char *classic_put(char *to, const char *labels, size_t labels_len, const struct classic_buckets *b,
                  double sum);
