/* SPDX-License-Identifier: Apache-2.0 */
/* One VMM, one VM: what is found of it, and how that keeps up with what the VMM does. */
#include <stdio.h>
#include <sys/pidfd.h>

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

enum {
    MADE_MAX = 8,
};
static int made[MADE_MAX]; /* all fds of the last VM */

/* A VM with `n` vCPUs and all stats fds: VM, its stats, vCPU 0, its stats, … */
static int make_vm(int n)
{
    made[0] = vmm_do(&vmm, VMM_MAKE_VM, 0, 0);
    made[1] = vmm_do(&vmm, VMM_STATS, made[0], 0);
    for (int i = 0; i < n; i++) {
        made[2 + 2 * i] = vmm_do(&vmm, VMM_MAKE_VCPU, made[0], i);
        made[3 + 2 * i] = vmm_do(&vmm, VMM_STATS, made[2 + 2 * i], 0);
    }
    return made[0];
}

START_TEST(reads_what_is_kept)
{
    (void)make_vm(2);
    rig_look(&rig);
    ck_assert_str_eq(rig_targets(&rig, vmm.pid), "VM 0 1");
    ck_assert_uint_eq(rig_vm(&rig, vmm.pid)->n_vcpus, 2);
    ck_assert_int_eq(rig_vm(&rig, vmm.pid)->created_ns, 0); /* there was no event */
    RIG_ASSERT_REASON(&rig, vmm.pid, UNREADABLE_NOT);
    ck_assert(rig.store->self.looked_once);

    /* The fds are what they are said to be: KVM tells each vCPU's number in its id. */
    for (int i = 0; i < 2; i++) {
        char id[49] = "";
        unsigned tid, vcpu;
        ck_assert_int_eq(pread(rig_vm(&rig, vmm.pid)->fds[1 + i], id, 48, 24), 48);
        ck_assert_int_eq(sscanf(id, "kvm-%u/vcpu-%u", &tid, &vcpu), 2);
        ck_assert_int_eq((pid_t)tid, vmm.pid);
        ck_assert_int_eq((int)vcpu, i);
    }
    /* Nothing new: nothing is done. */
    unsigned commits = rig.commits;
    rig_look(&rig);
    ck_assert_uint_eq(rig.commits, commits);
    ck_assert_uint_eq(rig.added, 1);
}
END_TEST

START_TEST(nothing_kept)
{
    int vm = vmm_do(&vmm, VMM_MAKE_VM, 0, 0);
    int vcpu = vmm_do(&vmm, VMM_MAKE_VCPU, vm, 5);
    rig_look(&rig);
    ck_assert_ptr_null(rig_vm(&rig, vmm.pid));
    RIG_ASSERT_REASON(&rig, vmm.pid, UNREADABLE_NO_STATS_FD);
    /* As QEMU from 8.1 on: those of the vCPUs alone. */
    int stats = vmm_do(&vmm, VMM_STATS, vcpu, 0);
    rig_look(&rig);
    ck_assert_str_eq(rig_targets(&rig, vmm.pid), "5");
    RIG_ASSERT_REASON(&rig, vmm.pid, UNREADABLE_NOT);
    (void)vmm_do(&vmm, VMM_CLOSE, stats, 0);
    rig_look(&rig);
    ck_assert_ptr_null(rig_vm(&rig, vmm.pid));
    RIG_ASSERT_REASON(&rig, vmm.pid, UNREADABLE_NO_STATS_FD);
}
END_TEST

START_TEST(later_vcpus)
{
    int vm = make_vm(1);
    rig_look(&rig);
    ck_assert_str_eq(rig_targets(&rig, vmm.pid), "VM 0");
    int vcpu = vmm_do(&vmm, VMM_MAKE_VCPU, vm, 9);
    rig_look(&rig);
    ck_assert_str_eq(rig_targets(&rig, vmm.pid), "VM 0");
    ck_assert_uint_eq(rig_vm(&rig, vmm.pid)->n_vcpus, 2); /* one of them not readable yet */
    (void)vmm_do(&vmm, VMM_STATS, vcpu, 0);
    rig_look(&rig);
    ck_assert_str_eq(rig_targets(&rig, vmm.pid), "VM 0 9");
    ck_assert_uint_eq(rig.added, 1);
    ck_assert_uint_eq(rig.targets_added, 3);
    ck_assert_uint_eq(rig.targets_removed, 0);
}
END_TEST

