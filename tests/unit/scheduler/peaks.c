/* SPDX-License-Identifier: Apache-2.0 */
/* The highest share of an interval that was waited, by a clock that the test moves. */
#include "clock.h"
#include "rig.h"

enum {
    PID = 50,
};

#define YAML_VM   "{bursts: {windows: [15s, 1m]}}"
#define YAML_VCPU "{bursts: {windows: [15s], scope: vcpu}}"

static int64_t now_ns;
static int64_t each_look_takes_ns; /* at the clock */

static int64_t test_clock(void)
{
    now_ns += each_look_takes_ns;
    return now_ns;
}

static void start(struct rig *rig, const char *yaml)
{
    now_ns = 1000 * NSEC_PER_SEC;
    each_look_takes_ns = 0;
    rig_make(rig, yaml);
    scheduler_set_clock(rig->scheduler, test_clock);
    rig_vm(rig, PID, "qemu", 2);
    rig_thread(rig, PID, 51, "CPU 0/KVM");
    rig_thread(rig, PID, 52, "CPU 1/KVM");
    rig_times(rig, PID, 51, 1, 0);
    rig_times(rig, PID, 52, 1, 0);
    scheduler_commit(rig->scheduler);
    scheduler_run_once(rig->scheduler);
}

/* The time of the next reading, and by how much both vCPUs have waited more by then. */
static void tick(const struct rig *rig, int64_t after_ns, uint64_t wait0_ns, uint64_t wait1_ns)
{
    static uint64_t waits[2];
    uint64_t before0 = rig_wait(rig, PID, 0), before1 = rig_wait(rig, PID, 1);
    waits[0] = (before0 == ABSENT ? 0 : before0) + wait0_ns;
    waits[1] = (before1 == ABSENT ? 0 : before1) + wait1_ns;
    now_ns += after_ns;
    rig_times(rig, PID, 51, 1, waits[0]);
    rig_times(rig, PID, 52, 1, waits[1]);
    scheduler_run_once(rig->scheduler);
}

/* In millionths. */
static int64_t peak(const struct rig *rig, size_t index, size_t window)
{
    CLEANUP(cleanup_cputimes_unref) struct cputimes *times = cputimes_get(&rig->store->cputimes);
    uint64_t value = times->peaks[index * times->n_windows + window];
    return value == CPUTIMES_NO_PEAK ? -1 : (int64_t)(value / 1000);
}

#define MS(n) ((int64_t)(n)*NSEC_PER_MSEC)

START_TEST(of_a_vm)
{
    struct rig rig;
    start(&rig, YAML_VM);
    ck_assert_int_eq(peak(&rig, 0, 0), -1); /* no interval has ended: not zero */
    tick(&rig, MS(1000), 0, 0);
    ck_assert_int_eq(peak(&rig, 0, 0), 0);
    tick(&rig, MS(1000), MS(300), MS(500));
    ck_assert_int_eq(peak(&rig, 0, 0), 800000); /* of the same interval: they add up */
    tick(&rig, MS(1000), MS(600), 0);
    ck_assert_int_eq(peak(&rig, 0, 0), 800000);
    tick(&rig, MS(1000), 0, MS(1900)); /* one that began earlier, and ends now */
    ck_assert_int_eq(peak(&rig, 0, 0), 1900000);
    ck_assert_int_eq(peak(&rig, 0, 1), 1900000);
    rig_end(&rig);
}
END_TEST

START_TEST(of_vcpus)
{
    struct rig rig;
    start(&rig, YAML_VCPU);
    tick(&rig, MS(1000), MS(300), MS(500));
    tick(&rig, MS(1000), MS(400), 0);
    ck_assert_int_eq(peak(&rig, 0, 0), 400000);
    ck_assert_int_eq(peak(&rig, 1, 0), 500000);
    rig_end(&rig);
}
END_TEST

/* Whoever looks every 15 s sees it, whatever the phase; and it goes. */
START_TEST(slides)
{
    struct rig rig;
    int64_t phase_ns = (int64_t)testing_random_below((uint64_t)NSEC_PER_SEC);
    start(&rig, YAML_VM);
    tick(&rig, MS(1000) + phase_ns, 0, 0);
    tick(&rig, MS(1000), MS(700), 0);
    for (int i = 0; i < 15; i++) {
        tick(&rig, MS(1000), 0, 0);
        ck_assert_int_eq(peak(&rig, 0, 0), 700000);
    }
    for (int i = 0; i < 3; i++)
        tick(&rig, MS(1000), 0, 0);
    ck_assert_int_eq(peak(&rig, 0, 0), 0);
    ck_assert_int_eq(peak(&rig, 0, 1), 700000);
    rig_end(&rig);
}
END_TEST

