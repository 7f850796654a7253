/* SPDX-License-Identifier: Apache-2.0 */
/* The thread: VMs are found because the kernel says so, not because it is time to look. */
#include <grp.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>

#include "kvmtest.h"
#include "rig.h"
#include "suites.h"
#include "uevents.h"
#include "vmm.h"

static struct rig rig;

/* Only the first look and events: the next rescan is an hour away. */
static void setup(void)
{
    kvmtest_require_kvm();
    rig_setup(&rig, "discovery: {rescan: 1h}");
}

static void teardown(void)
{
    discovery_stop(rig.discovery);
    rig_teardown(&rig);
}

static void start(void)
{
    struct timespec pause = {.tv_nsec = 1000 * 1000};
    ck_assert_int_eq(discovery_start(rig.discovery), 0);
    for (int i = 0; i < KVMTEST_TIMEOUT_MS && !atomic_load(&rig.store->self.looked_once); i++)
        (void)nanosleep(&pause, NULL);
    ck_assert(atomic_load(&rig.store->self.looked_once));
}

/* Whether the roster's VM of `pid` comes to have the reason, and `vcpus` vCPUs that are read. */
static bool wait_roster(pid_t pid, enum unreadable_reason reason, uint32_t vcpus)
{
    struct timespec pause = {.tv_nsec = 1000 * 1000};
    for (int i = 0; i < KVMTEST_TIMEOUT_MS; i++) {
        CLEANUP(cleanup_roster_unref) struct roster *roster = roster_get(&rig.store->roster);
        for (size_t k = 0; k < roster->n_vms; k++) {
            const struct roster_vm *vm = &roster->vms[k];
            if (vm->pid == pid && vm->reason == reason && vm->n_vcpus_read == vcpus)
                return true;
        }
        if (reason == UNREADABLE_REASONS) {
            bool there = false;
            for (size_t k = 0; k < roster->n_vms; k++)
                there = there || roster->vms[k].pid == pid;
            if (!there)
                return true;
        }
        (void)nanosleep(&pause, NULL);
    }
    return false;
}

START_TEST(found_by_event)
{
    struct vmm_process vmm = vmm_start();
    rig_want(&rig, vmm.pid);
    start();
    int64_t before_ns = clock_now_ns();
    int vm = vmm_do(&vmm, VMM_MAKE_VM, 0, 0);
    (void)vmm_do(&vmm, VMM_STATS, vm, 0);
    (void)vmm_do(&vmm, VMM_STATS, vmm_do(&vmm, VMM_MAKE_VCPU, vm, 0), 0);
    ck_assert(wait_roster(vmm.pid, UNREADABLE_NOT, 1));
    (void)pthread_mutex_lock(&rig.lock);
    int64_t created_ns = rig.vms->created_ns;
    (void)pthread_mutex_unlock(&rig.lock);
    ck_assert_int_ge(created_ns, before_ns);
    ck_assert_int_le(created_ns, clock_now_ns());
    {
        CLEANUP(cleanup_roster_unref) struct roster *roster = roster_get(&rig.store->roster);
        ck_assert_int_ge(roster->kernel_vms, 1);
    }
}
END_TEST

/* A demo VM as users start it; its vCPUs come one after another. */
START_TEST(demo_vm_by_event)
{
    start();
    rig.n_pids = 0;
    struct kvmtest_vms *vms = kvmtest_start("--vcpus", "3", "--name", "ev,1", "--load", "idle",
                                            "--stats-fds", "none", NULL);
    ck_assert(wait_roster(vms->vms[0].pid, UNREADABLE_NO_STATS_FD, 0));
    CLEANUP(cleanup_roster_unref) struct roster *roster = NULL;
    pid_t pid = vms->vms[0].pid;
    bool named = false;
    roster = roster_get(&rig.store->roster);
    for (size_t i = 0; i < roster->n_vms; i++)
        named = named || (roster->vms[i].pid == pid && strcmp(roster->vms[i].vm, "ev,1") == 0);
    ck_assert(named);
    /* The kernel says that it is gone, and it is. */
    (void)kvmtest_stop(vms);
    ck_assert(wait_roster(pid, UNREADABLE_REASONS, 0));
}
END_TEST