/* Duplicates, and a vCPU that was parked and plugged in again: one target an id, never disturbed.
 */
START_TEST(one_target_an_id)
{
    int vm = make_vm(1), vcpu = made[2], first = made[3];
    int second = vmm_do(&vmm, VMM_STATS, vcpu, 0);
    int third = vmm_do(&vmm, VMM_DUP, first, 0);
    (void)vmm_do(&vmm, VMM_DUP, vm, 0);
    (void)vmm_do(&vmm, VMM_DUP, vcpu, 0);
    rig_look(&rig);
    ck_assert_uint_eq(rig_vm(&rig, vmm.pid)->n_vcpus, 1);
    RIG_ASSERT_REASON(&rig, vmm.pid, UNREADABLE_NOT);

    const int order[] = {first, third, second};
    for (size_t i = 0; i < ARRAY_LEN(order); i++) {
        ck_assert_str_eq(rig_targets(&rig, vmm.pid), "VM 0");
        (void)vmm_do(&vmm, VMM_CLOSE, order[i], 0);
        rig_look(&rig);
    }
    ck_assert_str_eq(rig_targets(&rig, vmm.pid), "VM");
    ck_assert_uint_eq(rig.targets_added, 2);
    ck_assert_uint_eq(rig.targets_removed, 1);
    ck_assert_uint_eq(rig.added, 1);
    ck_assert_uint_eq(rig.removed, 0);
}
END_TEST

/* Closed and opened anew, by number of fds nothing has changed: kcmp() tells. */
START_TEST(stats_fd_vanishes)
{
    int vm = make_vm(1);
    int vcpu = vmm_do(&vmm, VMM_MAKE_VCPU, vm, 1);
    int stats = vmm_do(&vmm, VMM_STATS, vcpu, 0);
    int other = vmm_do(&vmm, VMM_NULL, 0, 0);
    rig_look(&rig);
    ck_assert_str_eq(rig_targets(&rig, vmm.pid), "VM 0 1");
    (void)vmm_do(&vmm, VMM_DUP2, other, stats);
    rig_look(&rig);
    ck_assert_str_eq(rig_targets(&rig, vmm.pid), "VM 0");
    ck_assert_uint_eq(rig.targets_removed, 1);
    ck_assert_uint_eq(rig.removed, 0);
}
END_TEST

START_TEST(vm_closed_while_the_process_lives)
{
    int vm = vmm_do(&vmm, VMM_MAKE_VM, 0, 0);
    int stats = vmm_do(&vmm, VMM_STATS, vm, 0);
    enum unreadable_reason reason;
    rig_look(&rig);
    ck_assert_str_eq(rig_targets(&rig, vmm.pid), "VM");
    (void)vmm_do(&vmm, VMM_CLOSE, vm, 0);
    rig_look(&rig);
    /* With the stats fd alone it is no VMM. */
    ck_assert_ptr_null(rig_vm(&rig, vmm.pid));
    ck_assert_uint_eq(rig_roster(&rig, vmm.pid, &reason), 0);
    (void)vmm_do(&vmm, VMM_CLOSE, stats, 0);
    rig_look(&rig);
    ck_assert_uint_eq(rig_roster(&rig, vmm.pid, &reason), 0);
    ck_assert_uint_eq(rig.removed, 1);
}
END_TEST

