/* SPDX-License-Identifier: Apache-2.0 */
#include "vminfo.h"

#include <inttypes.h>
#include <stdio.h>

#include "clock.h"
#include "kvmstats/kvmstats.h"
#include "own.h"
#include "text.h"

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

static char *put_label(char *to, const char *name, const char *value)
{
    *to++ = ',';
    to = stpcpy(to, name);
    to = stpcpy(to, "=\"");
    to = text_escape_label(to, value);
    *to++ = '"';
    return to;
}

static void put_info(struct writer *w, const struct vm_identity *id)
{
    const char *source = id->source ? id->source : "";
    char pid[16];
    (void)snprintf(pid, sizeof pid, "%d", (int)id->pid);
    /* Escaping at most doubles a text; the fixed parts of the line are below 128 bytes. */
    size_t room = 128 + id->labels_len + sizeof pid +
                  2 * (strlen(id->uuid) + strlen(id->vmm) + strlen(id->machine) + strlen(id->unit) +
                       strlen(source));
    if (!writer_room(w, room))
        return;
    char *to = stpcpy(w->at, "kvm_vm_info");
    to = mempcpy(to, id->labels, id->labels_len);
    to = put_label(to, "uuid", id->uuid);
    to = put_label(to, "vmm", id->vmm);
    to = put_label(to, "pid", pid);
    to = put_label(to, "machine", id->machine);
    to = put_label(to, "unit", id->unit);
    to = put_label(to, "source", source);
    w->at = mempcpy(to, "} 1\n", 4);
}

/* raw * 10^exponent with the VM's label. */
static void put_decimal(struct writer *w, const struct own_family *f, const struct view_vm *vm,
                        uint64_t raw, int16_t exponent)
{
    const struct vm_identity *id = vm->vm->identity;
    if (!writer_room(w, strlen(f->name) + id->labels_len + sizeof "} \n" + KVMSTATS_DECIMAL_BYTES))
        return;
    char *to = stpcpy(w->at, f->name);
    to = mempcpy(to, id->labels, id->labels_len);
    to = mempcpy(to, "} ", 2);
    to += kvmstats_format_scaled(to, raw, KVMSTATS_BASE_POW10, exponent);
    *to++ = '\n';
    w->at = to;
}

static void put_one(struct writer *w, const struct own_family *f, const struct view_vm *vm,
                    int64_t wall_offset_ns)
{
    int64_t start_ns = vm->vm->identity->start_wall_ns;
    /* When the sweep began: its values are not older than that, and some may be newer. */
    int64_t sample_ns = vm->frame->begin_ns + wall_offset_ns;
    if (f == &own_vm_families[INFO_VM])
        put_info(w, vm->vm->identity);
    else if (f == &own_vm_families[INFO_VCPUS])
        put_decimal(w, f, vm, vm->vm->n_vcpus, 0);
    else if (f == &own_vm_families[INFO_START_TIME])
        put_decimal(w, f, vm, (uint64_t)start_ns, -9);
    else
        put_decimal(w, f, vm, (uint64_t)(sample_ns / NSEC_PER_MSEC), -3);
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

void vminfo_put(struct writer *w, enum exposition_format format, const struct view *view)
{
    int64_t wall_offset_ns = clock_wall_offset_ns();
    for (size_t i = 0; i < INFO_FAMILIES; i++) {
        const struct own_family *f = &own_vm_families[i];
        bool begun = false;
        for (size_t v = 0; v < view->n_vms; v++) {
            if (!has_one(f, &view->vms[v], vm_state(&view->vms[v])))
                continue;
            if (!begun)
                own_begin(w, format, f);
            begun = true;
            put_one(w, f, &view->vms[v], wall_offset_ns);
        }
    }
}
