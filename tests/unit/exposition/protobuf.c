/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>

#include "own.h"
#include "pb_histogram.h"
#include "suites.h"

static void check_bytes(const char *got, size_t got_len, const char *want, size_t want_len)
{
    ck_assert_uint_eq(got_len, want_len);
    for (size_t i = 0; i < want_len; i++)
        ck_assert_msg(got[i] == want[i], "byte %zu is %#04x, not %#04x", i, (uint8_t)got[i],
                      (uint8_t)want[i]);
}

START_TEST(varints)
{
    static const struct {
        uint64_t value;
        const char *bytes;
        size_t len;
    } cases[] = {
        {0, "\x00", 1},
        {1, "\x01", 1},
        {127, "\x7f", 1},
        {128, "\x80\x01", 2},
        {300, "\xac\x02", 2},
        {16383, "\xff\x7f", 2},
        {16384, "\x80\x80\x01", 3},
        {UINT64_MAX, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 10},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char to[PB_VARINT_MAX];
        size_t len = (size_t)(pb_put_varint(to, cases[i].value) - to);
        check_bytes(to, len, cases[i].bytes, cases[i].len);
        ck_assert_uint_eq(pb_varint_bytes(cases[i].value), len);
        len = (size_t)(pb_put_any_varint(to, cases[i].value) - to);
        check_bytes(to, len, cases[i].bytes, cases[i].len);
    }
    for (unsigned shift = 0; shift < 64; shift++) {
        char to[PB_VARINT_MAX];
        uint64_t value = testing_random() >> shift;
        size_t len = (size_t)(pb_put_varint(to, value) - to);
        ck_assert_uint_eq(pb_varint_bytes(value), len);
        char any[PB_VARINT_MAX];
        check_bytes(any, (size_t)(pb_put_any_varint(any, value) - any), to, len);
        (void)pb_put_varint(to, UINT64_MAX >> shift);
        check_bytes(any, (size_t)(pb_put_any_varint(any, UINT64_MAX >> shift) - any), to,
                    pb_varint_bytes(UINT64_MAX >> shift));
    }
    ck_assert_uint_eq(pb_zigzag(0), 0);
    ck_assert_uint_eq(pb_zigzag(-1), 1);
    ck_assert_uint_eq(pb_zigzag(1), 2);
    ck_assert_uint_eq(pb_zigzag(INT64_MAX), UINT64_MAX - 1);
    ck_assert_uint_eq(pb_zigzag(INT64_MIN), UINT64_MAX);
}
END_TEST

START_TEST(doubles_are_little_endian)
{
    char to[PB_DOUBLE_FIELD];
    (void)pb_put_double(to, PB_VALUE, -2.5);
    check_bytes(to, sizeof to, "\x09\x00\x00\x00\x00\x00\x00\x04\xc0", 9);
}
END_TEST

/* The C library reads the exact decimal and rounds once. */
static void check_nearest(uint64_t raw, uint8_t base, int16_t exponent, double got)
{
    char text[KVMSTATS_DECIMAL_BYTES];
    (void)kvmstats_format_scaled(text, raw, base, exponent);
    ck_assert_msg(got == strtod(text, NULL), "%s became %.17g", text, got);
}

START_TEST(every_number_is_the_nearest_double)
{
    static const uint64_t edges[] = {
        0,
        1,
        999999999,
        1000000000,
        (UINT64_C(1) << 53) - 1,
        UINT64_C(1) << 53,
        (UINT64_C(1) << 53) + 1,
        UINT64_MAX - 1024, /* half-way between two doubles, before it is scaled */
        UINT64_MAX,
    };
    size_t by_hand = 0; /* what multiplying by 1e-9 would have got wrong */
    for (size_t i = 0; i < ARRAY_LEN(edges); i++)
        check_nearest(edges[i], KVMSTATS_BASE_POW10, -9, pb_nano(edges[i]));
    for (int i = 0; i < 20000; i++) {
        uint64_t raw = testing_random() >> testing_random_below(64);
        int16_t exponent = (int16_t)((int)testing_random_below(513) - 256);
        check_nearest(raw, KVMSTATS_BASE_POW10, -9, pb_nano(raw));
        check_nearest(raw, KVMSTATS_BASE_POW10, exponent,
                      pb_scaled(raw, KVMSTATS_BASE_POW10, exponent));
        check_nearest(raw, KVMSTATS_BASE_POW2, exponent,
                      pb_scaled(raw, KVMSTATS_BASE_POW2, exponent));
        by_hand += pb_nano(raw) != (double)raw * 1e-9;
    }
    ck_assert_uint_gt(by_hand, 0);
}
END_TEST

