/* SPDX-License-Identifier: Apache-2.0 */
#include "proc.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "suites.h"
#include "tree.h"

#define BOOT_S 1700000000LL

static struct tree tree;
static struct proc proc;

static void setup(void)
{
    tree_make(&tree, BOOT_S);
    ck_assert_int_eq(proc_open(tree.root, &proc), 0);
    proc.ticks_per_second = 100;
}

static void teardown(void)
{
    proc_close(&proc);
    tree_remove(&tree);
}

static void put_stat(pid_t pid, const char *name)
{
    char text[512];
    int n = snprintf(text, sizeof text,
                     "%d (%s) S 1 1 1 0 -1 4194304 100 0 0 0 1 2 3 4 20 0 7 0 12345 1000000 200 "
                     "18446744073709551615 0 0\n",
                     (int)pid, name);
    tree_file(&tree, pid, "stat", text, (size_t)n);
}

static const char *const hostile_names[] = {"a", "", ") (", "a) S 9 9 9", "((((", "a\nb", "))))"};

START_TEST(start_time_whatever_the_name)
{
    struct proc_stat stat = {0};
    put_stat(7, hostile_names[_i]);
    ck_assert_int_eq(proc_stat_read(&proc, 7, &stat), 0);
    ck_assert_uint_eq(stat.start_ticks, 12345);
    ck_assert_int_eq(stat.start_wall_ns, BOOT_S * 1000000000LL + 123450000000LL);
}
END_TEST

START_TEST(what_is_ending)
{
    static const struct {
        const char *fields; /* state and what follows it */
        bool is_ending;
    } cases[] = {
        {"S 1 1 1 0 -1 4194304 100 0 0 0 1 2 3 4 20 0 7 0 9 1", false},
        {"D 1 1 1 0 -1 4194308 100 0 0 0 1 2 3 4 20 0 7 0 9 1", true},
        {"R 1 1 1 0 -1 4194308 100 0 0 0 1 2 3 4 20 0 1 0 9 1", true},
        {"Z 1 1 1 0 -1 4194308 100 0 0 0 1 2 3 4 20 0 2 0 9 1",
         true}, /* but for its first thread */
        {"Z 1 1 1 0 -1 4194308 100 0 0 0 1 2 3 4 20 0 1 0 9 1", false}, /* nothing is left of it */
        {"X 1 1 1 0 -1 4194308 100 0 0 0 1 2 3 4 20 0 0 0 9 1", false},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct proc_stat stat;
        char text[512];
        int n = snprintf(text, sizeof text, "7 (a) %s\n", cases[i].fields);
        tree_file(&tree, 7, "stat", text, (size_t)n);
        ck_assert_int_eq(proc_stat_read(&proc, 7, &stat), 0);
        ck_assert_msg(stat.is_ending == cases[i].is_ending, "%s", cases[i].fields);
    }
}
END_TEST

static const char *const broken_stats[] = {"7 (a", "7 (a)", "7 (a) S 1 2 3", "no name"};

START_TEST(broken_stat_is_refused)
{
    struct proc_stat stat = {.start_ticks = 99};
    tree_file(&tree, 7, "stat", broken_stats[_i], strlen(broken_stats[_i]));
    ck_assert_int_eq(proc_stat_read(&proc, 7, &stat), -EBADMSG);
    ck_assert_uint_eq(stat.start_ticks, 99);
}
END_TEST

START_TEST(gone_is_esrch)
{
    struct proc_stat stat;
    struct proc_mark mark;
    char name[64], *text;
    size_t len;
    pid_t tgid;
    ck_assert_int_eq(proc_stat_read(&proc, 8, &stat), -ESRCH);
    ck_assert_int_eq(proc_mark_read(&proc, 8, &mark), -ESRCH);
    ck_assert_int_eq(proc_tgid(&proc, 8, &tgid), -ESRCH);
    ck_assert_int_eq(proc_exe_name(&proc, 8, name, sizeof name), -ESRCH);
    ck_assert_int_eq(proc_read(&proc, 8, "cmdline", 100, &text, &len), -ESRCH);
    ck_assert(!proc_has_thread(&proc, 8, 8));
}
END_TEST

/* What the kernel gives for a process that ends while its file is open. */
START_TEST(empty_is_gone)
{
    struct proc_stat stat;
    pid_t tgid;
    tree_file(&tree, 9, "stat", "", 0);
    tree_file(&tree, 9, "status", "", 0);
    ck_assert_int_eq(proc_stat_read(&proc, 9, &stat), -ESRCH);
    ck_assert_int_eq(proc_tgid(&proc, 9, &tgid), -ESRCH);
}
END_TEST

