/* SPDX-License-Identifier: Apache-2.0 */
#include "vminfo.h"

#include <stdio.h>

#include "clock.h"

enum {
    INFO_VM,
    INFO_VCPUS,
    INFO_START_TIME,
    INFO_LAST_SAMPLE,
    INFO_FAMILIES,
};

const struct own_family own_vm_families[INFO_FAMILIES + 1] = {
    [INFO_VM] = {"kvm_vm", OWN_INFO, NULL,
                 "Who a VM is, which VMM runs it and how its statistics are read."},
    [INFO_VCPUS] = {"kvm_vm_vcpus", OWN_GAUGE, NULL, "Virtual CPUs that the VM has."},
    [INFO_START_TIME] = {"kvm_vm_start_time_seconds", OWN_GAUGE, "seconds",
                         "When the VM's VMM was started, in seconds since the epoch."},
    [INFO_LAST_SAMPLE] = {"kvm_vm_last_sample_timestamp_seconds", OWN_GAUGE, "seconds",
                          "When the values shown here were read, in seconds since the epoch."},
};

enum vm_state {
    VM_ABSENT, /* nothing of it was ever read */
    VM_HELD,   /* not in this tick */
    VM_READ,
};

static enum vm_state vm_state(const struct view_vm *vm)
{
    enum vm_state state = VM_ABSENT;
    for (uint32_t i = 0; i < vm->vm->n_targets; i++) {
        if (vm->status[i] == TARGET_READ)
            return VM_READ;
        if (vm->status[i] == TARGET_HELD)
            state = VM_HELD;
    }
    return state;
}

static void put_info(struct own *own, const struct vm_identity *id)
{
    char pid[16];
    (void)snprintf(pid, sizeof pid, "%d", (int)id->pid);
    const struct own_label labels[] = {
        {"vm", id->vm},
        {"uuid", id->uuid},
        {"vmm", id->vmm},
        {"pid", pid},
        {"machine", id->machine},
        {"unit", id->unit},
        {"source", id->source ? id->source : ""},
    };
    own_sample(own, labels, ARRAY_LEN(labels), own_exact(1, 0));
}

static void put_one(struct own *own, const struct view_vm *vm, int64_t wall_offset_ns)
{
    const struct vm_identity *id = vm->vm->identity;
    const struct own_family *f = own->family;
    const struct own_label label = {"vm", id->vm};
    /* When the sweep began: its values are not older than that, and some may be newer. */
    int64_t sample_ns = vm->frame->begin_ns + wall_offset_ns;
    if (f == &own_vm_families[INFO_VM])
        put_info(own, id);
    else if (f == &own_vm_families[INFO_VCPUS])
        own_sample(own, &label, 1, own_exact(vm->vm->n_vcpus, 0));
    else if (f == &own_vm_families[INFO_START_TIME])
        own_sample(own, &label, 1, own_exact((uint64_t)id->start_wall_ns, -9));
    else
        own_sample(own, &label, 1, own_exact((uint64_t)(sample_ns / NSEC_PER_MSEC), -3));
}

/* A value that is not known is absent. */
static bool has_one(const struct own_family *f, const struct view_vm *vm, enum vm_state state)
{
    if (f == &own_vm_families[INFO_START_TIME] && vm->vm->identity->start_wall_ns <= 0)
        return false;
    if (f == &own_vm_families[INFO_LAST_SAMPLE])
        return state == VM_READ;
    return state != VM_ABSENT;
}

void vminfo_put(struct own *own, const struct view *view)
{
    int64_t wall_offset_ns = clock_wall_offset_ns();
    for (size_t i = 0; i < INFO_FAMILIES; i++) {
        const struct own_family *f = &own_vm_families[i];
        bool begun = false;
        for (size_t v = 0; v < view->n_vms; v++) {
            if (!has_one(f, &view->vms[v], vm_state(&view->vms[v])))
                continue;
            if (!begun)
                own_begin(own, f);
            begun = true;
            put_one(own, &view->vms[v], wall_offset_ns);
        }
        if (begun)
            own_end(own);
    }
}
