/* SPDX-License-Identifier: Apache-2.0 */
#include "buffer.h"

#include "suites.h"

START_TEST(empty)
{
    CLEANUP_BUFFER struct buffer b = BUFFER_INIT;
    buffer_put(&b, "x", 0);
    buffer_puts(&b, "");
    ck_assert_uint_eq(b.len, 0);
    ck_assert_int_eq(b.error, 0);
    buffer_free(&b);
    buffer_free(&b);
    ck_assert_ptr_null(b.data);
}
END_TEST

/* Whatever is put in stands there, through many growths: compared with a plain array. */
START_TEST(put_random)
{
    enum {
        BYTES = 3 << 20,
    };
    CLEANUP_BUFFER struct buffer b = BUFFER_INIT;
    CLEANUP_FREE char *model = malloc(BYTES);
    size_t len = 0, growths = 0, capacity = 0;
    ck_assert_ptr_nonnull(model);
    for (size_t i = 0; i < BYTES; i++)
        model[i] = (char)testing_random();
    while (len < BYTES) {
        size_t piece = testing_random_below(1 << testing_random_below(18));
        piece = MIN_OF(piece, BYTES - len);
        buffer_put(&b, model + len, piece);
        len += piece;
        ck_assert_uint_eq(b.len, len);
        ck_assert_uint_ge(b.capacity, len);
        growths += b.capacity != capacity;
        capacity = b.capacity;
    }
    ck_assert_int_eq(b.error, 0);
    ck_assert_int_eq(memcmp(b.data, model, BYTES), 0);
    ck_assert_uint_gt(growths, 3);
    ck_assert_uint_lt(growths, 12);
}
END_TEST

START_TEST(reserve_and_advance)
{
    CLEANUP_BUFFER struct buffer b = BUFFER_INIT;
    char *to = buffer_reserve(&b, 100000);
    ck_assert_ptr_nonnull(to);
    ck_assert_uint_eq(b.len, 0);
    memset(to, 'x', 100000);
    b.len += 100000;
    /* Exactly the room that is left moves nothing, one byte more does. */
    size_t rest = b.capacity - b.len, capacity = b.capacity;
    ck_assert_ptr_eq(buffer_reserve(&b, rest), b.data + b.len);
    ck_assert_uint_eq(b.capacity, capacity);
    ck_assert_ptr_nonnull(buffer_reserve(&b, rest + 1));
    ck_assert_uint_gt(b.capacity, capacity);
    ck_assert_int_eq(b.data[99999], 'x');
}
END_TEST

START_TEST(printing)
{
    CLEANUP_BUFFER struct buffer b = BUFFER_INIT;
    buffer_printf(&b, "%s=%d", "a", 1);
    buffer_printf(&b, "%s", "");
    buffer_printf(&b, ";%c", 'z');
    ck_assert_uint_eq(b.len, 5);
    ck_assert_int_eq(memcmp(b.data, "a=1;z", 5), 0);

    /* Up to the end of the room, where the NUL of printf has to be thought of. */
    for (size_t left = 0; left < 4; left++) {
        b.len = b.capacity - left;
        size_t len = b.len;
        buffer_printf(&b, "%s", "abc");
        ck_assert_uint_eq(b.len, len + 3);
        ck_assert_uint_gt(b.capacity, b.len);
        ck_assert_int_eq(memcmp(b.data + len, "abc", 3), 0);
    }
    ck_assert_int_eq(b.error, 0);
}
END_TEST

/* An error stays, and what was there before it too. */
START_TEST(errors_stick)
{
    CLEANUP_BUFFER struct buffer b = BUFFER_INIT;
    buffer_puts(&b, "before");
    ck_assert_ptr_null(buffer_reserve(&b, SIZE_MAX));
    ck_assert_int_eq(b.error, -ENOMEM);
    ck_assert_uint_eq(b.len, 6);
    ck_assert_int_eq(memcmp(b.data, "before", 6), 0);
    ck_assert_int_eq(buffer_grow(&b, 1 << 20), -ENOMEM);
    buffer_printf(&b, "%*d", 1 << 20, 1);
    ck_assert_uint_eq(b.len, 6);

    CLEANUP_BUFFER struct buffer c = BUFFER_INIT;
    ck_assert_int_eq(buffer_grow(&c, SIZE_MAX / 2 + 2), -ENOMEM);
    ck_assert_ptr_null(c.data);
    /* A size that counts, but that no address space has, unless it is one of 32 bits. */
    CLEANUP_BUFFER struct buffer d = BUFFER_INIT;
    if (SIZE_MAX > UINT32_MAX) {
        ck_assert_int_eq(buffer_grow(&d, SIZE_MAX / 16 + 1), -ENOMEM);
        ck_assert_int_eq(d.error, -ENOMEM);
    }
}
END_TEST

Suite *suite_buffer(void)
{
    Suite *suite = suite_create("buffer");
    TCase *tc = tcase_create("buffer");
    tcase_add_test(tc, empty);
    tcase_add_test(tc, put_random);
    tcase_add_test(tc, reserve_and_advance);
    tcase_add_test(tc, printing);
    tcase_add_test(tc, errors_stick);
    suite_add_tcase(suite, tc);
    return suite;
}
