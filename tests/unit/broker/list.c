/* SPDX-License-Identifier: Apache-2.0 */
/* Listing from a recorded tree, and refusals that need no KVM. */
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/pidfd.h>

#include "broker.h"
#include "suites.h"
#include "tree.h"

static struct tree tree;
static struct proc proc;
static struct broker *broker;

static void setup(void)
{
    tree_make(&tree, 1);
    ck_assert_int_eq(proc_open(tree.root, &proc), 0);
    ck_assert_int_eq(broker_new(&proc, &broker), 0);
}

static void teardown(void)
{
    broker_free(broker);
    proc_close(&proc);
    tree_remove(&tree);
}

START_TEST(lists_kvm_files_in_order)
{
    static const struct kvm_file expected[] = {
        {3, KVM_FILE_VM, -1},        {9, KVM_FILE_VCPU, 2},   {10, KVM_FILE_VCPU_STATS, 2},
        {11, KVM_FILE_VM_STATS, -1}, {100, KVM_FILE_VCPU, 0},
    };
    struct kvm_file_list list;
    tree_link(&tree, 5, "fd/0", "/dev/null");
    tree_link(&tree, 5, "fd/100", "anon_inode:kvm-vcpu:0");
    tree_link(&tree, 5, "fd/11", "anon_inode:kvm-vm-stats");
    tree_link(&tree, 5, "fd/3", "anon_inode:kvm-vm");
    tree_link(&tree, 5, "fd/10", "anon_inode:kvm-vcpu-stats:2");
    tree_link(&tree, 5, "fd/9", "anon_inode:kvm-vcpu:2");
    tree_link(&tree, 5, "fd/4", "/home/x/anon_inode:kvm-vm-stats");
    tree_link(&tree, 5, "fd/5", "anon_inode:[eventfd]");
    ck_assert_int_eq(broker_list(broker, 5, &list), 0);
    ck_assert_uint_eq(list.n_fds, 8);
    ck_assert_uint_eq(list.n, ARRAY_LEN(expected));
    for (size_t i = 0; i < list.n; i++) {
        ck_assert_int_eq(list.files[i].fd, expected[i].fd);
        ck_assert_int_eq(list.files[i].kind, expected[i].kind);
        ck_assert_int_eq(list.files[i].vcpu, expected[i].vcpu);
    }
    kvm_file_list_free(&list);
}
END_TEST

/* A text longer than any of KVM's must not be taken for its beginning. */
START_TEST(long_links_are_nothing)
{
    char link[300];
    struct kvm_file_list list;
    for (size_t digits = 1; digits < 200; digits++) {
        char name[32];
        (void)snprintf(name, sizeof name, "fd/%zu", digits);
        (void)snprintf(link, sizeof link, "anon_inode:kvm-vcpu:1%0*d", (int)digits, 0);
        tree_link(&tree, 6, name, link);
    }
    ck_assert_int_eq(broker_list(broker, 6, &list), 0);
    ck_assert_uint_eq(list.n_fds, 199);
    ck_assert_uint_eq(list.n, 9); /* 10 … 1000000000 */
    kvm_file_list_free(&list);
}
END_TEST

START_TEST(many_fds)
{
    struct kvm_file_list list;
    for (int i = 0; i < 3000; i++) {
        char name[32], link[64];
        (void)snprintf(name, sizeof name, "fd/%d", i);
        (void)snprintf(link, sizeof link, "anon_inode:kvm-vcpu-stats:%d", i);
        tree_link(&tree, 6, name, link);
    }
    ck_assert_int_eq(broker_list(broker, 6, &list), 0);
    ck_assert_uint_eq(list.n, 3000);
    for (int i = 0; i < 3000; i++) {
        ck_assert_int_eq(list.files[i].fd, i);
        ck_assert_int_eq(list.files[i].vcpu, i);
    }
    kvm_file_list_free(&list);
}
END_TEST

