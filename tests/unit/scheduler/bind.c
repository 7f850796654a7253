/* SPDX-License-Identifier: Apache-2.0 */
/* Which thread is believed to run a vCPU, over recorded processes; and counters that never fall. */
#include <stdio.h>
#include <sys/stat.h>

#include "rig.h"

enum {
    PID = 50,
};

static const char defaults[] = "{}";

static void expect_runs(const struct rig *rig, int32_t vcpu, pid_t tid)
{
    ck_assert_uint_eq(rig_run(rig, PID, vcpu), tid ? 1000 + (uint64_t)tid : ABSENT);
}

START_TEST(by_names)
{
    struct rig rig;
    rig_make(&rig, defaults);
    rig_vm(&rig, PID, "qemu", 3);
    rig_thread(&rig, PID, 53, "CPU 1/KVM");
    rig_thread(&rig, PID, 54, "worker");
    rig_thread(&rig, PID, 55, "CPU 10/KVM");
    rig_thread(&rig, PID, 56, "CPU 9/KVM");
    rig_read(&rig);
    expect_runs(&rig, 0, 53);
    expect_runs(&rig, 1, 56);
    expect_runs(&rig, 2, 55);
    ck_assert_uint_eq(rig_wait(&rig, PID, 1), 1);
    ck_assert_uint_eq(rig_sum_run(&rig, PID), 3 * 1000 + 53 + 55 + 56);
    rig_end(&rig);
}
END_TEST

/* On x86 ids are APIC ids: with holes, in the same order. */
START_TEST(ids_are_not_numbers)
{
    static const int32_t ids[] = {0, 1, 4, 5};
    struct rig rig;
    rig_make(&rig, defaults);
    rig_process(&rig, PID, 7, "qemu-system-x86");
    rig_vm_of(&rig, PID, PID, 7, "qemu", ids, 4);
    for (int i = 0; i < 4; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "CPU %d/KVM", i);
        rig_thread(&rig, PID, 60 + i, name);
    }
    rig_read(&rig);
    for (int i = 0; i < 4; i++)
        expect_runs(&rig, ids[i], 60 + i);
    expect_runs(&rig, 2, 0);
    rig_end(&rig);
}
END_TEST

/* With a thread too few, too many, or two of one name nobody knows which is whose. */
START_TEST(names_that_do_not_tell)
{
    static const char *const names[][4] = {
        {"CPU 0/KVM", "worker", NULL},    {"CPU 0/KVM", "CPU 1/KVM", "CPU 2/KVM", NULL},
        {"CPU 1/KVM", "CPU 1/KVM", NULL}, {"qemu-system-x86", "qemu-system-x86", NULL},
        {"vcpu0", "vcpu1", NULL},
    };
    struct rig rig;
    rig_make(&rig, defaults);
    rig_vm(&rig, PID, "qemu", 2);
    for (int i = 0; names[_i][i]; i++)
        rig_thread(&rig, PID, 51 + i, names[_i][i]);
    rig_read(&rig);
    expect_runs(&rig, 0, 0);
    expect_runs(&rig, 1, 0);
    ck_assert_uint_eq(rig_sum_run(&rig, PID), ABSENT);
    rig_end(&rig);
}
END_TEST

/* There are more vCPUs than are known here: the order of those that are tells nothing. */
START_TEST(vcpus_that_are_not_known)
{
    struct rig rig;
    rig_make(&rig, defaults);
    rig_vm(&rig, PID, "qemu", 2);
    scheduler_vm_set_vcpus(rig.scheduler, PID, 3);
    rig_thread(&rig, PID, 51, "CPU 1/KVM");
    rig_thread(&rig, PID, 52, "CPU 2/KVM");
    rig_read(&rig);
    expect_runs(&rig, 0, 0);
    rig_end(&rig);
}
END_TEST

START_TEST(two_vms_in_a_process)
{
    struct rig rig;
    rig_make(&rig, defaults);
    rig_vm(&rig, PID, "cloud-hypervisor", 1);
    rig_vm_of(&rig, PID + 1, PID, 100, "cloud-hypervisor", NULL, 1);
    rig_thread(&rig, PID, 51, "vcpu0");
    rig_read(&rig);
    expect_runs(&rig, 0, 0);
    ck_assert_uint_eq(rig_run(&rig, PID + 1, 0), ABSENT);
    rig_end(&rig);
}
END_TEST

