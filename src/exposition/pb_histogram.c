/* SPDX-License-Identifier: Apache-2.0 */
#include "pb_histogram.h"

enum {
    /* Tag and length of the metric and of its histogram. */
    FRAME_ROOM = 2 * (1 + PB_VARINT_MAX),
    /* All of a native histogram but its deltas. */
    NATIVE_FIXED_ROOM = 128,
    BUCKET_ROOM = 2 + 1 + PB_VARINT_MAX + PB_DOUBLE_FIELD,
};

/* The tags and lengths of a metric with a histogram of `len` bytes, and its labels. */
static char *put_frame(char *to, const char *labels, size_t labels_len, size_t len)
{
    to = pb_put_field(to, PB_FAMILY_METRIC, labels_len + 1 + pb_varint_bytes(len) + len);
    to = mempcpy(to, labels, labels_len);
    return pb_put_field(to, PB_METRIC_HISTOGRAM, len);
}

size_t native_room(size_t labels_len, const struct native_buckets *b)
{
    return FRAME_ROOM + labels_len + NATIVE_FIXED_ROOM + b->n * PB_VARINT_MAX;
}

/*
 * One span from the first bucket that is not empty to the last: buckets between them that are empty
 * cost a byte or two each, and who reads it splits spans as it likes. Where all are empty there is
 * a span of none, which says that this is a native histogram to those who look for one.
 */
static char *put_span(char *to, int32_t first, size_t n)
{
    if (n == 0)
        return pb_put_field(to, PB_HISTOGRAM_POSITIVE_SPAN, 0);
    uint64_t offset = pb_zigzag(first);
    to = pb_put_field(to, PB_HISTOGRAM_POSITIVE_SPAN,
                      2 + pb_varint_bytes(offset) + pb_varint_bytes(n));
    to = pb_put_field(to, PB_SPAN_OFFSET, offset);
    return pb_put_field(to, PB_SPAN_LENGTH, n);
}

char *native_put(char *to, const char *labels, size_t labels_len, const struct native_buckets *b,
                 double sum)
{
    size_t from = 0, end = b->n;
    while (from < end && b->counts[from] == 0)
        from++;
    while (end > from && b->counts[end - 1] == 0)
        end--;

    /* Lengths come first, so the deltas are written further on, and moved when all is known. */
    char *deltas = to + FRAME_ROOM + labels_len + NATIVE_FIXED_ROOM, *deltas_end = deltas;
    uint64_t count = b->zero_count, before = 0;
    for (size_t i = from; i < end; i++) {
        deltas_end = pb_put_any_varint(deltas_end, pb_zigzag((int64_t)(b->counts[i] - before)));
        before = b->counts[i];
        count += before;
    }
    size_t deltas_len = (size_t)(deltas_end - deltas);

    char fixed[NATIVE_FIXED_ROOM], *at = fixed;
    at = pb_put_field(at, PB_HISTOGRAM_COUNT, count);
    at = pb_put_double(at, PB_HISTOGRAM_SUM, sum);
    at = pb_put_field(at, PB_HISTOGRAM_SCHEMA, pb_zigzag(b->schema));
    at = pb_put_double(at, PB_HISTOGRAM_ZERO_THRESHOLD, b->zero_threshold);
    at = pb_put_field(at, PB_HISTOGRAM_ZERO_COUNT, b->zero_count);
    at = put_span(at, b->first + (int32_t)from, end - from);
    if (deltas_len)
        at = pb_put_field(at, PB_HISTOGRAM_POSITIVE_DELTA, deltas_len);
    size_t fixed_len = (size_t)(at - fixed);

    to = put_frame(to, labels, labels_len, fixed_len + deltas_len);
    to = mempcpy(to, fixed, fixed_len);
    memmove(to, deltas, deltas_len);
    return to + deltas_len;
}

int native_shift(uint8_t base, int16_t exponent)
{
    /* log2(10) as a fraction: good for far more than the 256 that an exponent can be. */
    const int64_t numerator = 3321928094887362, denominator = 1000000000000000;
    if (base != KVMSTATS_BASE_POW10)
        return exponent;
    int64_t scaled = exponent * numerator;
    int64_t half = scaled < 0 ? -denominator / 2 : denominator / 2;
    return (int)((scaled + half) / denominator);
}

double native_zero_threshold(int shift)
{
    /* What client libraries use, unless buckets reach below it. */
    return pb_power_of_2(MIN_OF(shift, -128));
}

size_t classic_room(size_t labels_len, const struct classic_buckets *b)
{
    return FRAME_ROOM + labels_len + 1 + PB_VARINT_MAX + PB_DOUBLE_FIELD + b->n * BUCKET_ROOM;
}

static size_t bucket_bytes(uint64_t seen)
{
    return 1 + pb_varint_bytes(seen) + PB_DOUBLE_FIELD;
}

char *classic_put(char *to, const char *labels, size_t labels_len, const struct classic_buckets *b,
                  double sum)
{
    uint64_t count = 0;
    size_t len = 0;
    for (size_t i = 0; i < b->n; i++) {
        count += b->counts[i];
        len += 2 + bucket_bytes(count); /* a bucket's length is below 128: one byte */
    }
    count += b->counts[b->n];
    len += 1 + pb_varint_bytes(count) + PB_DOUBLE_FIELD;

    to = put_frame(to, labels, labels_len, len);
    to = pb_put_field(to, PB_HISTOGRAM_COUNT, count);
    to = pb_put_double(to, PB_HISTOGRAM_SUM, sum);
    /* The bucket without a bound is not written: it has the count. */
    uint64_t seen = 0;
    for (size_t i = 0; i < b->n; i++) {
        seen += b->counts[i];
        to = pb_put_field(to, PB_HISTOGRAM_BUCKET, bucket_bytes(seen));
        to = pb_put_field(to, PB_BUCKET_COUNT, seen);
        to = pb_put_double(to, PB_BUCKET_BOUND, b->bounds[i]);
    }
    return to;
}
