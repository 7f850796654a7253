/* SPDX-License-Identifier: Apache-2.0 */
/* The sampler loses the CPU in the middle of a slice: between the look at the clock and a read. */
#include <sys/syscall.h>

#include "holdup.h"
#include "rig.h"
#include "suites.h"

enum {
    HELD_UP_MS = 200,
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

Suite *delayed_suite(void)
{
    Suite *suite = suite_create("delayed");
    TCase *tc = tcase_create("delayed");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, what_was_held_up_is_not_told_as_of_before);
    suite_add_tcase(suite, tc);
    return suite;
}
