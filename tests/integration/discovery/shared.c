/* SPDX-License-Identifier: Apache-2.0 */
/* One VM once, however many processes hold its fds. */
#include <sys/pidfd.h>

#include "kvmtest.h"
#include "rig.h"
#include "suites.h"
#include "vmm.h"

static struct rig rig;
static struct vmm_process a, b;

static void setup(void)
{
    kvmtest_require_kvm();
    rig_setup(&rig, "{}");
    a = vmm_start();
    b = vmm_start();
    rig_made(&rig, a.pid);
    rig_made(&rig, b.pid);
}

static void teardown(void)
{
    rig_teardown(&rig);
}

static unsigned in_roster(pid_t pid)
{
    enum unreadable_reason reason;
    return rig_roster(&rig, pid, &reason);
}

static int stats_of_last;

/* A VM with a vCPU: who has a duplicate of that too may run it. */
static int make_vm(const struct vmm_process *vmm)
{
    int vm = vmm_do(vmm, VMM_MAKE_VM, 0, 0);
    stats_of_last = vmm_do(vmm, VMM_STATS, vm, 0);
    (void)vmm_do(vmm, VMM_MAKE_VCPU, vm, 0);
    return vm;
}

/* Whichever is seen first, before or after the fork: the one that made it is its VMM. */
START_TEST(forked)
{
    (void)make_vm(&a);
    if (_i)
        rig_look_at_all(&rig);
    pid_t child = vmm_do(&a, VMM_FORK, 0, 0);
    rig_want(&rig, child);
    rig_look_at_all(&rig);
    ck_assert_str_eq(rig_targets(&rig, a.pid), "VM");
    ck_assert_uint_eq(in_roster(a.pid), 1);
    ck_assert_uint_eq(in_roster(child), 0);
    ck_assert_ptr_null(rig_vm(&rig, child));

    /* When it goes, the VM does not. */
    pid_t parent = a.pid;
    vmm_kill(&a);
    rig_look_at_all(&rig);
    ck_assert_ptr_null(rig_vm(&rig, parent));
    ck_assert_uint_eq(in_roster(parent), 0);
    ck_assert_str_eq(rig_targets(&rig, child), "VM");
    ck_assert_uint_eq(in_roster(child), 1);

    vmm_kill_forked(child);
    rig_look_at_all(&rig);
    ck_assert_uint_eq(in_roster(child), 0);
    ck_assert_uint_eq(rig.added, 2);
    ck_assert_uint_eq(rig.removed, 2);
}
END_TEST

/* The sampler's word that the owner has exited is enough to find the other holder, at once. */
START_TEST(owner_exits)
{
    (void)make_vm(&a);
    pid_t child = vmm_do(&a, VMM_FORK, 0, 0);
    rig_want(&rig, child);
    rig_look_at_all(&rig);
    void *owner = rig_vm(&rig, a.pid)->owner;
    vmm_kill(&a);
    discovery_vm_exited(rig.discovery, owner);
    ck_assert(looks_pending(rig.discovery, child));
    rig_look_at_all(&rig);
    ck_assert_str_eq(rig_targets(&rig, child), "VM");
    vmm_kill_forked(child);
}
END_TEST

/* Handed over a socket the fds have other numbers; the one that made the VM has it, in any order.
 */
START_TEST(passed_on)
{
    struct vmm_process *maker = _i & 1 ? &a : &b, *taker = _i & 1 ? &b : &a;
    int vm = vmm_do(maker, VMM_MAKE_VM, 0, 0);
    int stats = vmm_do(maker, VMM_STATS, vm, 0);
    for (int i = 0; i < 5; i++)
        (void)vmm_do(taker, VMM_NULL, 0, 0);
    if (_i & 2)
        rig_look_at_all(&rig);
    (void)vmm_do(taker, VMM_BORROW, maker->pid, vm);
    (void)vmm_do(taker, VMM_BORROW, maker->pid, stats);
    rig_look_at_all(&rig);
    ck_assert_str_eq(rig_targets(&rig, maker->pid), "VM");
    ck_assert_uint_eq(in_roster(maker->pid), 1);
    ck_assert_uint_eq(in_roster(taker->pid), 0);
}
END_TEST

/* Nothing tells who made it: the older process has it. */
START_TEST(without_stats)
{
    int vm = vmm_do(&b, VMM_MAKE_VM, 0, 0);
    (void)vmm_do(&a, VMM_BORROW, b.pid, vm);
    rig_look_at_all(&rig);
    ck_assert_uint_eq(in_roster(a.pid) + in_roster(b.pid), 1);
}
END_TEST

