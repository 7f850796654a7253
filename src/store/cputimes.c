/* SPDX-License-Identifier: Apache-2.0 */
#include "cputimes.h"

int cputimes_new(size_t n_vms, size_t n_vcpus, size_t n_windows, bool peaks_by_vcpu,
                 struct cputimes **ret_times)
{
    CLEANUP(cleanup_cputimes_unref) struct cputimes *times = calloc(1, sizeof *times);
    size_t n_peaks = (peaks_by_vcpu ? n_vcpus : n_vms) * n_windows;
    if (!times)
        return -ENOMEM;
    atomic_init(&times->refs, 1);
    times->peaks_by_vcpu = peaks_by_vcpu;
    times->n_windows = n_windows;
    /* Never of no bytes, for which calloc() may return NULL. */
    times->vms = calloc(n_vms + 1, sizeof *times->vms);
    times->vcpus = calloc(n_vcpus + 1, sizeof *times->vcpus);
    times->windows_ns = calloc(n_windows + 1, sizeof *times->windows_ns);
    times->peaks = calloc(n_peaks + 1, sizeof *times->peaks);
    if (!times->vms || !times->vcpus || !times->windows_ns || !times->peaks)
        return -ENOMEM;
    *ret_times = steal_ptr(&times);
    return 0;
}

void cputimes_unref(struct cputimes *times)
{
    if (!times || atomic_fetch_sub_explicit(&times->refs, 1, memory_order_acq_rel) != 1)
        return;
    free(times->vms);
    free(times->vcpus);
    free(times->windows_ns);
    free(times->peaks);
    free(times);
}

const struct cputimes_vm *cputimes_find(const struct cputimes *times, uint64_t vm_id)
{
    size_t low = 0, high = times->n_vms;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (times->vms[middle].id < vm_id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < times->n_vms && times->vms[low].id == vm_id ? &times->vms[low] : NULL;
}

void cputimes_slot_init(struct cputimes_slot *slot)
{
    (void)pthread_mutex_init(&slot->lock, NULL);
    slot->current = NULL;
}

void cputimes_slot_deinit(struct cputimes_slot *slot)
{
    cputimes_unref(slot->current);
    slot->current = NULL;
    (void)pthread_mutex_destroy(&slot->lock);
}

void cputimes_publish(struct cputimes_slot *slot, struct cputimes *times)
{
    (void)pthread_mutex_lock(&slot->lock);
    struct cputimes *old = slot->current;
    slot->current = times;
    (void)pthread_mutex_unlock(&slot->lock);
    cputimes_unref(old);
}

struct cputimes *cputimes_get(struct cputimes_slot *slot)
{
    (void)pthread_mutex_lock(&slot->lock);
    struct cputimes *times = slot->current;
    if (times)
        atomic_fetch_add_explicit(&times->refs, 1, memory_order_relaxed);
    (void)pthread_mutex_unlock(&slot->lock);
    return times;
}