/* A VMM that nobody knows may call any thread "vcpu0". */
START_TEST(names_of_an_unknown_vmm)
{
    struct rig rig;
    rig_make(&rig, defaults);
    rig_vm(&rig, PID, "mine", 1);
    rig_thread(&rig, PID, 51, "vcpu0");
    rig_read(&rig);
    expect_runs(&rig, 0, 0);
    rig_end(&rig);
}
END_TEST

/* The kernel's word needs no name; a thread of another process is not believed. */
START_TEST(by_the_kernel)
{
    struct rig rig;
    rig_make(&rig, defaults);
    rig_vm(&rig, PID, "qemu", 2);
    rig_thread(&rig, PID, 51, "qemu-system-x86");
    rig_process(&rig, 90, 5, "qemu-system-x86");
    rig_hint(&rig, PID, 0, THREAD_HINT_RUNS, 51);
    rig_hint(&rig, PID, 1, THREAD_HINT_RUNS, 90);
    rig_read(&rig);
    expect_runs(&rig, 0, 51);
    expect_runs(&rig, 1, 0);
    ck_assert_uint_eq(rig_sum_run(&rig, PID), ABSENT);
    rig_end(&rig);
}
END_TEST

/* A tid is believed when it is told, not when somebody gets it later. */
START_TEST(a_tid_given_again)
{
    struct rig rig;
    rig_make(&rig, defaults);
    rig_vm(&rig, PID, "qemu", 1);
    rig_hint(&rig, PID, 0, _i ? THREAD_HINT_RUNS : THREAD_HINT_MADE, 51);
    rig_read(&rig);
    rig_thread(&rig, PID, 51, "CPU 0/KVM");
    rig_thread(&rig, PID, 52, "CPU 1/KVM"); /* so that names alone do not tell */
    rig_read(&rig);
    expect_runs(&rig, 0, 0);
    rig_hint(&rig, PID, 0, THREAD_HINT_RUNS, 51);
    rig_read(&rig);
    expect_runs(&rig, 0, 51);
    rig_end(&rig);
}
END_TEST

static void require_initial_namespace(void)
{
    struct stat ours;
    if (stat("/proc/self/ns/pid", &ours) < 0 || ours.st_ino != 0xeffffffcu)
        testing_skip("not in the initial pid namespace: ids of statistics are not used");
}

/* Who made the vCPU counts if it is called as those are that run them. */
START_TEST(by_the_maker)
{
    struct rig rig;
    require_initial_namespace();
    rig_make(&rig, defaults);
    rig_vm(&rig, PID, "qemu", 3);
    rig_thread(&rig, PID, 51, "CPU 0/KVM");
    rig_thread(&rig, PID, 52, "qemu-system-x86");
    rig_hint(&rig, PID, 0, THREAD_HINT_MADE, 51);
    rig_hint(&rig, PID, 1, THREAD_HINT_MADE, 52);
    rig_hint(&rig, PID, 2, THREAD_HINT_MADE, PID);
    rig_read(&rig);
    expect_runs(&rig, 0, 51);
    expect_runs(&rig, 1, 0);
    expect_runs(&rig, 2, 0);
    /* It only had no name yet. */
    rig_thread(&rig, PID, 52, "CPU 1/KVM");
    rig_read(&rig);
    expect_runs(&rig, 1, 52);
    expect_runs(&rig, 2, 0);
    rig_end(&rig);
}
END_TEST

/* One thread has not made two vCPUs and runs both. */
START_TEST(a_maker_of_two)
{
    struct rig rig;
    require_initial_namespace();
    rig_make(&rig, defaults);
    rig_vm(&rig, PID, "mine", 2);
    rig_thread(&rig, PID, 51, "vcpu0");
    rig_hint(&rig, PID, 0, THREAD_HINT_MADE, 51);
    rig_hint(&rig, PID, 1, THREAD_HINT_MADE, 51);
    rig_read(&rig);
    expect_runs(&rig, 0, 0);
    expect_runs(&rig, 1, 0);
    rig_end(&rig);
}
END_TEST

