/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The wire format of protocol buffers, as much as Prometheus' exposition needs, and the messages of
 * io.prometheus.client (prometheus/client_model, io/prometheus/client/metrics.proto). All fields
 * used here have numbers below 16, so a tag is one byte. Integers of a fixed size are little-endian
 * on the wire, whatever this machine is.
 */
#pragma once

#include <endian.h>
#include <float.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "families.h"
#include "writer.h"

enum {
    PB_VARINT = 0,
    PB_FIXED64 = 1,
    PB_BYTES = 2,

    PB_VARINT_MAX = 10, /* bytes of 2^64 - 1 */
    PB_DOUBLE_FIELD = 1 + sizeof(uint64_t),
};

#define PB_TAG(number, wire) ((number) << 3 | (wire))

enum {
    PB_FAMILY_NAME = PB_TAG(1, PB_BYTES),
    PB_FAMILY_HELP = PB_TAG(2, PB_BYTES),
    PB_FAMILY_TYPE = PB_TAG(3, PB_VARINT),
    PB_FAMILY_METRIC = PB_TAG(4, PB_BYTES),
    PB_FAMILY_UNIT = PB_TAG(5, PB_BYTES),

    PB_TYPE_COUNTER = 0,
    PB_TYPE_GAUGE = 1,
    PB_TYPE_HISTOGRAM = 4,

    PB_METRIC_LABEL = PB_TAG(1, PB_BYTES),
    PB_METRIC_GAUGE = PB_TAG(2, PB_BYTES),
    PB_METRIC_COUNTER = PB_TAG(3, PB_BYTES),
    PB_METRIC_HISTOGRAM = PB_TAG(7, PB_BYTES),

    PB_LABEL_NAME = PB_TAG(1, PB_BYTES),
    PB_LABEL_VALUE = PB_TAG(2, PB_BYTES),

    PB_VALUE = PB_TAG(1, PB_FIXED64), /* of a counter and of a gauge */

    PB_HISTOGRAM_COUNT = PB_TAG(1, PB_VARINT),
    PB_HISTOGRAM_SUM = PB_TAG(2, PB_FIXED64),
    PB_HISTOGRAM_BUCKET = PB_TAG(3, PB_BYTES),
    PB_HISTOGRAM_SCHEMA = PB_TAG(5, PB_VARINT),
    PB_HISTOGRAM_ZERO_THRESHOLD = PB_TAG(6, PB_FIXED64),
    PB_HISTOGRAM_ZERO_COUNT = PB_TAG(7, PB_VARINT),
    PB_HISTOGRAM_POSITIVE_SPAN = PB_TAG(12, PB_BYTES),
    PB_HISTOGRAM_POSITIVE_DELTA = PB_TAG(13, PB_BYTES), /* packed */

    PB_BUCKET_COUNT = PB_TAG(1, PB_VARINT),
    PB_BUCKET_BOUND = PB_TAG(2, PB_FIXED64),

    PB_SPAN_OFFSET = PB_TAG(1, PB_VARINT),
    PB_SPAN_LENGTH = PB_TAG(2, PB_VARINT),

    /* The counter or gauge of a metric: tag, length, and its only field. */
    PB_SCALAR_BYTES = 2 + PB_DOUBLE_FIELD,
};

static inline size_t pb_varint_bytes(uint64_t value)
{
    unsigned bits = 64 - (unsigned)__builtin_clzll(value | 1);
    return (bits + 6) / 7;
}

static inline char *pb_put_varint(char *to, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        *to++ = (char)(value | 0x80);
    *to++ = (char)value;
    return to;
}

/*
 * The same without a branch on the length, for numbers of which one cannot tell what the next will
 * be: groups of seven bits are moved apart within one word. Writes up to PB_VARINT_MAX bytes.
 */
