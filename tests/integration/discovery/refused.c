/* SPDX-License-Identifier: Apache-2.0 */
/* What cannot be read, why, and that it is tried again. */
#include <stdio.h>
#include <sys/pidfd.h>
#include <sys/resource.h>

#include "kvmtest.h"
#include "rig.h"
#include "suites.h"
#include "vmm.h"

static struct rig rig;
static struct vmm_process vmm;

static void setup(void)
{
    kvmtest_require_kvm();
    rig_setup(&rig, "{}");
    vmm = vmm_start();
    rig_made(&rig, vmm.pid);
}

static void teardown(void)
{
    rig_teardown(&rig);
}

static int count_own_fds(void)
{
    return kvmtest_count_fds(getpid(), "");
}

/* Between listing and borrowing the number has become another file's: it is not kept. */
START_TEST(number_reused)
{
    struct kvm_file_list list;
    int vm = vmm_do(&vmm, VMM_MAKE_VM, 0, 0);
    int vcpu = vmm_do(&vmm, VMM_MAKE_VCPU, vm, 0);
    int vm_stats = vmm_do(&vmm, VMM_STATS, vm, 0);
    int vcpu_stats = vmm_do(&vmm, VMM_STATS, vcpu, 0);
    int other = vmm_do(&vmm, VMM_NULL, 0, 0);
    int pidfd = pidfd_open(vmm.pid, 0), fd = -7;
    ck_assert_int_eq(broker_list(rig.broker, vmm.pid, &list), 0);
    ck_assert_uint_eq(list.n, 4);
    int before = count_own_fds();

    (void)vmm_do(&vmm, VMM_DUP2, other, vm_stats);
    ck_assert_int_eq(broker_borrow(rig.broker, pidfd, &list.files[2], &fd), -ESTALE);
    /* another kind of KVM file, and another vCPU's */
    (void)vmm_do(&vmm, VMM_DUP2, vcpu_stats, vm_stats);
    ck_assert_int_eq(broker_borrow(rig.broker, pidfd, &list.files[2], &fd), -ESTALE);
    (void)vmm_do(&vmm, VMM_DUP2, vm, vcpu_stats);
    ck_assert_int_eq(broker_borrow(rig.broker, pidfd, &list.files[3], &fd), -ESTALE);
    (void)vmm_do(&vmm, VMM_CLOSE, vcpu_stats, 0);
    ck_assert_int_eq(broker_borrow(rig.broker, pidfd, &list.files[3], &fd), -ESTALE);
    /* never the VM itself */
    ck_assert_int_eq(broker_borrow(rig.broker, pidfd, &list.files[0], &fd), -EINVAL);
    ck_assert_int_eq(broker_borrow(rig.broker, pidfd, &list.files[1], &fd), -EINVAL);
    ck_assert_int_eq(fd, -7);
    ck_assert_int_eq(count_own_fds(), before);
    pid_t gone = vmm.pid;
    vmm_kill(&vmm);
    ck_assert_int_eq(broker_borrow(rig.broker, pidfd, &list.files[3], &fd), -ESRCH);
    ck_assert_int_eq(broker_list(rig.broker, gone, &list), -ESRCH);
    kvm_file_list_free(&list);
    (void)close(pidfd);
}
END_TEST

/* A VM with one vCPU; returns its number over there. */
static int make_readable(void)
{
    int vm = vmm_do(&vmm, VMM_MAKE_VM, 0, 0);
    (void)vmm_do(&vmm, VMM_STATS, vm, 0);
    (void)vmm_do(&vmm, VMM_STATS, vmm_do(&vmm, VMM_MAKE_VCPU, vm, 0), 0);
    return vm;
}

START_TEST(limits_of_the_sink)
{
    (void)make_readable();
    int before = count_own_fds();
    rig.vm_add_error = -ENOSPC;
    rig_look(&rig);
    RIG_ASSERT_REASON(&rig, vmm.pid, UNREADABLE_LIMIT);
    ck_assert_int_eq(count_own_fds(), before);
    rig.vm_add_error = 0;
    rig.target_add_error = -ENOSPC;
    rig_look(&rig);
    RIG_ASSERT_REASON(&rig, vmm.pid, UNREADABLE_LIMIT);
    ck_assert_int_eq(count_own_fds(), before);
    ck_assert_uint_eq(rig.removed, rig.added);
    rig.target_add_error = 0;
    rig_look(&rig);
    RIG_ASSERT_REASON(&rig, vmm.pid, UNREADABLE_NOT);
    ck_assert_str_eq(rig_targets(&rig, vmm.pid), "VM 0");
}
END_TEST

