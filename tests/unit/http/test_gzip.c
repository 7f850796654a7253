/* SPDX-License-Identifier: Apache-2.0 */
#include "http_test.h"

#include <libdeflate.h>

/* Unpacks all members of a gzip file; *ret_members of them. */
static char *unpack(const struct buffer *packed, size_t room, size_t *ret_len, size_t *ret_members)
{
    struct libdeflate_decompressor *unpacker = libdeflate_alloc_decompressor();
    char *out = malloc(room + 1);
    size_t at = 0, len = 0, members = 0;
    while (at < packed->len) {
        size_t in_used, out_used;
        ck_assert_int_eq(libdeflate_gzip_decompress_ex(unpacker, packed->data + at,
                                                       packed->len - at, out + len, room - len,
                                                       &in_used, &out_used),
                         LIBDEFLATE_SUCCESS);
        at += in_used;
        len += out_used;
        members++;
    }
    libdeflate_free_decompressor(unpacker);
    *ret_len = len;
    *ret_members = members;
    return out;
}

START_TEST(pieces_become_one_file)
{
    struct gzip_pool pool;
    CLEANUP_BUFFER struct buffer packed = BUFFER_INIT;
    size_t total = 0, len, members;
    enum {
        ROOM = 1 << 20
    };
    char *plain = malloc(ROOM);
    gzip_pool_init(&pool);
    struct gzip *gzip = gzip_take(&pool);
    ck_assert_ptr_nonnull(gzip);
    for (int i = 0; i < 20; i++) {
        /* Some pieces cannot be compressed, some are one byte, some are long. */
        size_t piece = i == 0 ? 1 : (size_t)testing_random_below(ROOM / 20);
        for (size_t j = 0; j < piece; j++)
            plain[total + j] = i % 3 ? "kvm_vcpu_exits"[j % 14] : (char)testing_random();
        ck_assert_int_eq(gzip_append(gzip, &packed, plain + total, piece), 0);
        total += piece;
    }
    gzip_give(&pool, gzip);
    char *out = unpack(&packed, ROOM, &len, &members);
    ck_assert_uint_eq(members, 20);
    ck_assert_uint_eq(len, total);
    ck_assert_mem_eq(out, plain, total);
    free(out);
    free(plain);
    gzip_pool_deinit(&pool);
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
    tcase_add_test(tests, pieces_become_one_file);
    tcase_add_test(tests, compressors_are_used_again);
    suite_add_tcase(suite, tests);
    return suite;
}