static inline char *pb_put_any_varint(char *to, uint64_t value)
{
    if (__builtin_expect(value >> 56 != 0, 0))
        return pb_put_varint(to, value);
    size_t len = pb_varint_bytes(value);
    value = (value & UINT64_C(0x00fffffff0000000)) << 4 | (value & UINT64_C(0x000000000fffffff));
    value = (value & UINT64_C(0x0fffc0000fffc000)) << 2 | (value & UINT64_C(0x00003fff00003fff));
    value = (value & UINT64_C(0x3f803f803f803f80)) << 1 | (value & UINT64_C(0x007f007f007f007f));
    uint64_t more = UINT64_C(0x8080808080808080) & ((UINT64_C(1) << (8 * len - 8)) - 1);
    uint64_t bytes = htole64(value | more);
    memcpy(to, &bytes, sizeof bytes);
    return to + len;
}

/* Of a field of wire type varint or, with a length, bytes. */
static inline char *pb_put_field(char *to, int tag, uint64_t value)
{
    *to++ = (char)tag;
    return pb_put_varint(to, value);
}

/* Signed numbers with small ones first: 0, -1, 1, -2 … */
static inline uint64_t pb_zigzag(int64_t value)
{
    return (uint64_t)value << 1 ^ (value < 0 ? UINT64_MAX : 0);
}

static inline char *pb_put_double(char *to, int tag, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    bits = htole64(bits);
    *to++ = (char)tag;
    return (char *)memcpy(to, &bits, sizeof bits) + sizeof bits;
}

/* 2^exponent, for exponents of normal numbers (-1022 … 1023). */
static inline double pb_power_of_2(int exponent)
{
    uint64_t bits = (uint64_t)(1023 + exponent) << 52;
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/*
 * A sum that nobody knows. Absent it would be read as 0. This is the NaN that Go's math.NaN() is
 * and Prometheus takes for an ordinary one; its staleness marker is another.
 */
static inline double pb_unknown(void)
{
    const uint64_t bits = UINT64_C(0x7ff8000000000001);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* raw * base^exponent as the double that is nearest to it (to the even one of two). */
double pb_scaled(uint64_t raw, uint8_t base, int16_t exponent);

/* The same for raw * 10^-9, inlined into loops. */
static inline double pb_nano(uint64_t raw)
{
    /* Both are exact up to 2^53, so that the division is the only thing that rounds; but for
     * machines that reckon with more digits and round again when they store. */
    if (__builtin_expect(FLT_EVAL_METHOD == 0 && raw <= UINT64_C(1) << 53, 1))
        return (double)raw / 1e9;
    return pb_scaled(raw, KVMSTATS_BASE_POW10, -9);
}

/* A value in one of the forms that numbers of a family have. */
static inline __attribute__((always_inline)) double pb_number(uint64_t raw, enum number_form form,
                                                              const struct kvmstats_desc *desc)
{
    switch (form) {
    case NUMBER_PLAIN:
        return (double)raw;
    case NUMBER_NANO:
        return pb_nano(raw);
    case NUMBER_BOOL:
        return raw ? 1 : 0;
    case NUMBER_SCALED:
        return pb_scaled(raw, desc->base, desc->exponent);
    }
    return pb_unknown();
}

/* A label of a metric. `value` is valid UTF-8, as it is: nothing is escaped in this format. */
size_t pb_label_bytes(const char *name, const char *value);
char *pb_put_label(char *to, const char *name, const char *value);

/* What stands before a family's metrics. */
struct pb_head {
    const char *name, *suffix; /* together the family's name; a counter's ends in _total */
    const char *help;
    const char *unit; /* NULL: none */
    int type;         /* PB_TYPE_… */
};
size_t pb_head_bytes(const struct pb_head *head);
char *pb_put_head(char *to, const struct pb_head *head);
/* The length of a family's message and its head; `metrics_bytes` of metrics must follow. */
void pb_begin_family(struct writer *w, struct snippet head, size_t metrics_bytes);
