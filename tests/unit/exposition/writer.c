/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "suites.h"
#include "writer.h"

struct collected {
    size_t pieces, bytes, largest;
    bool cut_in_line;
    int fail_at; /* piece number that fails; 0 none */
};

static int collect(void *ctx, const char *bytes, size_t len)
{
    struct collected *c = ctx;
    c->pieces++;
    c->bytes += len;
    c->largest = MAX_OF(c->largest, len);
    c->cut_in_line |= len == 0 || bytes[len - 1] != '\n';
    return c->fail_at && c->pieces == (size_t)c->fail_at ? -EPIPE : 0;
}

START_TEST(pieces_end_at_lines)
{
    struct collected c = {0};
    const struct exposition_sink sink = {collect, &c};
    CLEANUP_WRITER struct writer w;
    size_t sent = 0;
    ck_assert_int_eq(writer_init(&w, &sink), 0);
    for (int i = 0; i < 20000; i++) {
        size_t len = testing_random_below(200);
        writer_printf(&w, "%*d\n", (int)len, 7);
        sent += MAX_OF(len, (size_t)1) + 1;
    }
    ck_assert_int_eq(writer_finish(&w), 0);
    ck_assert_uint_eq(c.bytes, sent);
    ck_assert_uint_gt(c.pieces, 1);
    ck_assert_uint_le(c.largest, WRITER_PIECE_BYTES);
    ck_assert(!c.cut_in_line);
}
END_TEST

START_TEST(a_line_longer_than_a_piece)
{
    struct collected c = {0};
    const struct exposition_sink sink = {collect, &c};
    CLEANUP_WRITER struct writer w;
    ck_assert_int_eq(writer_init(&w, &sink), 0);
    writer_printf(&w, "short\n");
    writer_printf(&w, "%*d\n", 3 * WRITER_PIECE_BYTES, 7);
    writer_printf(&w, "short\n");
    ck_assert_int_eq(writer_finish(&w), 0);
    ck_assert_uint_eq(c.bytes, 3 * WRITER_PIECE_BYTES + 1 + 12);
    ck_assert(!c.cut_in_line);
}
END_TEST

START_TEST(an_error_ends_it)
{
    struct collected c = {.fail_at = 2};
    const struct exposition_sink sink = {collect, &c};
    CLEANUP_WRITER struct writer w;
    ck_assert_int_eq(writer_init(&w, &sink), 0);
    for (int i = 0; i < 50000; i++)
        writer_printf(&w, "%*d\n", 100, 7);
    ck_assert_int_eq(writer_finish(&w), -EPIPE);
    ck_assert_uint_eq(c.pieces, 2);
    ck_assert(!writer_room(&w, 1));
}
END_TEST

START_TEST(copies)
{
    char from[96], to[96];
    for (size_t i = 0; i < sizeof from; i++)
        from[i] = (char)testing_random();
    for (size_t len = 0; len <= 64; len++) {
        memset(to, 0, sizeof to);
        ck_assert_ptr_eq(writer_copy(to, from, len), to + len);
        ck_assert_mem_eq(to, from, len);
        /* It stays within its overrun. */
        for (size_t i = len + WRITER_OVERRUN; i < sizeof to; i++)
            ck_assert_int_eq(to[i], 0);
    }
}
END_TEST

Suite *writer_suite(void)
{
    Suite *suite = suite_create("writer");
    TCase *tc = tcase_create("writer");
    tcase_add_test(tc, pieces_end_at_lines);
    tcase_add_test(tc, a_line_longer_than_a_piece);
    tcase_add_test(tc, an_error_ends_it);
    tcase_add_test(tc, copies);
    suite_add_tcase(suite, tc);
    return suite;
}