/* The same numbers for a new VM's files: the number of fds tells nothing, only kcmp() does. */
START_TEST(vm_replaced_in_place)
{
    int vm = vmm_do(&vmm, VMM_MAKE_VM, 0, 0);
    int stats = vmm_do(&vmm, VMM_STATS, vm, 0);
    rig_look(&rig);
    void *first = rig_vm(&rig, vmm.pid)->owner;
    (void)vmm_do(&vmm, VMM_CLOSE, stats, 0);
    (void)vmm_do(&vmm, VMM_CLOSE, vm, 0);
    ck_assert_int_eq(vmm_do(&vmm, VMM_MAKE_VM, 0, 0), vm);
    ck_assert_int_eq(vmm_do(&vmm, VMM_STATS, vm, 0), stats);
    rig_look(&rig);
    ck_assert_str_eq(rig_targets(&rig, vmm.pid), "VM");
    ck_assert_ptr_ne(rig_vm(&rig, vmm.pid)->owner, first);
    ck_assert_uint_eq(rig.added, 2);
    ck_assert_uint_eq(rig.removed, 1);
    ck_assert_int_gt(
        broker_same_file(rig.broker, getpid(), rig_vm(&rig, vmm.pid)->fds[0], vmm.pid, stats), 0);
}
END_TEST

/* A stats fd closed and opened again is the same vCPU: what we have goes on reading it. */
START_TEST(stats_fd_reopened)
{
    int vm = vmm_do(&vmm, VMM_MAKE_VM, 0, 0);
    int vcpu = vmm_do(&vmm, VMM_MAKE_VCPU, vm, 0);
    (void)vmm_do(&vmm, VMM_STATS, vm, 0);
    int stats = vmm_do(&vmm, VMM_STATS, vcpu, 0);
    rig_look(&rig);
    (void)vmm_do(&vmm, VMM_CLOSE, stats, 0);
    (void)vmm_do(&vmm, VMM_STATS, vcpu, 0);
    for (int i = 0; i < 3; i++)
        rig_look(&rig);
    ck_assert_str_eq(rig_targets(&rig, vmm.pid), "VM 0");
    ck_assert_uint_eq(rig.targets_added, 2);
    ck_assert_uint_eq(rig.targets_removed, 0);
    ck_assert_uint_eq(rig.added, 1);
}
END_TEST

START_TEST(several_vms_are_ambiguous)
{
    enum unreadable_reason reason;
    (void)make_vm(1);
    int stats = made[1];
    rig_look(&rig);
    ck_assert_str_eq(rig_targets(&rig, vmm.pid), "VM 0");
    (void)make_vm(1);
    rig_look(&rig);
    ck_assert_ptr_null(rig_vm(&rig, vmm.pid));
    ck_assert_uint_eq(rig_roster(&rig, vmm.pid, &reason), 2);
    ck_assert_int_eq(reason, UNREADABLE_AMBIGUOUS);
    {
        CLEANUP(cleanup_roster_unref) struct roster *roster = roster_get(&rig.store->roster);
        ck_assert_uint_ge(roster->unreadable[UNREADABLE_AMBIGUOUS], 2);
    }
    /* Only when all of one VM's files are gone can the other's be told again. */
    for (int i = 0; i < 4; i++)
        (void)vmm_do(&vmm, VMM_CLOSE, made[i], 0);
    rig_look(&rig);
    ck_assert_str_eq(rig_targets(&rig, vmm.pid), "VM 0");
    ck_assert_int_gt(
        broker_same_file(rig.broker, getpid(), rig_vm(&rig, vmm.pid)->fds[0], vmm.pid, stats), 0);
}
END_TEST

START_TEST(several_vms_without_stats)
{
    enum unreadable_reason reason;
    for (int i = 0; i < 3; i++)
        (void)vmm_do(&vmm, VMM_DUP, vmm_do(&vmm, VMM_MAKE_VM, 0, 0), 0);
    rig_look(&rig);
    ck_assert_uint_eq(rig_roster(&rig, vmm.pid, &reason), 3);
    ck_assert_int_eq(reason, UNREADABLE_NO_STATS_FD);
}
END_TEST

START_TEST(killed)
{
    pid_t pid = vmm.pid;
    enum unreadable_reason reason;
    (void)make_vm(1);
    rig_look(&rig);
    ck_assert_str_eq(rig_targets(&rig, pid), "VM 0");
    vmm_kill(&vmm);
    rig_look(&rig);
    ck_assert_ptr_null(rig_vm(&rig, pid));
    ck_assert_uint_eq(rig_roster(&rig, pid, &reason), 0);
    ck_assert_uint_eq(rig.removed, 1);
}
END_TEST