START_TEST(thread_group)
{
    static const char text[] = "Name:\tTgid:\\n5\nUmask:\t0022\nTgid:\t4321\nPid:\t4325\n";
    pid_t tgid = 0;
    tree_file(&tree, 4325, "status", text, sizeof text - 1);
    ck_assert_int_eq(proc_tgid(&proc, 4325, &tgid), 0);
    ck_assert_int_eq(tgid, 4321);
}
END_TEST

START_TEST(read_is_bounded)
{
    CLEANUP_FREE char *bytes = malloc(100000);
    size_t len = 0;
    memset(bytes, 'x', 100000);
    bytes[10] = '\0';
    tree_file(&tree, 5, "cmdline", bytes, 100000);

    static const size_t bounds[] = {1, 100, 4095, 4096, 4097, 99999, 100000, 100001, 1 << 20};
    for (size_t i = 0; i < ARRAY_LEN(bounds); i++) {
        CLEANUP_FREE char *text = NULL;
        size_t expected = MIN_OF(bounds[i], 100000u);
        ck_assert_int_eq(proc_read(&proc, 5, "cmdline", bounds[i], &text, &len), 0);
        ck_assert_uint_eq(len, expected);
        ck_assert_mem_eq(text, bytes, expected);
        ck_assert_int_eq(text[len], '\0');
    }
}
END_TEST

static const struct {
    const char *target, *name;
} executables[] = {
    {"/usr/bin/qemu-system-x86_64", "qemu-system-x86_64"},
    {"/usr/bin/qemu-system-x86_64 (deleted)", "qemu-system-x86_64"},
    {"/opt/a (deleted)/vmm", "vmm"},
    {"vmm", "vmm"},
    {"/a/much-longer-name-than-there-is-room-for", "much-longer-name-than-there-is-"},
};

START_TEST(executable_name)
{
    char name[32];
    tree_link(&tree, 3, "exe", executables[_i].target);
    ck_assert_int_eq(proc_exe_name(&proc, 3, name, sizeof name), 0);
    ck_assert_str_eq(name, executables[_i].name);
}
END_TEST

START_TEST(lists_pids_in_order)
{
    static const pid_t there[] = {30, 2, 1000000, 1, 7};
    static const pid_t expected[] = {1, 2, 7, 30, 1000000};
    CLEANUP_FREE pid_t *pids = NULL;
    size_t n;
    for (size_t i = 0; i < ARRAY_LEN(there); i++)
        tree_directory(&tree, there[i], "fd");
    tree_file(&tree, 1, "../12x/stat", "", 0);
    tree_file(&tree, 1, "../self", "", 0);
    tree_file(&tree, 1, "../99999999999/stat", "", 0);
    ck_assert_int_eq(proc_list(&proc, &pids, &n), 0);
    ck_assert_uint_eq(n, ARRAY_LEN(expected));
    ck_assert_mem_eq(pids, expected, sizeof expected);
}
END_TEST

/* btime behind more lines than are read at once, and cut at every place by the reads. */
START_TEST(boot_time_anywhere)
{
    CLEANUP_FREE char *text = malloc(300000);
    for (size_t i = 0; i < 40; i++) {
        size_t at = 65536 - 20 + i;
        struct proc other;
        memset(text, 'c', at);
        text[at - 1] = '\n';
        int n = snprintf(text + at, 100, "btime 1234567890\nx 1\n");
        tree_file(&tree, 1, "../stat", text, at + (size_t)n);
        ck_assert_int_eq(proc_open(tree.root, &other), 0);
        ck_assert_int_eq(other.boot_wall_ns, 1234567890LL * 1000000000LL);
        proc_close(&other);
    }
    tree_file(&tree, 1, "../stat", "cpu 1 2 3\n", 10);
    struct proc none;
    ck_assert_int_eq(proc_open(tree.root, &none), -EBADMSG);
    ck_assert_int_eq(proc_open("/nonexistent", &none), -ENOENT);
}
END_TEST

/* --- the real one --- */

static void real_setup(void)
{
    ck_assert_int_eq(proc_open("", &proc), 0);
}

static void real_teardown(void)
{
    proc_close(&proc);
}

START_TEST(tells_real_from_recorded)
{
    struct tree other;
    struct proc recorded;
    tree_make(&other, BOOT_S);
    ck_assert_int_eq(proc_open(other.root, &recorded), 0);
    ck_assert(proc_is_real(&proc));
    ck_assert(!proc_is_real(&recorded));
    proc_close(&recorded);
    tree_remove(&other);
}
END_TEST