/*
 * Other monitors, like us: one holds statistics and nothing else, one the VM besides. They are
 * never taken for a VMM, nor when the VMM has gone: two such monitors would keep the VM for ever.
 */
START_TEST(another_monitor)
{
    struct vmm_process monitor = vmm_start(); /* not among those that made a VM */
    int vm = make_vm(&a);
    rig_want(&rig, monitor.pid);
    (void)vmm_do(&monitor, VMM_BORROW, a.pid, stats_of_last);
    if (_i)
        (void)vmm_do(&monitor, VMM_BORROW, a.pid, vm);
    for (int i = 0; i < 2; i++) {
        rig_look_at_all(&rig);
        ck_assert_str_eq(rig_targets(&rig, a.pid), "VM");
        ck_assert_uint_eq(in_roster(monitor.pid), 0);
    }
    vmm_kill(&a);
    for (int i = 0; i < 2; i++) {
        rig_look_at_all(&rig);
        ck_assert_ptr_null(rig.vms);
        ck_assert_uint_eq(in_roster(monitor.pid), 0);
    }
}
END_TEST

/* A second holder that lets go, or ends, is no news. */
START_TEST(second_holder_lets_go)
{
    int vm = vmm_do(&a, VMM_MAKE_VM, 0, 0);
    (void)vmm_do(&a, VMM_STATS, vm, 0);
    int taken = vmm_do(&b, VMM_BORROW, a.pid, vm);
    rig_look_at_all(&rig);
    (void)vmm_do(&b, VMM_CLOSE, taken, 0);
    rig_look_at_all(&rig);
    (void)vmm_do(&b, VMM_BORROW, a.pid, vm);
    rig_look_at_all(&rig);
    vmm_kill(&b);
    rig_look_at_all(&rig);
    ck_assert_str_eq(rig_targets(&rig, a.pid), "VM");
    ck_assert_uint_eq(rig.added, 1);
    ck_assert_uint_eq(rig.removed, 0);
}
END_TEST

/* Many VMs in many processes, then some shared: the table is in order whatever comes first. */
START_TEST(among_many)
{
    enum {
        N = 24
    };
    struct vmm_process vmms[N];
    int vms[N];
    for (int i = 0; i < N; i++) {
        vmms[i] = vmm_start();
        rig_made(&rig, vmms[i].pid);
        vms[i] = vmm_do(&vmms[i], VMM_MAKE_VM, 0, 0);
        if (i % 3)
            (void)vmm_do(&vmms[i], VMM_STATS, vms[i], 0);
        if (i % 5 == 0)
            rig_look_at_all(&rig);
    }
    rig_look_at_all(&rig);
    for (int i = 0; i < N; i++) {
        ck_assert_uint_eq(in_roster(vmms[i].pid), 1);
        (void)vmm_do(&b, VMM_BORROW, vmms[i].pid, vms[i]);
    }
    rig_look_at_all(&rig);
    unsigned total = in_roster(b.pid);
    for (int i = 0; i < N; i++)
        total += in_roster(vmms[i].pid);
    ck_assert_uint_eq(total, N);
    for (int i = 0; i < N; i += 2)
        vmm_kill(&vmms[i]);
    rig_look_at_all(&rig);
    total = in_roster(b.pid);
    for (int i = 1; i < N; i += 2)
        total += in_roster(vmms[i].pid);
    ck_assert_uint_eq(total, N);
    vmm_kill(&b);
    rig_look_at_all(&rig);
    for (int i = 1; i < N; i += 2) {
        ck_assert_uint_eq(in_roster(vmms[i].pid), 1);
        ck_assert_str_eq(rig_targets(&rig, vmms[i].pid), i % 3 ? "VM" : "");
    }
    ck_assert_uint_eq(rig.added - rig.removed, 8); /* of 1, 3 … 23 those not divisible by 3 */
}
END_TEST

Suite *suite_shared(void)
{
    Suite *suite = suite_create("shared");
    TCase *tcase = tcase_create("shared");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 120);
    tcase_add_loop_test(tcase, forked, 0, 2);
    tcase_add_test(tcase, owner_exits);
    tcase_add_loop_test(tcase, passed_on, 0, 4);
    tcase_add_test(tcase, without_stats);
    tcase_add_loop_test(tcase, another_monitor, 0, 2);
    tcase_add_test(tcase, second_holder_lets_go);
    tcase_add_test(tcase, among_many);
    suite_add_tcase(suite, tcase);
    return suite;
}
