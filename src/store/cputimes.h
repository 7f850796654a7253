/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the host's scheduler gave the vCPUs' threads: a reading of all of them, immutable and
 * counted. The scheduler's thread publishes a new one each time it has read; readers take a
 * reference. A vCPU whose thread is not known or could not be read is not in it.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "cleanup.h"

/* No interval has been observed in the window. */
#define CPUTIMES_NO_PEAK UINT64_MAX

struct cputimes_vcpu {
    int32_t vcpu;     /* the kernel's vcpu_id */
    uint64_t run_ns;  /* on a CPU, in the guest or for it; never falls while the VM lives */
    uint64_t wait_ns; /* ready to run, but not running; likewise */
};

struct cputimes_vm {
    uint64_t id; /* struct vm.id */
    uint32_t first_vcpu, n_vcpus;
    /* Sums over all vCPUs the VM has had, also those without a thread now; they never fall. */
    bool whole; /* nothing is missing in the sums: else they are not to be shown */
    uint64_t run_ns, wait_ns;
};

struct cputimes {
    atomic_uint refs;
    size_t n_vms;
    struct cputimes_vm *vms; /* by id */
    size_t n_vcpus;
    struct cputimes_vcpu *vcpus; /* those of one VM by vcpu */
    /*
     * Highest share of any one interval spent waiting, times 10^9, in each window:
     * peaks[i * n_windows + w] of vcpus[i] or, without peaks_by_vcpu, of vms[i], where it is the
     * sum over the VM's vCPUs. CPUTIMES_NO_PEAK: none.
     */
    bool peaks_by_vcpu;
    size_t n_windows;
    int64_t *windows_ns;
    uint64_t *peaks;
};

/* An empty one with room for as much; the caller fills it. Returns 0 or -ENOMEM. */
MUST_USE int cputimes_new(size_t n_vms, size_t n_vcpus, size_t n_windows, bool peaks_by_vcpu,
                          struct cputimes **ret_times);
void cputimes_unref(struct cputimes *times);
DEFINE_CLEANUP(struct cputimes *, cputimes_unref)
/* A VM's entry, or NULL. */
const struct cputimes_vm *cputimes_find(const struct cputimes *times, uint64_t vm_id);

struct cputimes_slot {
    pthread_mutex_t lock; /* held for a pointer copy only */
    struct cputimes *current;
};

void cputimes_slot_init(struct cputimes_slot *slot);
void cputimes_slot_deinit(struct cputimes_slot *slot);
/* Consumes `times` (one reference); NULL: there is nothing to show. THREADS: scheduler. */
void cputimes_publish(struct cputimes_slot *slot, struct cputimes *times);
/* A reference to the newest reading, or NULL. THREADS: any but the sampler. */
struct cputimes *cputimes_get(struct cputimes_slot *slot);