/* The sampler's word comes first; what it says of a VM that is no more is passed over. */
START_TEST(sampler_says_exited)
{
    pid_t pid = vmm.pid;
    (void)make_vm(1);
    rig_look(&rig);
    void *owner = rig_vm(&rig, pid)->owner;
    vmm_kill(&vmm);
    discovery_vm_exited(rig.discovery, owner);
    ck_assert_ptr_null(rig_vm(&rig, pid));
    discovery_vm_exited(rig.discovery, owner);
    discovery_read_failed(rig.discovery, owner, 0, -EIO);
    rig_look(&rig);
    ck_assert_uint_eq(rig.added, 1);
    ck_assert_uint_eq(rig.removed, 1);
}
END_TEST

/*
 * What no mark shows and no event has told of: one fd closed and a VM in its place. Its turn comes.
 */
START_TEST(nothing_stays_unseen)
{
    int fd = vmm_do(&vmm, VMM_NULL, 0, 0);
    enum unreadable_reason reason;
    rig_look(&rig);
    (void)vmm_do(&vmm, VMM_CLOSE, fd, 0);
    ck_assert_int_eq(vmm_do(&vmm, VMM_MAKE_VM, 0, 0), fd);
    rig.discovery->fds_budget = -100000; /* however long it is since the last look */
    rig_look(&rig);
    if (rig.discovery->counts_fds)
        ck_assert_uint_eq(rig_roster(&rig, vmm.pid, &reason), 0);
    /* As after an hour. */
    rig.discovery->rescanned_ns -= 3600 * NSEC_PER_SEC;
    rig.discovery->fds_budget = 0;
    rig_look(&rig);
    ck_assert_uint_eq(rig_roster(&rig, vmm.pid, &reason), 1);
}
END_TEST

START_TEST(rules)
{
    (void)make_vm(1);
    rig_set_config(&rig, rig.config /* a further reference to the same: nothing changes */);
    rig_look(&rig);
    ck_assert_str_eq(rig_targets(&rig, vmm.pid), "VM 0");

    struct config *off =
        rig_config("sampling: {rules: [{match: {vm: \"pid-*\"}, enabled: false}]}");
    rig_set_config(&rig, off);
    config_unref(off);
    rig_look(&rig);
    ck_assert_ptr_null(rig_vm(&rig, vmm.pid));
    RIG_ASSERT_REASON(&rig, vmm.pid, UNREADABLE_DISABLED);

    struct config *on = rig_config("discovery: {rescan: 1s}");
    rig_set_config(&rig, on);
    config_unref(on);
    rig_look(&rig);
    ck_assert_str_eq(rig_targets(&rig, vmm.pid), "VM 0");
    RIG_ASSERT_REASON(&rig, vmm.pid, UNREADABLE_NOT);

    struct config *bpf = rig_config("discovery: {sources: [handoff]}");
    rig_set_config(&rig, bpf);
    config_unref(bpf);
    rig_look(&rig);
    ck_assert_ptr_null(rig_vm(&rig, vmm.pid));
    RIG_ASSERT_REASON(&rig, vmm.pid, UNREADABLE_NO_STATS_FD);
}
END_TEST

/* Where stats fds do not keep their VM, its own fd is held first, whether that is known or not. */
START_TEST(unsafe_kernel_means_pinned)
{
    static const enum stats_fd_safety unsafe[] = {STATS_FDS_DO_NOT, STATS_FDS_UNKNOWN};
    broker_set_safety(rig.broker, unsafe[_i]);
    rig.pin_first = true;
    (void)make_vm(2);
    rig_look(&rig);
    ck_assert_str_eq(rig_targets(&rig, vmm.pid), "VM 0 1");
    ck_assert_int_ge(rig_vm(&rig, vmm.pid)->pin_fd, 0);
    RIG_ASSERT_REASON(&rig, vmm.pid, UNREADABLE_NOT);
}
END_TEST

