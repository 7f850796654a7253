/* SPDX-License-Identifier: Apache-2.0 */
/* VMs that are handed over, by a VMM that uses the library, to a discovery that runs. */
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "kvmstats/handoff.h"
#include "kvmtest.h"
#include "rig.h"
#include "suites.h"

#ifndef KVM_GET_STATS_FD
#define KVM_GET_STATS_FD _IO(KVMIO, 0xce)
#endif

enum {
    VMS_MAX = 2,
};

static struct rig rig;
static char folder[64], path[96];

static void setup(void)
{
    char yaml[512];
    kvmtest_require_kvm();
    (void)strcpy(folder, "/tmp/kvmstatd-handed-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    (void)snprintf(path, sizeof path, "%s/sock", folder);
    (void)snprintf(yaml, sizeof yaml,
                   "discovery: {sources: [handoff], rescan: 1h}\n"
                   "handoff: {socket: %s, allow_users: [%u]}\n"
                   "limits: {max_vcpus_per_vm: 3}\n",
                   path, (unsigned)getuid());
    rig_setup(&rig, yaml);
}

static void teardown(void)
{
    discovery_stop(rig.discovery);
    rig_teardown(&rig);
    (void)rmdir(folder);
}

/* --- a VMM --- */

static void die_unless(bool good)
{
    if (!good)
        _exit(1);
}

static void give(struct kvmstatd_handoff *handoff, int vm, unsigned vcpus, bool pinned)
{
    uint64_t number;
    int stats = ioctl(vm, KVM_GET_STATS_FD, 0);
    die_unless(stats >= 0);
    die_unless(kvmstatd_handoff_vm_stats(handoff, stats, pinned ? vm : -1, NULL, NULL, &number) ==
               0);
    for (unsigned i = 0; i < vcpus; i++) {
        int vcpu = ioctl(vm, KVM_CREATE_VCPU, (unsigned long)i);
        die_unless(vcpu >= 0 && kvmstatd_handoff_vcpu(handoff, number, i, vcpu) == 0);
    }
}

/* A process with `vms` VMs of `vcpus` vCPUs each; it waits for `go` before it makes them. */
static pid_t start_vmm(int go, unsigned vms, unsigned vcpus, bool pinned)
{
    pid_t parent = getpid(), pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid > 0)
        return pid;
    struct kvmstatd_handoff *handoff;
    int fds[VMS_MAX];
    char byte;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    die_unless(getppid() == parent && read(go, &byte, 1) == 1);
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    die_unless(kvm >= 0 && kvmstatd_handoff_connect(path, &handoff) == 0);
    /* All are there before the first is given: a single one would need no telling apart. */
    for (unsigned i = 0; i < vms; i++)
        die_unless((fds[i] = ioctl(kvm, KVM_CREATE_VM, 0)) >= 0);
    for (unsigned i = 0; i < vms; i++)
        give(handoff, fds[i], vcpus, pinned);
    for (;;)
        (void)pause();
}

static pid_t start(unsigned vms, unsigned vcpus, bool pinned)
{
    int ends[2];
    ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
    pid_t pid = start_vmm(ends[0], vms, vcpus, pinned);
    rig_want(&rig, pid);
    ck_assert_int_eq(discovery_start(rig.discovery), 0);
    ck_assert_int_eq(write(ends[1], "", 1), 1);
    (void)close(ends[0]);
    (void)close(ends[1]);
    return pid;
}

static void end(pid_t pid)
{
    (void)kill(pid, SIGKILL);
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}

/* --- what becomes of it --- */

static void nap(void)
{
    struct timespec pause_ms = {.tv_nsec = 1000 * 1000};
    (void)nanosleep(&pause_ms, NULL);
}

