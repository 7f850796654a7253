/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What differs between architectures: the guest's code, the state a vCPU starts in, and how an exit
 * is read. One file an architecture; guest_none.c stands in where there is none yet.
 *
 * The guest's memory is a few pages from guest physical address 0. Each vCPU has a slot of its own
 * in it, for its stack and for what it counts.
 */
#pragma once

#include <linux/kvm.h>
#include <stddef.h>
#include <stdint.h>

#include "cleanup.h"

/* Their slots fit into 64 KiB of guest memory. */
#define GUEST_MAX_VCPUS 512

struct guest_plan {
    unsigned actions;  /* LOAD_* */
    uint32_t rounds;   /* 0: no end */
    uint32_t timer_hz; /* 0: with LOAD_HALT, each vCPU wakes itself as soon as it can */
};

/*
 * timer_hz where it is 0 and a vCPU cannot interrupt itself: an interrupt that is pending before
 * the halt begins would end it in the CPU, and KVM would not know of it.
 */
#define GUEST_TIMER_HZ_MAX 20000

enum guest_exit {
    GUEST_EXIT_STARTED, /* the guest's first act */
    GUEST_EXIT_IO,      /* where there are no ports: a write to a device's register */
    GUEST_EXIT_MMIO,
    GUEST_EXIT_UNEXPECTED,
};

/* Bytes of guest memory for so many vCPUs: whole pages. 0: no guest for this architecture. */
size_t guest_memory_size(unsigned n_vcpus);

/* Before the first vCPU. Borrows vm_fd; `memory` is guest_memory_size() zeroed bytes, which the
 * caller maps at guest address 0. Returns 0 or -errno, and then *ret_step says at what. */
MUST_USE int guest_prepare_vm(int vm_fd, void *memory, const char **ret_step);
/* By the vCPU's own thread, before its first run; as above. `index` is the vCPU's id. */
MUST_USE int guest_prepare_vcpu(int vm_fd, int vcpu_fd, unsigned index,
                                const struct guest_plan *plan, const char **ret_step);
/* Once all vCPUs are prepared, before any of them runs; as above. */
MUST_USE int guest_complete_vm(int vm_fd, unsigned n_vcpus, const char **ret_step);

enum guest_exit guest_classify(const struct kvm_run *run);
/* How often a vCPU has come out of a halt, by its own count, which wraps. THREADS: any. */
uint32_t guest_halts(const void *memory, unsigned index);
