/* SPDX-License-Identifier: Apache-2.0 */
#include "cleanup.h"

#include <fcntl.h>
#include <stdbool.h>

#include "suites.h"

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

static int open_null(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    return fd;
}

START_TEST(fds)
{
    int fd = open_null(), kept = -1;
    {
        CLEANUP_FD int scoped = fd;
        CLEANUP_FD int none = -1;
        ck_assert_int_eq(none, -1);
        ck_assert(is_open(scoped));
    }
    ck_assert(!is_open(fd));
    {
        CLEANUP_FD int scoped = open_null();
        kept = steal_fd(&scoped);
        ck_assert_int_eq(scoped, -1);
    }
    ck_assert(is_open(kept));

    errno = EXDEV; /* libcheck's assertions change it: all is done before the first */
    int first = fd_close(kept), second = fd_close(kept), error = errno;
    ck_assert_int_eq(first, -1);
    ck_assert_int_eq(second, -1); /* EBADF inside */
    ck_assert_int_eq(error, EXDEV);
    ck_assert(!is_open(kept));
}
END_TEST

static int frees;

static void count_free(int *thing)
{
    ck_assert_ptr_nonnull(thing);
    frees++;
}
DEFINE_CLEANUP(int *, count_free)

START_TEST(pointers)
{
    int thing = 0;
    int *kept;
    {
        CLEANUP(cleanup_count_free) int *a = &thing;
        CLEANUP(cleanup_count_free) int *b = NULL;
        CLEANUP(cleanup_count_free) int *c = &thing;
        kept = steal_ptr(&c);
        ck_assert_ptr_null(c);
        ck_assert(a && !b);
    }
    ck_assert_ptr_eq(kept, &thing);
    ck_assert_int_eq(frees, 1);
}
END_TEST

Suite *suite_cleanup(void)
{
    Suite *suite = suite_create("cleanup");
    TCase *tc = tcase_create("cleanup");
    tcase_add_test(tc, fds);
    tcase_add_test(tc, pointers);
    suite_add_tcase(suite, tc);
    return suite;
}