START_TEST(unknown_is_an_ordinary_nan)
{
    double value = pb_unknown();
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    ck_assert(isnan(value));
    ck_assert_uint_ne(bits, UINT64_C(0x7ff0000000000002)); /* Prometheus' staleness marker */
}
END_TEST

START_TEST(shifts)
{
    ck_assert_int_eq(native_shift(KVMSTATS_BASE_POW10, -9), -30);
    ck_assert_int_eq(native_shift(KVMSTATS_BASE_POW10, -6), -20);
    ck_assert_int_eq(native_shift(KVMSTATS_BASE_POW10, 0), 0);
    ck_assert_int_eq(native_shift(KVMSTATS_BASE_POW10, 9), 30);
    ck_assert_int_eq(native_shift(KVMSTATS_BASE_POW2, -20), -20);
    for (int e = -256; e <= 256; e++) {
        double exact = e * 3.321928094887362;
        ck_assert_double_le(fabs(native_shift(KVMSTATS_BASE_POW10, (int16_t)e) - exact), 0.5);
        int shift = native_shift(KVMSTATS_BASE_POW10, (int16_t)e);
        ck_assert_double_gt(native_zero_threshold(shift), 0);
        ck_assert_double_le(native_zero_threshold(shift), ldexp(1, shift));
    }
}
END_TEST

static size_t put_native(char *to, const uint64_t *counts, size_t n, uint64_t zero)
{
    const struct native_buckets b = {
        .zero_threshold = 0.5,
        .zero_count = zero,
        .first = -29,
        .n = n,
        .counts = counts,
    };
    return (size_t)(native_put(to, "L", 1, &b, 0.25) - to);
}

START_TEST(native_bytes)
{
    static const uint64_t counts[] = {0, 5, 0, 200, 0, 0};
    char to[512];
    size_t len = put_native(to, counts, ARRAY_LEN(counts), 3);
    static const char want[] = "\x22\x28"                  /* metric */
                               "L\x3a\x25"                 /* labels, histogram */
                               "\x08\xd0\x01"              /* 208 observations */
                               "\x11\0\0\0\0\0\0\xd0\x3f"  /* their sum */
                               "\x28\0"                    /* schema */
                               "\x31\0\0\0\0\0\0\xe0\x3f"  /* zero threshold */
                               "\x38\x03"                  /* zeros */
                               "\x62\x04\x08\x37\x10\x03"  /* three buckets from -28 on */
                               "\x6a\x04\x0a\x09\x90\x03"; /* +5, -5, +200 */
    check_bytes(to, len, want, sizeof want - 1);
}
END_TEST

START_TEST(native_empty)
{
    static const uint64_t counts[4];
    char to[512];
    size_t len = put_native(to, counts, ARRAY_LEN(counts), 0);
    static const char want[] = "\x22\x1d"
                               "L\x3a\x1a"
                               "\x08\0"
                               "\x11\0\0\0\0\0\0\xd0\x3f"
                               "\x28\0"
                               "\x31\0\0\0\0\0\0\xe0\x3f"
                               "\x38\0"
                               "\x62\0"; /* a span of nothing: this is a native one */
    check_bytes(to, len, want, sizeof want - 1);
}
END_TEST

