/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/pidfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>

#include "fdinfo.h"
#include "suites.h"

/* What this kernel says of one of our own fds. */
static void read_fdinfo(int fd, char text[FDINFO_BYTES])
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    FILE *file = fopen(path, "re");
    ck_assert_ptr_nonnull(file);
    size_t n = fread(text, 1, FDINFO_BYTES - 1, file);
    text[n] = '\0';
    (void)fclose(file);
}

static uint64_t anonymous_inode(void)
{
    struct stat st;
    CLEANUP_FD int fd = epoll_create1(EPOLL_CLOEXEC);
    ck_assert_int_eq(fstat(fd, &st), 0);
    return st.st_ino;
}

START_TEST(what_the_kernel_says_of_the_commonest_files)
{
    sigset_t set;
    sigemptyset(&set);
    CLEANUP_FD int watched = eventfd(0, EFD_CLOEXEC), epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN};
    ck_assert_int_eq(epoll_ctl(epoll, EPOLL_CTL_ADD, watched, &event), 0);
    const int fds[] = {
        watched,
        epoll,
        timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC),
        signalfd(-1, &set, SFD_CLOEXEC),
        socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0),
        open("/dev/null", O_RDONLY | O_CLOEXEC),
        open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC),
        pidfd_open(getpid(), 0),
    };
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        char text[FDINFO_BYTES];
        ck_assert_int_ge(fds[i], 0);
        read_fdinfo(fds[i], text);
        ck_assert_msg(!fdinfo_may_be_kvm(text, anonymous_inode()), "fd %zu: %s", i, text);
        if (i > 1)
            (void)fd_close(fds[i]);
    }
}
END_TEST

START_TEST(texts_of_each_kind)
{
    static const struct {
        const char *text;
        bool may_be;
    } texts[] = {
        {"pos:\t0\nflags:\t02\nmnt_id:\t15\nino:\t77\n", true},
        {"pos:\t0\nflags:\t02\nmnt_id:\t15\nino:\t77\nsomething-new:\t1\n", true},
        {"pos:\t0\nflags:\t02\nmnt_id:\t15\nino:\t78\n", false},
        {"pos:\t0\nflags:\t02\nmnt_id:\t15\nino:\t770\n", false},
        {"pos:\t0\nflags:\t02\nmnt_id:\t15\nino:\t77\neventfd-count: 1\n", false},
        {"pos:\t0\nflags:\t02\nmnt_id:\t15\nino:\t77\ntfd:  5 events: 1\n", false},
        {"pos:\t0\nflags:\t02\nmnt_id:\t15\n", false}, /* before Linux 5.15 */
        {"", false},
    };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        ck_assert_msg(fdinfo_may_be_kvm(texts[i].text, 77) == texts[i].may_be, "%zu", i);
}
END_TEST

Suite *suite_fdinfo(void)
{
    Suite *suite = suite_create("fdinfo");
    TCase *tcase = tcase_create("fdinfo");
    tcase_add_test(tcase, what_the_kernel_says_of_the_commonest_files);
    tcase_add_test(tcase, texts_of_each_kind);
    suite_add_tcase(suite, tcase);
    return suite;
}