START_TEST(unsafe_kernel_at_the_operators_risk)
{
    struct config *allow = rig_config("discovery: {unsafe_kernel: allow}");
    broker_set_safety(rig.broker, STATS_FDS_DO_NOT);
    rig_set_config(&rig, allow);
    config_unref(allow);
    (void)make_vm(1);
    rig_look(&rig);
    ck_assert_str_eq(rig_targets(&rig, vmm.pid), "VM 0");
    ck_assert_int_eq(rig_vm(&rig, vmm.pid)->pin_fd, -1);
}
END_TEST

/* What was read at the operator's risk is held, or not read, once that is taken back. */
START_TEST(unsafe_kernel_no_longer_at_the_operators_risk)
{
    struct config *allow = rig_config("discovery: {unsafe_kernel: allow}");
    struct config *refuse = rig_config("discovery: {unsafe_kernel: refuse}");
    broker_set_safety(rig.broker, STATS_FDS_DO_NOT);
    rig_set_config(&rig, allow);
    (void)make_vm(1);
    rig_look(&rig);
    ck_assert_int_eq(rig_vm(&rig, vmm.pid)->pin_fd, -1);
    rig.pin_first = true;
    rig_set_config(&rig, refuse);
    rig_look(&rig);
    ck_assert_str_eq(rig_targets(&rig, vmm.pid), "VM 0");
    ck_assert_int_ge(rig_vm(&rig, vmm.pid)->pin_fd, 0);
    config_unref(allow);
    config_unref(refuse);
}
END_TEST

/* This kernel's stats fds keep their VM, which the probe has to find out, and then nothing is
 * pinned. */
START_TEST(sound_kernel_needs_no_pin)
{
    ck_assert_int_eq(broker_safety(rig.broker), STATS_FDS_HOLD);
    (void)make_vm(1);
    rig_look(&rig);
    ck_assert_str_eq(rig_targets(&rig, vmm.pid), "VM 0");
    ck_assert_int_eq(rig_vm(&rig, vmm.pid)->pin_fd, -1);
}
END_TEST

START_TEST(disabled_from_the_start_borrows_nothing)
{
    struct config *off =
        rig_config("sampling: {rules: [{match: {vm: \"pid-*\"}, enabled: false}]}");
    (void)make_vm(1);
    rig_set_config(&rig, off);
    config_unref(off);
    rig_look(&rig);
    ck_assert_uint_eq(rig.added, 0);
    RIG_ASSERT_REASON(&rig, vmm.pid, UNREADABLE_DISABLED);
}
END_TEST

/* Our own VMs are nobody's business. */
START_TEST(never_ourselves)
{
    enum unreadable_reason reason;
    int vm = vmm_do(&vmm, VMM_MAKE_VM, 0, 0);
    int pidfd = pidfd_open(vmm.pid, 0);
    int mine = pidfd_getfd(pidfd, vm, 0);
    ck_assert_int_ge(mine, 0);
    rig_look(&rig);
    ck_assert_uint_eq(rig_roster(&rig, getpid(), &reason), 0);
    RIG_ASSERT_REASON(&rig, vmm.pid, UNREADABLE_NO_STATS_FD);
    (void)close(mine);
    (void)close(pidfd);
}
END_TEST

Suite *suite_looks(void)
{
    const TTest *const tests[] = {
        reads_what_is_kept,
        nothing_kept,
        later_vcpus,
        one_target_an_id,
        stats_fd_vanishes,
        vm_closed_while_the_process_lives,
        vm_replaced_in_place,
        stats_fd_reopened,
        several_vms_are_ambiguous,
        several_vms_without_stats,
        killed,
        sampler_says_exited,
        nothing_stays_unseen,
        rules,
        never_ourselves,
        disabled_from_the_start_borrows_nothing,
        unsafe_kernel_at_the_operators_risk,
        unsafe_kernel_no_longer_at_the_operators_risk,
        sound_kernel_needs_no_pin,
    };
    Suite *suite = suite_create("looks");
    TCase *tcase = tcase_create("looks");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 120);
    for (size_t i = 0; i < ARRAY_LEN(tests); i++)
        tcase_add_test(tcase, tests[i]);
    tcase_add_loop_test(tcase, unsafe_kernel_means_pinned, 0, 2);
    suite_add_tcase(suite, tcase);
    return suite;
}
