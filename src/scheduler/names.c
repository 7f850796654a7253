/* SPDX-License-Identifier: Apache-2.0 */
#include "names.h"

#include <string.h>

#include "cleanup.h"

/*
 * QEMU's are there with -name debug-threads=on, which libvirt gives it (qemu, accel/kvm/
 * kvm-accel-ops.c); the others' always: firecracker vstate/vcpu.rs, cloud-hypervisor
 * vmm/src/cpu.rs, crosvm src/crosvm/sys/linux/vcpu.rs, kvmtool builtin-run.c.
 */
static const struct thread_names known[] = {
    {"qemu", "CPU ", "/KVM"},         {"firecracker", "fc_vcpu ", ""},
    {"cloud-hypervisor", "vcpu", ""}, {"crosvm", "crosvm_vcpu", ""},
    {"kvmtool", "kvm-vcpu-", ""},     {"kvmstatd-demo-vm", "CPU ", "/KVM"},
};

enum {
    DIGITS_MAX = 5, /* no kernel has more than 65,536 vCPUs a VM */
};

const struct thread_names *thread_names_of(const char *vmm)
{
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        if (strcmp(known[i].vmm, vmm) == 0)
            return &known[i];
    }
    return NULL;
}

static int32_t number_in(const struct thread_names *names, const char *name)
{
    size_t len = strlen(names->before), digits;
    int32_t number = 0;
    if (strncmp(name, names->before, len) != 0)
        return -1;
    name += len;
    for (digits = 0; name[digits] >= '0' && name[digits] <= '9' && digits < DIGITS_MAX; digits++)
        number = 10 * number + (name[digits] - '0');
    /* "vcpu007" is nobody's. */
    if (digits == 0 || (digits > 1 && name[0] == '0') || strcmp(name + digits, names->after) != 0)
        return -1;
    return number;
}

int32_t thread_names_number(const struct thread_names *names, const char *name)
{
    int32_t number = -1;
    if (names)
        return number_in(names, name);
    for (size_t i = 0; i < ARRAY_LEN(known) && number < 0; i++)
        number = number_in(&known[i], name);
    return number;
}