START_TEST(own_start_time_is_sane)
{
    struct proc_stat stat;
    time_t now = time(NULL);
    ck_assert_int_eq(proc_stat_read(&proc, getpid(), &stat), 0);
    ck_assert_int_gt(stat.start_wall_ns, (int64_t)(now - 600) * 1000000000);
    ck_assert_int_lt(stat.start_wall_ns, (int64_t)(now + 5) * 1000000000);
}
END_TEST

static pid_t thread_tid;
static int thread_pipe[2];

static void *thread_main(void *arg)
{
    char c;
    thread_tid = (pid_t)syscall(SYS_gettid);
    ck_assert_int_eq(write(thread_pipe[1], "x", 1), 1);
    while (read(*(int *)arg, &c, 1) < 0)
        ;
    return NULL;
}

START_TEST(mark_counts_fds_and_threads)
{
    struct proc_mark before, with_fd, with_thread, after;
    int block[2];
    pthread_t thread;
    char c;
    if (!proc_counts_fds(&proc))
        testing_skip("this kernel does not tell how many fds a process has");

    ck_assert_int_eq(pipe(block), 0);
    ck_assert_int_eq(pipe(thread_pipe), 0);
    ck_assert_int_eq(proc_mark_read(&proc, getpid(), &before), 0);
    int fd = eventfd(0, 0);
    ck_assert_int_eq(proc_mark_read(&proc, getpid(), &with_fd), 0);
    ck_assert_uint_eq(with_fd.n_fds, before.n_fds + 1);
    ck_assert_uint_eq(with_fd.n_threads, before.n_threads);
    ck_assert_uint_eq(with_fd.inode, before.inode);

    ck_assert_int_eq(pthread_create(&thread, NULL, thread_main, &block[0]), 0);
    ck_assert_int_eq(read(thread_pipe[0], &c, 1), 1);
    ck_assert_int_eq(proc_mark_read(&proc, getpid(), &with_thread), 0);
    ck_assert_uint_gt(with_thread.n_threads, before.n_threads); /* a sanitizer may add its own */
    ck_assert(proc_has_thread(&proc, getpid(), thread_tid));
    pid_t tgid;
    ck_assert_int_eq(proc_tgid(&proc, thread_tid, &tgid), 0);
    ck_assert_int_eq(tgid, getpid());

    ck_assert_int_eq(close(block[1]), 0);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_int_eq(close(fd), 0);
    ck_assert_int_eq(proc_mark_read(&proc, getpid(), &after), 0);
    ck_assert_uint_eq(after.n_fds, before.n_fds - 1); /* block[1] too */
    ck_assert(!proc_has_thread(&proc, 1, getpid()));
}
END_TEST

START_TEST(sees_itself)
{
    CLEANUP_FREE pid_t *pids = NULL;
    size_t n, i;
    ck_assert_int_eq(proc_list(&proc, &pids, &n), 0);
    for (i = 0; i < n && pids[i] != getpid(); i++)
        ;
    ck_assert_uint_lt(i, n);
}
END_TEST

Suite *suite_proc(void)
{
    Suite *suite = suite_create("proc");
    TCase *recorded = tcase_create("recorded");
    tcase_add_checked_fixture(recorded, setup, teardown);
    tcase_add_loop_test(recorded, start_time_whatever_the_name, 0, (int)ARRAY_LEN(hostile_names));
    tcase_add_test(recorded, what_is_ending);
    tcase_add_loop_test(recorded, broken_stat_is_refused, 0, (int)ARRAY_LEN(broken_stats));
    tcase_add_test(recorded, gone_is_esrch);
    tcase_add_test(recorded, empty_is_gone);
    tcase_add_test(recorded, thread_group);
    tcase_add_test(recorded, read_is_bounded);
    tcase_add_loop_test(recorded, executable_name, 0, (int)ARRAY_LEN(executables));
    tcase_add_test(recorded, lists_pids_in_order);
    tcase_add_test(recorded, boot_time_anywhere);
    suite_add_tcase(suite, recorded);
    TCase *real = tcase_create("real");
    tcase_add_checked_fixture(real, real_setup, real_teardown);
    tcase_add_test(real, tells_real_from_recorded);
    tcase_add_test(real, own_start_time_is_sane);
    tcase_add_test(real, mark_counts_fds_and_threads);
    tcase_add_test(real, sees_itself);
    suite_add_tcase(suite, real);
    return suite;
}