START_TEST(maker_and_names_disagree)
{
    struct rig rig;
    require_initial_namespace();
    rig_make(&rig, defaults);
    rig_vm(&rig, PID, "qemu", 2);
    rig_thread(&rig, PID, 51, "CPU 0/KVM");
    rig_thread(&rig, PID, 52, "CPU 1/KVM");
    rig_hint(&rig, PID, 0, THREAD_HINT_MADE, 52);
    rig_read(&rig);
    expect_runs(&rig, 0, 0);
    expect_runs(&rig, 1, 0);
    /* The kernel knows. */
    rig_hint(&rig, PID, 0, THREAD_HINT_RUNS, 52);
    rig_hint(&rig, PID, 1, THREAD_HINT_RUNS, 51);
    rig_read(&rig);
    expect_runs(&rig, 0, 52);
    expect_runs(&rig, 1, 51);
    rig_end(&rig);
}
END_TEST

START_TEST(a_pid_given_again)
{
    struct rig rig;
    rig_make(&rig, defaults);
    rig_process(&rig, PID, 101, "qemu");
    rig_vm_of(&rig, PID, PID, 100, "qemu", NULL, 1);
    rig_thread(&rig, PID, 51, "CPU 0/KVM");
    rig_hint(&rig, PID, 0, THREAD_HINT_RUNS, 51);
    rig_read(&rig);
    expect_runs(&rig, 0, 0);
    rig_end(&rig);
}
END_TEST

START_TEST(hotplug)
{
    struct rig rig;
    rig_make_without_fds(&rig, defaults);
    rig_vm(&rig, PID, "qemu", 2);
    rig_thread(&rig, PID, 51, "CPU 0/KVM");
    rig_thread(&rig, PID, 52, "CPU 1/KVM");
    rig_read(&rig);
    /* The third one's thread is there before anything is known of the vCPU. */
    rig_thread(&rig, PID, 53, "CPU 2/KVM");
    rig_read(&rig);
    expect_runs(&rig, 0, 51);
    expect_runs(&rig, 2, 0);
    scheduler_vcpu_add(rig.scheduler, PID, 2);
    scheduler_vm_set_vcpus(rig.scheduler, PID, 3);
    rig_read(&rig);
    expect_runs(&rig, 2, 53);
    ck_assert_uint_eq(rig_sum_run(&rig, PID), 3000 + 51 + 52 + 53);
    /* Unplugged: QEMU keeps the vCPU, without a thread. */
    rig_thread_ends(&rig, PID, 52);
    rig_read(&rig);
    expect_runs(&rig, 1, 0);
    expect_runs(&rig, 2, 53);
    ck_assert_uint_eq(rig_sum_run(&rig, PID), 3000 + 51 + 52 + 53);
    rig_thread(&rig, PID, 57, "CPU 1/KVM");
    rig_read(&rig);
    ck_assert_uint_eq(rig_run(&rig, PID, 1), 1052 + 1057);
    expect_runs(&rig, 2, 53);
    rig_end(&rig);
}
END_TEST

/* Parked before we looked for the first time: it has no thread, and the sums lack nothing. */
START_TEST(a_vcpu_without_a_thread)
{
    struct rig rig;
    rig_make(&rig, defaults);
    rig_vm(&rig, PID, "qemu", 2);
    rig_thread(&rig, PID, 51, "CPU 0/KVM");
    rig_hint(&rig, PID, 0, THREAD_HINT_RUNS, 51);
    rig_read(&rig);
    ck_assert_uint_eq(rig_sum_run(&rig, PID), 1051);
    ck_assert_uint_eq(rig_sum_wait(&rig, PID), 1);
    rig_end(&rig);
}
END_TEST

/* The same number, another thread: its times begin anew, the vCPU's go on. */
START_TEST(a_thread_made_anew)
{
    struct rig rig;
    rig_make_without_fds(&rig, defaults);
    rig_vm(&rig, PID, "firecracker", 1);
    rig_thread(&rig, PID, 51, "fc_vcpu 0");
    rig_times(&rig, PID, 51, 5000, 700);
    rig_read(&rig);
    ck_assert_uint_eq(rig_run(&rig, PID, 0), 5000);
    if (_i)
        rig_thread_ends(&rig, PID, 51);
    rig_thread(&rig, PID, 51, "fc_vcpu 0");
    rig_times(&rig, PID, 51, 30, 800);
    rig_read(&rig);
    ck_assert_uint_eq(rig_run(&rig, PID, 0), 5030);
    ck_assert_uint_eq(rig_sum_wait(&rig, PID), 1500);
    rig_end(&rig);
}
END_TEST

