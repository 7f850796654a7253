/* SPDX-License-Identifier: Apache-2.0 */
#include "http_test.h"

#include <libdeflate.h>
#include <string.h>

#include "splice.h"

/* What kinds of pieces there are: text, noise, one letter, nothing. */
static size_t make_piece(char *to, size_t room)
{
    size_t len = (size_t)testing_random_below(room);
    unsigned kind = (unsigned)testing_random_below(5);
    if (kind == 0)
        len = (size_t)testing_random_below(4);
    for (size_t i = 0; i < len; i++) {
        if (kind <= 1)
            to[i] = (char)testing_random();
        else if (kind == 2)
            to[i] = 'x';
        else
            to[i] = testing_random_below(9) ? "kvm_vcpu_exits_total{vm=\"a\"} 17\n"[i % 33]
                                            : (char)('0' + testing_random_below(10));
    }
    return len;
}

START_TEST(pieces_become_one_file)
{
    enum {
        PIECES = 20,
        PIECE = 100000
    };
    struct gzip_pool pool;
    CLEANUP_BUFFER struct buffer packed = BUFFER_INIT;
    size_t total = 0, in_used, out_used;
    char *plain = malloc(PIECES * PIECE), *out = malloc(PIECES * PIECE + 1);
    gzip_pool_init(&pool);
    struct gzip *gzip = gzip_take(&pool);
    ck_assert_ptr_nonnull(gzip);
    ck_assert_int_eq(gzip_begin(gzip, &packed), 0);
    for (int i = 0; i < _i; i++) {
        size_t len = make_piece(plain + total, PIECE);
        ck_assert_int_eq(gzip_append(gzip, &packed, plain + total, len), 0);
        total += len;
    }
    ck_assert_int_eq(gzip_end(gzip, &packed), 0);
    gzip_give(&pool, gzip);

    struct libdeflate_decompressor *unpacker = libdeflate_alloc_decompressor();
    ck_assert_int_eq(libdeflate_gzip_decompress_ex(unpacker, packed.data, packed.len, out,
                                                   PIECES * PIECE + 1, &in_used, &out_used),
                     LIBDEFLATE_SUCCESS);
    libdeflate_free_decompressor(unpacker);
    ck_assert_uint_eq(in_used, packed.len); /* one member, and nothing after it */
    ck_assert_uint_eq(out_used, total);
    ck_assert_mem_eq(out, plain, total);
    free(out);
    free(plain);
    gzip_pool_deinit(&pool);
}
END_TEST

/* Streams of every level, so of every kind of block, joined two and two. */
START_TEST(streams_of_any_kind_are_joined)
{
    enum {
        PIECE = 200000,
        ROOM = PIECE + 1000
    };
    static struct splicer splicer;
    char *plain = malloc(2 * PIECE), *out = malloc(2 * PIECE + 1);
    uint8_t *packed = malloc(2 * ROOM + SPLICE_ROOM);
    struct libdeflate_decompressor *unpacker = libdeflate_alloc_decompressor();
    for (int i = 0; i < 5; i++) {
        struct libdeflate_compressor *first = libdeflate_alloc_compressor(_i);
        struct libdeflate_compressor *second =
            libdeflate_alloc_compressor((int)testing_random_below(13));
        size_t a = make_piece(plain, PIECE), b = make_piece(plain + a, PIECE);
        size_t n = libdeflate_deflate_compress(first, plain, a, packed, ROOM), out_used;
        ck_assert_uint_gt(n, 0);
        size_t whole = n;
        ck_assert_int_eq(splice_open_end(&splicer, packed, n, &n), 0);
        ck_assert_uint_le(n, whole + SPLICE_ROOM);
        size_t m = libdeflate_deflate_compress(second, plain + a, b, packed + n, ROOM);
        ck_assert_uint_gt(m, 0);
        ck_assert_int_eq(
            libdeflate_deflate_decompress(unpacker, packed, n + m, out, 2 * PIECE + 1, &out_used),
            LIBDEFLATE_SUCCESS);
        ck_assert_uint_eq(out_used, a + b);
        ck_assert_mem_eq(out, plain, a + b);
        libdeflate_free_compressor(first);
        libdeflate_free_compressor(second);
    }
    libdeflate_free_decompressor(unpacker);
    free(packed);
    free(out);
    free(plain);
}
END_TEST

START_TEST(what_is_no_whole_stream_is_refused)
{
    static struct splicer splicer;
    static const struct {
        const char *bytes;
        size_t len;
        int expected;
    } streams[] = {
        {"\x03\x00", 2, 0},             /* one empty block with the fixed codes */
        {"\x01\x00\x00\xff\xff", 5, 0}, /* one empty stored block */
        {"\x01\x01\x00\xfe\xff"
         "a",
         6, 0},                                /* one of a byte */
        {"", 0, -EBADMSG},                     /* nothing */
        {"\x03", 1, -EBADMSG},                 /* cut */
        {"\x03\x00\x00", 3, -EBADMSG},         /* more than it */
        {"\x03\x80", 2, -EBADMSG},             /* the rest of the byte is not empty */
        {"\x02\x00", 2, -EBADMSG},             /* no last block */
        {"\x07\x00", 2, -EBADMSG},             /* a type that there is not */
        {"\x01\x00\x00\xff\xfe", 5, -EBADMSG}, /* a length that is not its inverse's */
        {"\x01\x02\x00\xfd\xff"
         "a",
         6, -EBADMSG} /* longer than what there is */
    };
    for (size_t i = 0; i < ARRAY_LEN(streams); i++) {
        uint8_t bytes[16] = {0};
        size_t len;
        memcpy(bytes, streams[i].bytes, streams[i].len);
        ck_assert_msg(splice_open_end(&splicer, bytes, streams[i].len, &len) == streams[i].expected,
                      "stream %zu", i);
    }
}
END_TEST

START_TEST(compressors_are_used_again)
{
    struct gzip_pool pool;
    gzip_pool_init(&pool);
    struct gzip *a = gzip_take(&pool);
    struct gzip *b = gzip_take(&pool);
    ck_assert_ptr_nonnull(a);
    ck_assert_ptr_nonnull(b);
    ck_assert_ptr_ne(a, b);
    gzip_give(&pool, a);
    ck_assert_ptr_eq(gzip_take(&pool), a);
    gzip_give(&pool, a);
    gzip_give(&pool, b);
    gzip_give(&pool, NULL);
    gzip_pool_deinit(&pool);
}
END_TEST

Suite *suite_gzip(void)
{
    Suite *suite = suite_create("gzip");
    TCase *tests = tcase_create("gzip");
    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, pieces_become_one_file, 0, 20);
    tcase_add_loop_test(tests, streams_of_any_kind_are_joined, 0, 13);
    tcase_add_test(tests, what_is_no_whole_stream_is_refused);
    tcase_add_test(tests, compressors_are_used_again);
    suite_add_tcase(suite, tests);
    return suite;
}
