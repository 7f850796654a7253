/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where no guest is written yet: everything builds, and says so when it is run.
 */
#if !defined(__x86_64__) && !defined(__aarch64__) && !defined(__powerpc64__) && \
    !(defined(__riscv) && __riscv_xlen == 64)

#include "guest.h"

#include <errno.h>

size_t guest_memory_size(unsigned n_vcpus)
{
    (void)n_vcpus;
    return 0;
}

int guest_prepare_vm(int vm_fd, void *memory, const char **ret_step)
{
    (void)vm_fd;
    (void)memory;
    *ret_step = "guest for this architecture";
    return -EOPNOTSUPP;
}

int guest_prepare_vcpu(int vm_fd, int vcpu_fd, unsigned index, const struct guest_plan *plan,
                       const char **ret_step)
{
    (void)vm_fd;
    (void)vcpu_fd;
    (void)index;
    (void)plan;
    *ret_step = "guest for this architecture";
    return -EOPNOTSUPP;
}

int guest_complete_vm(int vm_fd, unsigned n_vcpus, const char **ret_step)
{
    (void)vm_fd;
    (void)n_vcpus;
    *ret_step = "guest for this architecture";
    return -EOPNOTSUPP;
}

enum guest_exit guest_classify(const struct kvm_run *run)
{
    (void)run;
    return GUEST_EXIT_UNEXPECTED;
}

uint32_t guest_halts(const void *memory, unsigned index)
{
    (void)memory;
    (void)index;
    return 0;
}

#endif