/* A vCPU that goes to a thread that was there before: what that had run was not for it. */
START_TEST(a_vcpu_changes_threads)
{
    struct rig rig;
    rig_make(&rig, defaults);
    rig_vm(&rig, PID, "mine", 1);
    rig_thread(&rig, PID, 51, "a");
    rig_process(&rig, PID, 100, "mine");
    rig_times(&rig, PID, PID, 900000, 80000);
    rig_hint(&rig, PID, 0, THREAD_HINT_RUNS, 51);
    rig_read(&rig);
    rig_hint(&rig, PID, 0, THREAD_HINT_RUNS, PID);
    rig_read(&rig);
    ck_assert_uint_eq(rig_run(&rig, PID, 0), 1051);
    rig_times(&rig, PID, PID, 900007, 80002);
    rig_read(&rig);
    ck_assert_uint_eq(rig_run(&rig, PID, 0), 1051 + 7);
    ck_assert_uint_eq(rig_wait(&rig, PID, 0), 1 + 2);
    rig_end(&rig);
}
END_TEST

/* Two vCPUs that change places, one after the other as it is told. */
START_TEST(a_thread_changes_vcpus)
{
    struct rig rig;
    rig_make(&rig, defaults);
    rig_vm(&rig, PID, "mine", 2);
    rig_thread(&rig, PID, 51, "a");
    rig_thread(&rig, PID, 52, "b");
    rig_hint(&rig, PID, 0, THREAD_HINT_RUNS, 51);
    rig_hint(&rig, PID, 1, THREAD_HINT_RUNS, 52);
    rig_read(&rig);
    rig_hint(&rig, PID, 0, THREAD_HINT_RUNS, 52);
    rig_read(&rig);
    ck_assert_uint_ne(rig_run(&rig, PID, 0), ABSENT);
    ck_assert_uint_eq(rig_run(&rig, PID, 1), ABSENT); /* its thread runs another */
    ck_assert_uint_ne(rig_sum_run(&rig, PID), ABSENT);
    rig_end(&rig);
}
END_TEST

START_TEST(a_vcpu_leaves_and_returns)
{
    struct rig rig;
    rig_make(&rig, defaults);
    rig_vm(&rig, PID, "mine", 2);
    rig_thread(&rig, PID, 51, "a");
    rig_process(&rig, PID, 100, "mine");
    rig_hint(&rig, PID, 0, THREAD_HINT_RUNS, 51);
    rig_hint(&rig, PID, 1, THREAD_HINT_RUNS, PID);
    rig_read(&rig);
    ck_assert_uint_eq(rig_sum_run(&rig, PID), 1051 + 1050);
    scheduler_vcpu_remove(rig.scheduler, PID, 1);
    scheduler_vm_set_vcpus(rig.scheduler, PID, 1);
    rig_read(&rig);
    expect_runs(&rig, 1, 0);
    ck_assert_uint_eq(rig_sum_run(&rig, PID), 1051 + 1050);
    rig_times(&rig, PID, PID, 2000, 1);
    scheduler_vcpu_add(rig.scheduler, PID, 1);
    rig_hint(&rig, PID, 1, THREAD_HINT_RUNS, PID);
    rig_read(&rig);
    ck_assert_uint_eq(rig_run(&rig, PID, 1), 1050);
    rig_end(&rig);
}
END_TEST

START_TEST(a_vm_ends)
{
    struct rig rig;
    rig_make(&rig, defaults);
    rig_vm(&rig, PID, "qemu", 1);
    rig_vm(&rig, 70, "qemu", 1);
    rig_thread(&rig, PID, 51, "CPU 0/KVM");
    rig_thread(&rig, 70, 71, "CPU 0/KVM");
    rig_read(&rig);
    expect_runs(&rig, 0, 51);
    scheduler_vm_remove(rig.scheduler, PID);
    rig_read(&rig);
    expect_runs(&rig, 0, 0);
    ck_assert_uint_eq(rig_run(&rig, 70, 0), 1071);
    rig_end(&rig);
}
END_TEST