START_TEST(not_allowed)
{
    struct vmm_process vmm = vmm_start();
    if (getuid() != 0)
        testing_skip("needs root, to give it up");
    rig_want(&rig, vmm.pid);
    ck_assert_int_eq(setgroups(0, NULL), 0);
    ck_assert_int_eq(setresgid(65534, 65534, 65534), 0);
    ck_assert_int_eq(setresuid(65534, 65534, 65534), 0);
    start();
    int vm = vmm_do(&vmm, VMM_MAKE_VM, 0, 0);
    int stats = vmm_do(&vmm, VMM_STATS, vm, 0);
    ck_assert(wait_roster(vmm.pid, UNREADABLE_PERMISSION, 0));
    (void)vmm_do(&vmm, VMM_CLOSE, vm, 0);
    (void)vmm_do(&vmm, VMM_CLOSE, stats, 0);
    ck_assert(wait_roster(vmm.pid, UNREADABLE_REASONS, 0));
}
END_TEST

/*
 * Another of our kind has made a VM to ask the kernel by, and closed it. That makes it nobody's
 * VMM, whatever it holds for others, and least of all when they have ended.
 */
START_TEST(monitor_with_a_scratch_vm)
{
    struct timespec pause = {.tv_nsec = 1000 * 1000};
    struct vmm_process vmm = vmm_start(), monitor = vmm_start(), later = vmm_start();
    rig_want(&rig, vmm.pid);
    rig_want(&rig, monitor.pid);
    rig_want(&rig, later.pid);
    start();
    int vm = vmm_do(&vmm, VMM_MAKE_VM, 0, 0);
    int stats = vmm_do(&vmm, VMM_STATS, vm, 0);
    ck_assert(wait_roster(vmm.pid, UNREADABLE_NOT, 0));
    (void)vmm_do(&monitor, VMM_CLOSE, vmm_do(&monitor, VMM_MAKE_VM, 0, 0), 0);
    /* Events are read in order: that of the scratch VM's end has been, then. */
    (void)vmm_do(&later, VMM_STATS, vmm_do(&later, VMM_MAKE_VM, 0, 0), 0);
    ck_assert(wait_roster(later.pid, UNREADABLE_NOT, 0));
    (void)vmm_do(&monitor, VMM_BORROW, vmm.pid, vm);
    (void)vmm_do(&monitor, VMM_BORROW, vmm.pid, stats);
    vmm_kill(&vmm);
    ck_assert(wait_roster(vmm.pid, UNREADABLE_REASONS, 0));
    /* Looks at a process follow its event for half a second. */
    for (int i = 0; i < 700; i++) {
        CLEANUP(cleanup_roster_unref) struct roster *roster = roster_get(&rig.store->roster);
        for (size_t k = 0; k < roster->n_vms; k++)
            ck_assert_int_ne(roster->vms[k].pid, monitor.pid);
        (void)nanosleep(&pause, NULL);
    }
}
END_TEST

/* With events lost, all processes whose marks have changed are looked at. */
START_TEST(lost_events_are_made_good)
{
    enum {
        N = 40
    };
    struct vmm_process vmms[N];
    int fd, bytes = 1, r = 0, tries = 0;
    struct uevent event;
    for (int i = 0; i < N; i++) {
        vmms[i] = vmm_start();
        rig_made(&rig, vmms[i].pid);
    }
    rig_look(&rig); /* so that none is new */
    ck_assert_int_eq(uevents_open(&fd), 0);
    ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes), 0);
    for (int i = 0; i < N; i++) {
        int vm = vmm_do(&vmms[i], VMM_MAKE_VM, 0, 0);
        (void)vmm_do(&vmms[i], VMM_STATS, vm, 0);
    }
    while (r != -ENOBUFS && tries++ < 1000)
        r = uevents_receive(fd, &event);
    ck_assert_int_eq(r, -ENOBUFS);
    (void)close(fd);

    rig.discovery->look_at_everything = true;
    rig_look(&rig);
    for (int i = 0; i < N; i++)
        ck_assert_str_eq(rig_targets(&rig, vmms[i].pid), "VM");
    ck_assert(!rig.discovery->look_at_everything);
}
END_TEST

/* Stopping does not wait for anything that is due. */
START_TEST(stops_and_starts_nothing)
{
    start();
    discovery_stop(rig.discovery);
    discovery_stop(rig.discovery);
}
END_TEST

Suite *suite_events(void)
{
    Suite *suite = suite_create("events");
    TCase *tcase = tcase_create("events");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, found_by_event);
    tcase_add_test(tcase, demo_vm_by_event);
    tcase_add_test(tcase, not_allowed);
    tcase_add_test(tcase, monitor_with_a_scratch_vm);
    tcase_add_test(tcase, lost_events_are_made_good);
    tcase_add_test(tcase, stops_and_starts_nothing);
    suite_add_tcase(suite, tcase);
    return suite;
}