/* Whatever is in them, buckets need no more room than was asked for. */
START_TEST(native_needs_no_more_room)
{
    uint64_t counts[66];
    for (int round = 0; round < 200; round++) {
        struct native_buckets b = {.zero_count = testing_random(), .n = testing_random_below(67)};
        b.counts = counts;
        b.first = (int32_t)testing_random_below(2000) - 1000;
        for (size_t i = 0; i < b.n; i++)
            counts[i] = testing_random() >> testing_random_below(64);
        size_t room = native_room(3, &b);
        char *to = malloc(room);
        size_t len = (size_t)(native_put(to, "abc", 3, &b, 1) - to);
        ck_assert_uint_le(len, room);
        free(to);
    }
}
END_TEST

/* Families of our own, in all formats. */

struct pieces {
    char bytes[4 * WRITER_PIECE_BYTES];
    size_t len, n, longest;
};

static int keep(void *ctx, const char *bytes, size_t len)
{
    struct pieces *p = ctx;
    ck_assert_uint_le(p->len + len, sizeof p->bytes);
    memcpy(p->bytes + p->len, bytes, len);
    p->len += len;
    p->n++;
    p->longest = MAX_OF(p->longest, len);
    return 0;
}

static const struct own_family rates = {"kvm_x_rate", OWN_HISTOGRAM, NULL, "Rates."};
static const struct own_family wait = {"kvm_y_seconds", OWN_COUNTER, "seconds", "Wait."};
static const struct own_label labels[] = {{"vm", "a\"\n"}, {"window", "15s"}};

static void put_histogram(struct own *own, bool has_sum)
{
    static const int64_t bounds[] = {1, 25, 100};
    static const uint64_t counts[] = {1, 0, 2, 4};
    const struct native_buckets native = {.schema = 3, .zero_threshold = 0.5, .first = 1};
    const struct own_histogram h = {
        .n = ARRAY_LEN(bounds),
        .bounds = bounds,
        .bounds_exponent = -1,
        .counts = counts,
        .has_sum = has_sum,
        .sum = own_exact(15, -1),
        .native = &native,
    };
    own_begin(own, &rates);
    own_histogram(own, labels, ARRAY_LEN(labels), &h);
    own_end(own);
}

static void render_own(enum exposition_format format, bool has_sum, struct pieces *p)
{
    const struct exposition_sink sink = {keep, p};
    CLEANUP_WRITER struct writer w = {0};
    CLEANUP_OWN struct own own;
    *p = (struct pieces){0};
    ck_assert_int_eq(writer_init(&w, &sink), 0);
    own_init(&own, &w, format);
    put_histogram(&own, has_sum);
    own_begin(&own, &wait);
    own_sample(&own, labels, ARRAY_LEN(labels), own_exact(1500, -3));
    own_end(&own);
    ck_assert_int_eq(writer_finish(&w), 0);
}

static struct pieces pieces;

START_TEST(own_text)
{
    render_own(EXPOSITION_TEXT, true, &pieces);
    assert_line(pieces.bytes, "# TYPE kvm_x_rate histogram");
    assert_line(pieces.bytes, "kvm_x_rate_bucket{vm=\"a\\\"\\n\",window=\"15s\",le=\"0.1\"} 1");
    assert_line(pieces.bytes, "kvm_x_rate_bucket{vm=\"a\\\"\\n\",window=\"15s\",le=\"2.5\"} 1");
    assert_line(pieces.bytes, "kvm_x_rate_bucket{vm=\"a\\\"\\n\",window=\"15s\",le=\"10.0\"} 3");
    assert_line(pieces.bytes, "kvm_x_rate_bucket{vm=\"a\\\"\\n\",window=\"15s\",le=\"+Inf\"} 7");
    assert_line(pieces.bytes, "kvm_x_rate_sum{vm=\"a\\\"\\n\",window=\"15s\"} 1.5");
    assert_line(pieces.bytes, "kvm_x_rate_count{vm=\"a\\\"\\n\",window=\"15s\"} 7");
    assert_line(pieces.bytes, "# TYPE kvm_y_seconds_total counter");
    assert_line(pieces.bytes, "kvm_y_seconds_total{vm=\"a\\\"\\n\",window=\"15s\"} 1.5");
    render_own(EXPOSITION_TEXT, false, &pieces);
    assert_lacks(pieces.bytes, "_sum");
    assert_line(pieces.bytes, "kvm_x_rate_count{vm=\"a\\\"\\n\",window=\"15s\"} 7");
    render_own(EXPOSITION_OPENMETRICS, false, &pieces);
    assert_lacks(pieces.bytes, "_sum");
    assert_lacks(pieces.bytes, "_count");
    assert_line(pieces.bytes, "# UNIT kvm_y_seconds seconds");
}
END_TEST

