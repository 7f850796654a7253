/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the guests of architectures without ports share: what a port is on x86 is a register of a
 * device here, by whose address an exit is known, and what a vCPU counts stands first in its slot.
 */
#pragma once

#include "guest.h"

/* Of the device, in bytes. */
#define STARTED_REGISTER 0
#define IO_REGISTER      8

static inline enum guest_exit guest_mmio_classify(const struct kvm_run *run, uint64_t device_addr,
                                                  uint64_t hole_addr)
{
    if (run->exit_reason != KVM_EXIT_MMIO)
        return GUEST_EXIT_UNEXPECTED;
    if (run->mmio.phys_addr == device_addr + STARTED_REGISTER)
        return GUEST_EXIT_STARTED;
    if (run->mmio.phys_addr == device_addr + IO_REGISTER)
        return GUEST_EXIT_IO;
    return run->mmio.phys_addr == hole_addr ? GUEST_EXIT_MMIO : GUEST_EXIT_UNEXPECTED;
}

static inline uint32_t guest_mmio_halts(const void *memory, size_t slot_addr)
{
    return *(const volatile uint32_t *)((const char *)memory + slot_addr);
}
