/* SPDX-License-Identifier: Apache-2.0 */
/* A vCPU that is taken away and added again before one commit, as when it changes its source. */
#include <string.h>

#include "recorder.h"
#include "replay.h"
#include "rig.h"
#include "suites.h"

enum {
    TICKS = 3, /* before and after */
};

/* The frame with the VM in it, which has to be the only one. */
static const struct view_vm *only_vm(const struct view *view)
{
    ck_assert_uint_eq(view->n_vms, 1);
    return &view->vms[0];
}

/* Goes back over all that is recorded of the VM. Returns how many records there are. */
static size_t go_back(struct rig *rig, struct recorder *recorder)
{
    static struct replay_schemas schemas;
    CLEANUP_EXCERPT struct excerpt excerpt;
    CLEANUP_REPLAY struct replay replay;
    struct view view;
    memset(&schemas, 0, sizeof schemas);
    ck_assert_int_eq(view_take(rig->store, &view), 0);
    const struct view_vm *vm = only_vm(&view);
    for (uint32_t i = 0; i < vm->vm->n_targets; i++)
        ck_assert_int_eq(replay_schemas_add(&schemas, vm->targets[i].schema->index,
                                            vm->targets[i].schema->decoded),
                         0);
    ck_assert_int_eq(recorder_copy(recorder, vm->vm->vm, INT64_MIN, &excerpt), 0);
    ck_assert_int_eq(replay_begin(&replay, &schemas, excerpt.bytes + excerpt.first,
                                  excerpt.len - excerpt.first, excerpt.first_ns, SIZE_MAX),
                     0);
    ck_assert_int_eq(
        replay_seek_frame(&replay, vm->frame, vm->vm,
                          recorder_tick_ns(vm->frame, vm->vm->first_target, vm->vm->n_targets)),
        0);
    ck_assert_int_eq(replay_rewind(&replay, INT64_MIN), 0);
    ck_assert_uint_eq(replay.at, 0);
    view_drop(&view);
    return replay.n_records;
}

static void ticks(struct rig *rig, uint64_t n)
{
    n += atomic_load(&rig->store->self.ticks);
    while (atomic_load(&rig->store->self.ticks) < n) {
        sleep_ms(1);
        rig_step(rig);
    }
}

START_TEST(recording_goes_on)
{
    struct rig rig;
    struct recorder *recorder;
    rig_prepare(&rig, "sampling: {interval: 2ms}\n");
    struct fake_vm vm = fake_vm_start(&rig, "web");
    int fd = fake_target(&rig, &vm, 0), other = fake_target(&rig, &vm, 1);
    ck_assert_int_eq(recorder_new(1 << 20, &rig.store->self, &recorder), 0);
    sampler_set_recorder(rig.sampler, recorder);
    fake_target_set(fd, 7);
    fake_target_set(other, 8);
    ck_assert_int_eq(planner_commit(rig.planner), 0);
    ticks(&rig, TICKS);

    planner_target_remove(rig.planner, vm.planned, 0);
    close(fd);
    fd = fake_target_from(&rig, &vm, 0, TARGET_SOURCE_HANDOFF);
    fake_target_set(fd, 9);
    ck_assert_int_eq(planner_commit(rig.planner), 0);
    ticks(&rig, TICKS);
    ck_assert_uint_eq(seen_exits(&rig, vm.id, 0, NULL), 9);
    ck_assert_uint_eq(go_back(&rig, recorder), atomic_load(&rig.store->self.ticks));

    sampler_set_recorder(rig.sampler, NULL);
    rig_step(&rig);
    recorder_unref(recorder);
    close(fd);
    close(other);
    rig_stop(&rig);
    fake_vm_kill(&vm);
}
END_TEST

/* What the vCPUs that have left count in the VM's sums of "exits". */
static uint64_t share(struct rig *rig)
{
    struct view view;
    ck_assert_int_eq(view_take(rig->store, &view), 0);
    const struct layout_vm *place = only_vm(&view)->vm;
    uint64_t sum = place->retired ? place->retired[0] : 0;
    view_drop(&view);
    return sum;
}

/* It counts by itself; once it is gone for good, what it had last does, and once only. */
START_TEST(share_counts_once)
{
    struct rig rig;
    rig_prepare(&rig, "sampling: {interval: 2ms}\n");
    struct fake_vm vm = fake_vm_start(&rig, "web");
    int fd = fake_target(&rig, &vm, 0);
    close(fake_target(&rig, &vm, 1));
    fake_target_set(fd, 7);
    ck_assert_int_eq(planner_commit(rig.planner), 0);
    ticks(&rig, 1);
    planner_target_remove(rig.planner, vm.planned, 0);
    close(fd);
    fd = fake_target(&rig, &vm, 0);
    fake_target_set(fd, 9);
    ck_assert_int_eq(planner_commit(rig.planner), 0);
    ticks(&rig, 2);
    ck_assert_uint_eq(seen_exits(&rig, vm.id, 0, NULL), 9);
    ck_assert_uint_eq(share(&rig), 0);

    planner_target_remove(rig.planner, vm.planned, 0); /* back, and away again */
    close(fake_target(&rig, &vm, 0));
    planner_target_remove(rig.planner, vm.planned, 0);
    ck_assert_int_eq(planner_commit(rig.planner), 0);
    ticks(&rig, 2);
    ck_assert_uint_eq(seen_exits(&rig, vm.id, 0, NULL), UINT64_MAX);
    ck_assert_uint_eq(share(&rig), 9);
    close(fd);
    rig_stop(&rig);
    fake_vm_kill(&vm);
}
END_TEST

Suite *return_suite(void)
{
    Suite *suite = suite_create("return");
    TCase *tc = tcase_create("return");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, recording_goes_on);
    tcase_add_test(tc, share_counts_once);
    suite_add_tcase(suite, tc);
    return suite;
}