/* A tick that is late has a longer interval, not a higher share. */
START_TEST(late_ticks)
{
    struct rig rig;
    start(&rig, YAML_VM);
    tick(&rig, MS(4000), MS(1000), 0);
    ck_assert_int_eq(peak(&rig, 0, 0), 250000);
    rig_end(&rig);
}
END_TEST

/* Too soon after another to tell a share: it counts with the next. */
START_TEST(early_ticks)
{
    struct rig rig;
    start(&rig, YAML_VM);
    tick(&rig, MS(3), MS(200), 0);
    ck_assert_int_eq(peak(&rig, 0, 0), -1);
    tick(&rig, MS(997), MS(100), 0);
    ck_assert_int_eq(peak(&rig, 0, 0), 300000);
    rig_end(&rig);
}
END_TEST

/* A reading in whose middle we ourselves had to wait: when it was is not known. */
START_TEST(slow_readings)
{
    struct rig rig;
    start(&rig, YAML_VM);
    each_look_takes_ns = MS(400);
    tick(&rig, MS(1000), MS(600), 0);
    ck_assert_int_eq(peak(&rig, 0, 0), -1);
    each_look_takes_ns = 0;
    now_ns = 1002 * NSEC_PER_SEC;
    tick(&rig, 0, MS(200), 0);
    ck_assert_int_eq(peak(&rig, 0, 0), 400000);
    rig_end(&rig);
}
END_TEST

/* What a vCPU's new thread had waited before is not a peak of the interval in which it came. */
START_TEST(new_threads)
{
    struct rig rig;
    start(&rig, YAML_VM);
    tick(&rig, MS(1000), 0, 0);
    rig_thread(&rig, PID, 53, "x");
    rig_times(&rig, PID, 53, 1, 9 * NSEC_PER_SEC);
    rig_hint(&rig, PID, 0, THREAD_HINT_RUNS, 53);
    scheduler_commit(rig.scheduler);
    now_ns += MS(1000);
    scheduler_run_once(rig.scheduler);
    ck_assert_int_eq(peak(&rig, 0, 0), 0);
    now_ns += MS(1000);
    rig_times(&rig, PID, 53, 1, 9 * NSEC_PER_SEC + MS(250));
    scheduler_run_once(rig.scheduler);
    ck_assert_int_eq(peak(&rig, 0, 0), 250000);
    rig_end(&rig);
}
END_TEST

static void set_config(const struct rig *rig, const char *yaml)
{
    struct config *config = rig_config(yaml);
    scheduler_set_config(rig->scheduler, config);
    config_unref(config);
}

START_TEST(other_windows)
{
    struct rig rig;
    start(&rig, YAML_VM);
    tick(&rig, MS(1000), MS(300), 0);
    /* Another interval: the windows are the same. */
    set_config(&rig, "{bursts: {windows: [15s, 1m]}, scheduler: {interval: 500ms}}");
    tick(&rig, MS(500), 0, 0);
    ck_assert_int_eq(peak(&rig, 0, 0), 300000);
    set_config(&rig, "{bursts: {windows: []}}");
    tick(&rig, MS(1000), 0, 0);
    CLEANUP(cleanup_cputimes_unref) struct cputimes *times = cputimes_get(&rig.store->cputimes);
    ck_assert_uint_eq(times->n_windows, 0);
    set_config(&rig, "{bursts: {windows: [2s], scope: vcpu}}");
    tick(&rig, MS(1000), MS(100), 0);
    tick(&rig, MS(1000), MS(200), 0);
    ck_assert_int_eq(peak(&rig, 0, 0), 200000);
    rig_end(&rig);
}
END_TEST

Suite *suite_peaks(void)
{
    Suite *suite = suite_create("peaks of waiting");
    TCase *tcase = tcase_create("peaks");
    tcase_add_test(tcase, of_a_vm);
    tcase_add_test(tcase, of_vcpus);
    tcase_add_test(tcase, slides);
    tcase_add_test(tcase, late_ticks);
    tcase_add_test(tcase, early_ticks);
    tcase_add_test(tcase, slow_readings);
    tcase_add_test(tcase, new_threads);
    tcase_add_test(tcase, other_windows);
    suite_add_tcase(suite, tcase);
    return suite;
}