/* A VMM makes one vCPU after the other: when it was read first, there were fewer. */
START_TEST(more_vcpus_than_it_may_have)
{
    int vm = make_readable();
    rig_look(&rig);
    ck_assert_str_eq(rig_targets(&rig, vmm.pid), "VM 0");
    rig.target_add_error = -ENOSPC;
    int vcpu = vmm_do(&vmm, VMM_MAKE_VCPU, vm, 1);
    (void)vmm_do(&vmm, VMM_STATS, vcpu, 0);
    rig_look_at_all(&rig);
    RIG_ASSERT_REASON(&rig, vmm.pid, UNREADABLE_LIMIT);
    ck_assert_str_eq(rig_targets(&rig, vmm.pid), "");
    ck_assert_uint_eq(rig.removed, rig.added);
    rig.target_add_error = 0;
    rig_look_at_all(&rig);
    RIG_ASSERT_REASON(&rig, vmm.pid, UNREADABLE_NOT);
    ck_assert_str_eq(rig_targets(&rig, vmm.pid), "VM 0 1");
}
END_TEST

START_TEST(out_of_fds)
{
    struct rlimit limit, before;
    int n = 0, fillers[3 * BROKER_FDS_RESERVED];
    (void)make_readable();
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    limit = before;
    limit.rlim_cur = 3 * BROKER_FDS_RESERVED;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    /* Two numbers are left that may be used: one for the pidfd, one for a first stats fd. */
    while (n < 2 * BROKER_FDS_RESERVED) {
        fillers[n] = dup(0);
        if (fillers[n] >= 2 * BROKER_FDS_RESERVED - 3)
            break;
        n++;
    }
    int open = count_own_fds();
    rig_look(&rig);
    RIG_ASSERT_REASON(&rig, vmm.pid, UNREADABLE_FD_LIMIT);
    ck_assert_ptr_null(rig_vm(&rig, vmm.pid)); /* not half of it */
    ck_assert_int_eq(count_own_fds(), open);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
    rig_look(&rig);
    ck_assert_str_eq(rig_targets(&rig, vmm.pid), "VM 0");
    RIG_ASSERT_REASON(&rig, vmm.pid, UNREADABLE_NOT);
}
END_TEST

/* Where nothing is readable there is nothing half done. */
START_TEST(no_fd_is_left_behind)
{
    int before = count_own_fds();
    for (int i = 0; i < 30; i++) {
        struct vmm_process one = vmm_start();
        rig_made(&rig, one.pid);
        int vm = vmm_do(&one, VMM_MAKE_VM, 0, 0);
        (void)vmm_do(&one, VMM_STATS, vm, 0);
        rig_look(&rig);
        ck_assert_str_eq(rig_targets(&rig, one.pid), "VM");
        if (i % 2)
            (void)vmm_do(&one, VMM_CLOSE, vm, 0);
        else
            vmm_kill(&one);
        rig_look(&rig);
        ck_assert_ptr_null(rig_vm(&rig, one.pid));
        if (i % 2)
            vmm_kill(&one);
    }
    ck_assert_int_eq(count_own_fds(), before);
    ck_assert_uint_eq(rig.added, 30);
    ck_assert_uint_eq(rig.removed, 30);
}
END_TEST

Suite *suite_refused(void)
{
    Suite *suite = suite_create("refused");
    TCase *tcase = tcase_create("refused");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, number_reused);
    tcase_add_test(tcase, limits_of_the_sink);
    tcase_add_test(tcase, more_vcpus_than_it_may_have);
    tcase_add_test(tcase, out_of_fds);
    tcase_add_test(tcase, no_fd_is_left_behind);
    suite_add_tcase(suite, tcase);
    return suite;
}