/* "0 0 0" is what a kernel says that doesn't count: no vCPU has no time at all. */
START_TEST(a_kernel_that_does_not_count)
{
    struct rig rig;
    rig_make(&rig, defaults);
    rig_vm(&rig, PID, "qemu", 1);
    rig_thread(&rig, PID, 51, "CPU 0/KVM");
    rig_times(&rig, PID, 51, 0, 0);
    for (int i = 0; i < 5; i++)
        rig_read(&rig);
    expect_runs(&rig, 0, 0);
    ck_assert_uint_eq(rig_sum_run(&rig, PID), ABSENT);
    ck_assert_uint_eq(rig_troubles[SCHEDULER_NO_SCHEDSTAT], 1);
    rig_end(&rig);
}
END_TEST

START_TEST(a_kernel_without_schedstat)
{
    char path[128];
    struct rig rig;
    rig_make(&rig, defaults);
    rig_vm(&rig, PID, "qemu", 1);
    rig_thread(&rig, PID, 51, "CPU 0/KVM");
    (void)snprintf(path, sizeof path, "%s/proc/50/task/51/schedstat", rig.tree.root);
    ck_assert_int_eq(remove(path), 0);
    for (int i = 0; i < 5; i++)
        rig_read(&rig);
    expect_runs(&rig, 0, 0);
    ck_assert_uint_eq(rig_troubles[SCHEDULER_NO_SCHEDSTAT], 1);
    ck_assert_uint_eq(rig_troubles[SCHEDULER_FORBIDDEN], 0);
    rig_end(&rig);
}
END_TEST

START_TEST(a_process_that_is_hidden)
{
    struct rig rig;
    rig_make(&rig, defaults);
    rig_vm_of(&rig, PID, PID, 100, "qemu", NULL, 1);
    rig_read(&rig);
    ck_assert_uint_eq(rig_troubles[SCHEDULER_FORBIDDEN], 0); /* it may just have ended */
    for (int i = 0; i < 10; i++)
        rig_read(&rig);
    ck_assert_uint_eq(rig_troubles[SCHEDULER_FORBIDDEN], 1);
    rig_end(&rig);
}
END_TEST

START_TEST(few_fds)
{
    struct rig rig;
    rig_make_without_fds(&rig, defaults);
    rig_vm(&rig, PID, "qemu", 1);
    rig_thread(&rig, PID, 51, "CPU 0/KVM");
    rig_read(&rig);
    expect_runs(&rig, 0, 51);
    ck_assert_uint_eq(rig_troubles[SCHEDULER_FDS_SHORT], 1);
    rig_end(&rig);
}
END_TEST

static void set_config(const struct rig *rig, const char *yaml)
{
    struct config *config = rig_config(yaml);
    scheduler_set_config(rig->scheduler, config);
    config_unref(config);
}

START_TEST(off_and_on)
{
    struct rig rig;
    rig_make(&rig, "scheduler: {interval: off}");
    rig_vm(&rig, PID, "mine", 2);
    rig_thread(&rig, PID, 51, "a");
    rig_thread(&rig, PID, 52, "b");
    rig_hint(&rig, PID, 0, THREAD_HINT_RUNS, 51);
    rig_hint(&rig, PID, 1, THREAD_HINT_RUNS, 52);
    rig_read(&rig);
    ck_assert_ptr_null(cputimes_get(&rig.store->cputimes));
    set_config(&rig, defaults);
    rig_read(&rig);
    expect_runs(&rig, 0, 51);
    set_config(&rig, "scheduler: {interval: off}");
    rig_read(&rig);
    expect_runs(&rig, 0, 0);
    /* What happens meanwhile counts, but not what another thread does under the same number. */
    rig_times(&rig, PID, 51, 4000, 9);
    rig_process(&rig, PID, 100, "mine");
    rig_thread_ends(&rig, PID, 52);
    rig_read(&rig);
    set_config(&rig, defaults);
    rig_read(&rig);
    ck_assert_uint_eq(rig_run(&rig, PID, 0), 4000);
    expect_runs(&rig, 1, 0);
    rig_end(&rig);
}
END_TEST