#define VM_LABEL                 \
    "\x0a\x09\x0a\x02vm\x12\x03" \
    "a\"\n"
#define WINDOW_LABEL                 \
    "\x0a\x0d\x0a\x06window\x12\x03" \
    "15s"

START_TEST(own_protobuf)
{
    static const char want[] = /* a native histogram and no sum */
        "\x4e\x0a\x0akvm_x_rate\x12\x06Rates.\x18\x04"
        "\x22\x36" VM_LABEL WINDOW_LABEL "\x3a\x1a\x08\0\x11\x01\0\0\0\0\0\xf8\x7f\x28\x06"
        "\x31\0\0\0\0\0\0\xe0\x3f\x38\0\x62\0"
        "\x4e\x0a\x13kvm_y_seconds_total\x12\x05Wait.\x18\0\x2a\x07seconds"
        "\x22\x25" VM_LABEL WINDOW_LABEL "\x1a\x09\x09\0\0\0\0\0\0\xf8\x3f";
    render_own(EXPOSITION_PROTOBUF, false, &pieces);
    check_bytes(pieces.bytes, pieces.len, want, sizeof want - 1);
}
END_TEST

/* A family is one message however long it is, and comes in pieces of the usual size. */
START_TEST(own_long_family)
{
    const struct exposition_sink sink = {keep, &pieces};
    CLEANUP_WRITER struct writer w = {0};
    CLEANUP_OWN struct own own;
    const unsigned n = 20000;
    pieces = (struct pieces){0};
    ck_assert_int_eq(writer_init(&w, &sink), 0);
    own_init(&own, &w, EXPOSITION_PROTOBUF);
    own_begin(&own, &wait);
    for (unsigned i = 0; i < n; i++)
        own_sample(&own, labels, ARRAY_LEN(labels), own_double(i));
    own_end(&own);
    ck_assert_int_eq(writer_finish(&w), 0);

    const char want[] = "\x0a\x13kvm_y_seconds_total\x12\x05Wait.\x18\0\x2a\x07seconds";
    const size_t metric = 2 + 0x25, len = sizeof want - 1 + n * metric;
    char prefix[PB_VARINT_MAX];
    size_t prefix_len = (size_t)(pb_put_varint(prefix, len) - prefix);
    ck_assert_uint_eq(pieces.len, prefix_len + len);
    check_bytes(pieces.bytes, prefix_len, prefix, prefix_len);
    ck_assert_uint_gt(pieces.n, 2);
    ck_assert_uint_le(pieces.longest, WRITER_PIECE_BYTES);
    double last;
    memcpy(&last, pieces.bytes + pieces.len - sizeof last, sizeof last);
    if (htole16(1) == 1)
        ck_assert_double_eq(last, n - 1);
}
END_TEST

Suite *protobuf_suite(void)
{
    Suite *suite = suite_create("protobuf");
    TCase *tc = tcase_create("protobuf");
    tcase_add_test(tc, varints);
    tcase_add_test(tc, doubles_are_little_endian);
    tcase_add_test(tc, every_number_is_the_nearest_double);
    tcase_add_test(tc, unknown_is_an_ordinary_nan);
    tcase_add_test(tc, shifts);
    tcase_add_test(tc, native_bytes);
    tcase_add_test(tc, native_empty);
    tcase_add_test(tc, native_needs_no_more_room);
    tcase_add_test(tc, own_text);
    tcase_add_test(tc, own_protobuf);
    tcase_add_test(tc, own_long_family);
    suite_add_tcase(suite, tc);
    return suite;
}
