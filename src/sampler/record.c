/* SPDX-License-Identifier: Apache-2.0 */
#include "record.h"

#include "dumper.h"
#include "recorder.h"

/* As nearly all are: everything read at one time, in this tick and there in the one before. */
static bool is_uniform(const struct tick_vm *tick, int64_t time_ns)
{
    bool uniform = true;
    for (uint32_t i = 0; i < tick->place->n_targets; i++) {
        uniform = uniform && tick_status(tick, i) == TARGET_READ &&
                  tick->frame->read_ns[tick->place->first_target + i] == time_ns &&
                  tick_before(tick, i).block;
    }
    return uniform;
}

void record_tick(const struct tick_vm *tick)
{
    struct recorder *recorder = tick->vm->group->recorder;
    uint32_t n = tick->place->n_targets;
    if (!recorder || tick->vm->let_go)
        return;
    int64_t time_ns = recorder_tick_ns(tick->frame, tick->place->first_target, n);
    if (!recorder_tick_begin(recorder, tick->place->vm, tick->targets, n, time_ns,
                             is_uniform(tick, time_ns)))
        return;
    for (uint32_t i = 0; i < n; i++) {
        enum target_status status = tick_status(tick, i);
        struct last_reading now = tick_now(tick, i);
        recorder_tick_target(recorder, &(struct recorder_target){
                                           .place = &tick->targets[i],
                                           .status = status,
                                           .read_ns = now.read_ns,
                                           .before = tick_before(tick, i).block,
                                           .now = status == TARGET_ABSENT ? NULL : now.block,
                                       });
    }
    recorder_tick_end(recorder);
}

static void record_last(const struct sampled_vm *vm)
{
    const struct group *group = vm->group;
    const struct layout_vm *place = &group->layout->vms[vm->index];
    const struct layout_target *targets = &group->layout->targets[place->first_target];
    if (!recorder_last_begin(group->recorder, vm->vm, targets, place->n_targets))
        return;
    for (uint32_t i = 0; i < place->n_targets; i++)
        recorder_last_target(
            group->recorder, &targets[i],
            group_last_reading(group->now->targets[place->first_target + i]).block);
    recorder_last_end(group->recorder);
}

static bool same_targets(const struct layout *a, const struct layout_vm *in_a,
                         const struct layout *b, const struct layout_vm *in_b)
{
    const struct layout_target *x = &a->targets[in_a->first_target];
    const struct layout_target *y = &b->targets[in_b->first_target];
    bool same = in_a->n_targets == in_b->n_targets;
    for (uint32_t i = 0; same && i < in_a->n_targets; i++)
        same = x[i].vcpu == y[i].vcpu && x[i].schema == y[i].schema;
    return same;
}

/* One that was removed and added again looks the same, but has no values from before. */
static bool all_go_on(const struct group_plan *next, const struct layout_vm *place)
{
    bool go_on = true;
    for (uint32_t i = 0; go_on && i < place->n_targets; i++) {
        const struct sampled_target *target = next->targets[place->first_target + i];
        go_on = target->group || target->predecessor;
    }
    return go_on;
}

static void record_group_changes(const struct group_plan *next)
{
    for (uint32_t i = 0; i < next->layout->n_vms; i++) {
        const struct sampled_vm *vm = next->vms[i];
        const struct group *group = vm->group;
        const struct layout_vm *place = &next->layout->vms[i];
        if (!group || !group->now || !group->recorder || vm->let_go)
            continue;
        if (!same_targets(group->layout, &group->layout->vms[vm->index], next->layout, place) ||
            !all_go_on(next, place))
            record_last(vm);
    }
}

void record_changes(const struct plan *plan)
{
    for (unsigned i = 0; i < plan->n_groups; i++)
        record_group_changes(plan->groups[i]);
}

void record_end(struct sampled_vm *vm, struct dumper *dumper)
{
    const struct group *group = vm->group;
    if (!group || !group->now || !group->recorder)
        return;
    record_last(vm);
    if (!vm->exited_ns || !dumper ||
        !dumper_vm_exited(dumper, group->recorder, vm->vm, group->layout->vms[vm->index].identity,
                          vm->pidfd, vm->exited_ns))
        recorder_vm_ended(group->recorder, vm->vm);
}
