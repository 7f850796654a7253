/* SPDX-License-Identifier: Apache-2.0 */
/* The sampler loses the CPU in the middle of a slice: between the look at the clock and a read. */
#include <sys/syscall.h>

#include "clock.h"
#include "holdup.h"
#include "rig.h"
#include "suites.h"

enum {
    HELD_UP_MS = 200,
    SLICES_TARGETS = 65, /* more than are read in one slice */
};

static void read_it(void *fd)
{
    char byte;
    ck_assert_int_ge(pread(*(int *)fd, &byte, 1, 0), 0);
}

/*
 * What was gained while it was held up is in the values. So they must not be told as those of a
 * time before: a rate that never was would come of it.
 */
START_TEST(what_was_held_up_is_not_told_as_of_before)
{
    struct rig rig;
    struct holdup holdup;
    rig_prepare(&rig, "sampling: {interval: 1s}\n");
    struct fake_vm vm = fake_vm_start(&rig, "web");
    for (int32_t vcpu = 0; vcpu < 3; vcpu++)
        close(fake_target(&rig, &vm, vcpu));
    ck_assert_int_eq(planner_commit(rig.planner), 0);
    int fd = planner_target_fd(vm.planned, 1);
    ck_assert_int_ge(fd, 0);
    holdup_start(&holdup, SYS_pread64, (uint32_t)fd, HELD_UP_MS);
    rig_step(&rig);
    int64_t let_go_ns = atomic_load(&holdup.let_go_ns);
    ck_assert_int_gt(let_go_ns, 0);
    ck_assert_int_ge(seen_read_ns(&rig, vm.id, 1), let_go_ns);
    /* The one behind it as well; and the one before it has its values of the same time. */
    ck_assert_int_ge(seen_read_ns(&rig, vm.id, 2), let_go_ns);
    ck_assert_int_ge(seen_read_ns(&rig, vm.id, 0), let_go_ns);
    holdup_stop(&holdup, read_it, &fd);
    fake_vm_kill(&vm);
    rig_stop(&rig);
}
END_TEST

/*
 * A VM joins a slow group, which is read at once, and that is held up: before the next slice a fast
 * group that knows nothing of it has its turn, not only when all of it has been read.
 */
START_TEST(fast_group_is_served_within_an_adoption)
{
    struct rig rig;
    struct holdup holdup;
    rig_prepare(&rig, "sampling: {interval: 1h, rules: [{match: {vm: fast}, interval: 10ms}]}\n");
    struct fake_vm quick = fake_vm_start(&rig, "fast"), slow = fake_vm_start(&rig, "slow");
    close(fake_target(&rig, &quick, 0));
    close(fake_target(&rig, &slow, 0));
    ck_assert_int_eq(planner_commit(rig.planner), 0);
    rig_step(&rig);
    struct fake_vm late = fake_vm_start(&rig, "late");
    for (int32_t vcpu = 0; vcpu < SLICES_TARGETS; vcpu++)
        close(fake_target(&rig, &late, vcpu));
    ck_assert_int_eq(planner_commit(rig.planner), 0);
    int fd = planner_target_fd(late.planned, 0);
    uint64_t ticks = atomic_load(&rig.store->self.ticks);
    int64_t due_ns = seen_read_ns(&rig, quick.id, 0) + 10 * NSEC_PER_MSEC;
    while (clock_now_ns() < due_ns)
        sleep_ms(1);
    holdup_start(&holdup, SYS_pread64, (uint32_t)fd, HELD_UP_MS);
    rig_step(&rig);
    ck_assert_int_gt(atomic_load(&holdup.let_go_ns), 0);
    ck_assert_uint_eq(seen_exits(&rig, late.id, SLICES_TARGETS - 1, NULL), 0);
    /* Of the slow group one tick; of the fast one, that before the held slice and that behind. */
    ck_assert_uint_ge(atomic_load(&rig.store->self.ticks), ticks + 3);
    holdup_stop(&holdup, read_it, &fd);
    fake_vm_kill(&quick);
    fake_vm_kill(&slow);
    fake_vm_kill(&late);
    rig_stop(&rig);
}
END_TEST

Suite *delayed_suite(void)
{
    Suite *suite = suite_create("delayed");
    TCase *tc = tcase_create("delayed");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, what_was_held_up_is_not_told_as_of_before);
    tcase_add_test(tc, fast_group_is_served_within_an_adoption);
    suite_add_tcase(suite, tc);
    return suite;
}
