/* SPDX-License-Identifier: Apache-2.0 */
#include "plan.h"

#include "clock.h"

void group_plan_free(struct group_plan *group_plan)
{
    if (!group_plan)
        return;
    layout_free(group_plan->layout);
    for (size_t i = 0; i < FRAMES_MAX; i++)
        frame_memory_free(group_plan->memory[i]);
    bpf_frames_unref(group_plan->sweep);
    free(group_plan->readings);
    free(group_plan->copies);
    free(group_plan->targets);
    free(group_plan->vms);
    free(group_plan->carried);
    free(group_plan);
}

void plan_free(struct plan *plan)
{
    if (!plan)
        return;
    for (unsigned i = 0; i < plan->n_groups; i++)
        group_plan_free(plan->groups[i]);
    free(plan->joining);
    free(plan->leaving_vms);
    free(plan->leaving_targets);
    free(plan);
}

void sampled_target_free(struct sampled_target *target)
{
    if (!target)
        return;
    if (!target->closed)
        (void)fd_close(target->fd);
    free(target->failed);
    free(target->retirement);
    free(target);
}

void sampled_vm_free(struct sampled_vm *vm)
{
    if (!vm)
        return;
    if (!vm->closed)
        (void)fd_close(vm->pidfd);
    (void)fd_close(atomic_load(&vm->pin_fd));
    vm_unref(vm->vm);
    free(vm->exited);
    while (vm->retired) {
        struct retired_vcpu *next = vm->retired->next;
        free(vm->retired);
        vm->retired = next;
    }
    free(vm);
}