static bool has(pid_t pid, unsigned vms, enum unreadable_reason reason, uint32_t vcpus)
{
    CLEANUP(cleanup_roster_unref) struct roster *roster = roster_get(&rig.store->roster);
    unsigned n = 0;
    for (size_t i = 0; roster && i < roster->n_vms; i++) {
        const struct roster_vm *vm = &roster->vms[i];
        n += vm->pid == pid && vm->reason == reason && vm->n_vcpus_read == vcpus &&
             vm->vm_scope_read == (reason == UNREADABLE_NOT);
    }
    return n == vms;
}

static void expect(pid_t pid, unsigned vms, enum unreadable_reason reason, uint32_t vcpus)
{
    for (int i = 0; i < KVMTEST_TIMEOUT_MS && !has(pid, vms, reason, vcpus); i++)
        nap();
    ck_assert_msg(has(pid, vms, reason, vcpus), "not %u VM(s): %s, %u vCPUs", vms,
                  roster_reason_name(reason), vcpus);
}

/* The daemon's own fds of VMs: none but those that are sampled. */
static void expect_no_kvm_fds(void)
{
    for (int i = 0; i < KVMTEST_TIMEOUT_MS; i++) {
        if (kvmtest_count_fds(getpid(), "anon_inode:kvm-") == 0)
            return;
        nap();
    }
    ck_assert_int_eq(kvmtest_count_fds(getpid(), "anon_inode:kvm-"), 0);
}

static void sink_removes_all(void)
{
    /* The sampler would tell: the VMM has exited. */
    discovery_stop(rig.discovery);
    given_collect(rig.discovery->given); /* if the thread was stopped before it had noticed */
    rig_look(&rig);
}

START_TEST(whole_or_with_pin_or_without)
{
    pid_t pid = start(1, 2, _i);
    expect(pid, 1, UNREADABLE_NOT, 2);
    end(pid);
    sink_removes_all();
    ck_assert_str_eq(rig_targets(&rig, pid), "");
    expect_no_kvm_fds();
}
END_TEST

/* The files alone do not say which VM they are of; with the VM's own they do. */
START_TEST(several_vms)
{
    pid_t pid = start(2, 1, _i);
    if (_i)
        expect(pid, 2, UNREADABLE_NOT, 1);
    else
        expect(pid, 2, UNREADABLE_NO_STATS_FD, 0);
    end(pid);
    sink_removes_all();
    expect_no_kvm_fds();
}
END_TEST

/* No stats file is read before its VM is held by its own: as it was given, or borrowed. */
START_TEST(unsafe_kernel)
{
    broker_set_safety(rig.broker, STATS_FDS_DO_NOT);
    rig.pin_first = true;
    pid_t pid = start(1, 2, _i);
    expect(pid, 1, UNREADABLE_NOT, 2);
    end(pid);
    sink_removes_all();
    expect_no_kvm_fds();
}
END_TEST

START_TEST(limits)
{
    pid_t pid = start(1, 5, true); /* three are allowed */
    expect(pid, 1, UNREADABLE_NOT, 3);
    for (int i = 0; i < KVMTEST_TIMEOUT_MS &&
                    !atomic_load(&rig.store->self.handoff_rejected[HANDOFF_REJECT_LIMIT]);
         i++)
        nap();
    end(pid);
    sink_removes_all();
    expect_no_kvm_fds();
}
END_TEST

START_TEST(sink_refuses)
{
    rig.vm_add_error = -ENOSPC;
    pid_t pid = start(1, 2, true);
    expect(pid, 1, UNREADABLE_LIMIT, 0);
    ck_assert_str_eq(rig_targets(&rig, pid), "");
    end(pid);
    sink_removes_all();
    expect_no_kvm_fds();
}
END_TEST

Suite *suite_handed(void)
{
    Suite *suite = suite_create("handed");
    TCase *tcase = tcase_create("handed");
    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_loop_test(tcase, whole_or_with_pin_or_without, 0, 2);
    tcase_add_loop_test(tcase, several_vms, 0, 2);
    tcase_add_loop_test(tcase, unsafe_kernel, 0, 2);
    tcase_add_test(tcase, limits);
    tcase_add_test(tcase, sink_refuses);
    suite_add_tcase(suite, tcase);
    return suite;
}
