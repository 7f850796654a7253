/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <string.h>

#include "fdstore.h"
#include "suites.h"

START_TEST(a_name_says_which_vm_it_is)
{
    for (int i = 0; i < 1000; i++) {
        char name[FDSTORE_NAME_BYTES];
        struct fdstore_vm back;
        const struct fdstore_vm vm = {
            .pid = (pid_t)testing_random_below(INT32_MAX - 1) + 1,
            .start_ticks = testing_random() >> testing_random_below(64),
            .uid = (uid_t)testing_random(),
            .number = testing_random() >> testing_random_below(64),
        };
        fdstore_name(&vm, name);
        ck_assert_uint_lt(strlen(name), FDSTORE_NAME_BYTES - 1);
        ck_assert_ptr_null(strchr(name, ':'));
        ck_assert(fdstore_parse_name(name, &back));
        ck_assert(back.pid == vm.pid && back.start_ticks == vm.start_ticks && back.uid == vm.uid &&
                  back.number == vm.number);
    }
}
END_TEST

START_TEST(other_names_are_none)
{
    static const char *const names[] = {
        "",
        "web",
        "handoff",
        "stored",
        "kvm-1-2-3",
        "kvm-1-2-3-",
        "kvm-0-2-3-4",
        "kvm--1-2-3-4",
        "kvm-1-2-3-x",
        "kvm-1-2-3-4 ",
        "kvm-01-2-3-4",
        "kvm-+1-2-3-4",
        " kvm-1-2-3-4",
        "kvm-1-2-3-4-5",
        "kvm-1-2-4294967296-4",
        "kvm-99999999999-2-3-4",
        "kvm-1-99999999999999999999999-3-4",
    };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct fdstore_vm vm;
        ck_assert_msg(!fdstore_parse_name(names[i], &vm), "%s", names[i]);
    }
}
END_TEST

static struct passed_fds passed_with(const char *const *names, size_t n)
{
    struct passed_fds passed = {n, calloc(n, sizeof *passed.fds)};
    for (size_t i = 0; i < n; i++) {
        passed.fds[i].fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        passed.fds[i].name = strdup(names[i]);
    }
    return passed;
}

START_TEST(what_is_of_processes_that_have_gone_is_closed_and_nothing_else)
{
    /* Ourselves at another time, a pid that cannot be, and names of other kinds. */
    char other_time[FDSTORE_NAME_BYTES];
    const struct fdstore_vm earlier = {.pid = getpid(), .start_ticks = 1};
    fdstore_name(&earlier, other_time);
    const char *const names[] = {"web",     other_time, "kvm-2147483647-1-0-1",
                                 "handoff", other_time, "kvm-1-2"};
    CLEANUP(passed_fds_free) struct passed_fds passed = passed_with(names, ARRAY_LEN(names));
    ck_assert_uint_eq(fdstore_drop_gone(&passed), 3);
    for (size_t i = 0; i < passed.n; i++) {
        struct fdstore_vm vm;
        ck_assert_int_eq(passed.fds[i].fd < 0, fdstore_parse_name(passed.fds[i].name, &vm));
    }
}
END_TEST

START_TEST(an_fd_is_taken_once_by_its_name)
{
    const char *const names[] = {"web", "handoff", "web"};
    CLEANUP(passed_fds_free) struct passed_fds passed = passed_with(names, ARRAY_LEN(names));
    int first = passed_fds_take(&passed, "web"), second = passed_fds_take(&passed, "web");
    ck_assert(first >= 0 && second >= 0 && first != second);
    ck_assert_int_eq(passed_fds_take(&passed, "web"), -1);
    ck_assert_int_eq(passed_fds_take(&passed, "hand"), -1);
    ck_assert_int_eq(passed_fds_take(NULL, "web"), -1);
    (void)fd_close(first);
    (void)fd_close(second);
}
END_TEST

Suite *suite_fdstore(void)
{
    Suite *suite = suite_create("fdstore");
    TCase *tcase = tcase_create("fdstore");
    tcase_add_test(tcase, a_name_says_which_vm_it_is);
    tcase_add_test(tcase, other_names_are_none);
    tcase_add_test(tcase, what_is_of_processes_that_have_gone_is_closed_and_nothing_else);
    tcase_add_test(tcase, an_fd_is_taken_once_by_its_name);
    suite_add_tcase(suite, tcase);
    return suite;
}