/* --- whatever happens, counters do not fall --- */

enum {
    VCPUS = 4,
    STEPS = 400,
};

struct churn {
    struct rig rig;
    pid_t tids[VCPUS]; /* 0: no thread */
    uint64_t run[VCPUS], wait[VCPUS];
    uint64_t shown[VCPUS], shown_sum;
    uint64_t all; /* what all threads together have run */
};

static void churn_step(struct churn *c)
{
    int i = (int)testing_random_below(VCPUS);
    char name[16];
    (void)snprintf(name, sizeof name, "CPU %d/KVM", i);
    if (!c->tids[i]) {
        /* Few numbers, so that they are given again soon. */
        c->tids[i] = 100 + i + VCPUS * (pid_t)testing_random_below(2);
        rig_thread(&c->rig, PID, c->tids[i], name);
        c->run[i] = testing_random_below(100) + 1;
        c->wait[i] = testing_random_below(100);
        c->all += c->run[i];
    } else if (testing_random_below(4) == 0) {
        rig_thread_ends(&c->rig, PID, c->tids[i]);
        c->tids[i] = 0;
        return;
    } else {
        uint64_t more = testing_random_below(1000);
        c->run[i] += more;
        c->all += more;
        c->wait[i] += testing_random_below(1000);
    }
    rig_times(&c->rig, PID, c->tids[i], c->run[i], c->wait[i]);
}

START_TEST(counters_do_not_fall)
{
    struct churn c = {0};
    rig_make_without_fds(&c.rig, defaults);
    rig_vm(&c.rig, PID, "qemu", VCPUS);
    for (int step = 0; step < STEPS; step++) {
        churn_step(&c);
        rig_read(&c.rig);
        for (int i = 0; i < VCPUS; i++) {
            uint64_t run = rig_run(&c.rig, PID, i);
            if (run == ABSENT)
                continue;
            ck_assert_uint_ge(run, c.shown[i]);
            ck_assert_int_ne(c.tids[i], 0);
            c.shown[i] = run;
        }
        uint64_t sum = rig_sum_run(&c.rig, PID);
        if (sum == ABSENT)
            continue;
        ck_assert_uint_ge(sum, c.shown_sum);
        ck_assert_uint_le(sum, c.all);
        c.shown_sum = sum;
    }
    ck_assert_uint_gt(c.shown_sum, 0);
    rig_end(&c.rig);
}
END_TEST

Suite *suite_bind(void)
{
    Suite *suite = suite_create("which thread runs a vCPU");
    TCase *tcase = tcase_create("bind");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, by_names);
    tcase_add_test(tcase, ids_are_not_numbers);
    tcase_add_loop_test(tcase, names_that_do_not_tell, 0, 5);
    tcase_add_test(tcase, vcpus_that_are_not_known);
    tcase_add_test(tcase, two_vms_in_a_process);
    tcase_add_test(tcase, names_of_an_unknown_vmm);
    tcase_add_test(tcase, by_the_kernel);
    tcase_add_loop_test(tcase, a_tid_given_again, 0, 2);
    tcase_add_test(tcase, by_the_maker);
    tcase_add_test(tcase, a_maker_of_two);
    tcase_add_test(tcase, maker_and_names_disagree);
    tcase_add_test(tcase, a_pid_given_again);
    tcase_add_test(tcase, hotplug);
    tcase_add_test(tcase, a_vcpu_without_a_thread);
    tcase_add_loop_test(tcase, a_thread_made_anew, 0, 2);
    tcase_add_test(tcase, a_vcpu_changes_threads);
    tcase_add_test(tcase, a_thread_changes_vcpus);
    tcase_add_test(tcase, a_vcpu_leaves_and_returns);
    tcase_add_test(tcase, a_vm_ends);
    tcase_add_test(tcase, a_kernel_that_does_not_count);
    tcase_add_test(tcase, a_kernel_without_schedstat);
    tcase_add_test(tcase, a_process_that_is_hidden);
    tcase_add_test(tcase, few_fds);
    tcase_add_test(tcase, off_and_on);
    tcase_add_test(tcase, counters_do_not_fall);
    suite_add_tcase(suite, tcase);
    return suite;
}