START_TEST(no_process)
{
    struct kvm_file_list list = {.n = 77};
    ck_assert_int_eq(broker_list(broker, 4, &list), -ESRCH);
    ck_assert_uint_eq(list.n, 77);
}
END_TEST

START_TEST(still_there_by_link)
{
    const struct kvm_file file = {3, KVM_FILE_VCPU_STATS, 1};
    tree_link(&tree, 5, "fd/3", "anon_inode:kvm-vcpu-stats:1");
    ck_assert_int_eq(broker_still_there(broker, 5, &file, -1), 1);
    ck_assert_int_eq(broker_still_there(broker, 5, &(struct kvm_file){3, KVM_FILE_VCPU, 1}, -1), 0);
    ck_assert_int_eq(
        broker_still_there(broker, 5, &(struct kvm_file){3, KVM_FILE_VCPU_STATS, 0}, -1), 0);
    ck_assert_int_eq(
        broker_still_there(broker, 5, &(struct kvm_file){4, KVM_FILE_VCPU_STATS, 1}, -1), 0);
}
END_TEST

/* Only stats files may be asked for at all, and only stats files come back. */
START_TEST(borrows_nothing_else)
{
    int fd = -7, victim = eventfd(0, EFD_CLOEXEC);
    int pidfd = pidfd_open(getpid(), 0);
    ck_assert_int_ge(pidfd, 0);
    int next = eventfd(0, EFD_CLOEXEC);
    ck_assert_int_eq(close(next), 0);

    const struct kvm_file vm = {victim, KVM_FILE_VM, -1};
    const struct kvm_file vcpu = {victim, KVM_FILE_VCPU, 0};
    const struct kvm_file vm_stats = {victim, KVM_FILE_VM_STATS, -1};
    const struct kvm_file none = {9999, KVM_FILE_VM_STATS, -1};
    ck_assert_int_eq(broker_borrow(broker, pidfd, &vm, &fd), -EINVAL);
    ck_assert_int_eq(broker_borrow(broker, pidfd, &vcpu, &fd), -EINVAL);
    ck_assert_int_eq(broker_borrow(broker, pidfd, &vm_stats, &fd), -ESTALE);
    ck_assert_int_eq(broker_borrow(broker, pidfd, &none, &fd), -ESTALE);
    ck_assert_int_eq(fd, -7);

    int again = eventfd(0, EFD_CLOEXEC);
    ck_assert_int_eq(again, next); /* nothing was left open */
    (void)close(again);
    (void)close(pidfd);
    (void)close(victim);
}
END_TEST

START_TEST(same_file_is_the_open_file)
{
    int a = eventfd(0, 0), b = dup(a), c = eventfd(0, 0), ab, ba;
    ck_assert_int_eq(broker_same_file(broker, getpid(), a, getpid(), b), 1);
    ck_assert_int_eq(broker_same_file(broker, getpid(), a, getpid(), c), 0);
    ck_assert_int_eq(broker_order_files(broker, getpid(), a, getpid(), c, &ab), 0);
    ck_assert_int_eq(broker_order_files(broker, getpid(), c, getpid(), a, &ba), 0);
    ck_assert_int_eq(ab, -ba);
    ck_assert_int_ne(ab, 0);
    (void)close(b);
    ck_assert_int_eq(broker_same_file(broker, getpid(), a, getpid(), b), -EBADF);
}
END_TEST

Suite *suite_list(void)
{
    Suite *suite = suite_create("broker");
    TCase *tcase = tcase_create("broker");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, lists_kvm_files_in_order);
    tcase_add_test(tcase, long_links_are_nothing);
    tcase_add_test(tcase, many_fds);
    tcase_add_test(tcase, no_process);
    tcase_add_test(tcase, still_there_by_link);
    tcase_add_test(tcase, borrows_nothing_else);
    tcase_add_test(tcase, same_file_is_the_open_file);
    suite_add_tcase(suite, tcase);
    return suite;
}
