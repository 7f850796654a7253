/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Buckets as the kernel fills them: kvm_stats_linear_hist_update() and kvm_stats_log_hist_update()
 * in include/linux/kvm_host.h. Both clamp the index to the last bucket, which is therefore open.
 */
#include "kvmstats/kvmstats.h"

/* The kernel's fls64(): the number of the highest bit set, counted from 1; 0 for 0. */
static size_t fls64(uint64_t value)
{
    return value ? 64 - (size_t)__builtin_clzll(value) : 0;
}

bool kvmstats_bucket_bound(const struct kvmstats_desc *desc, size_t i, uint64_t *ret_bound)
{
    if (!kvmstats_is_histogram(desc) || i + 1 >= desc->size)
        return false;
    if (desc->type == KVMSTATS_TYPE_LINEAR_HIST) {
        if (desc->bucket_size == 0)
            return false;
        /* 16 bits times 32 bits. */
        *ret_bound = ((uint64_t)i + 1) * desc->bucket_size - 1;
        return true;
    }
    if (i > 64)
        return false;
    *ret_bound = i == 0 ? 0 : UINT64_MAX >> (64 - i);
    return true;
}

size_t kvmstats_bucket_of(const struct kvmstats_desc *desc, uint64_t value)
{
    uint64_t i = 0;
    if (!kvmstats_is_histogram(desc) || desc->size == 0)
        return 0;
    if (desc->type == KVMSTATS_TYPE_LOG_HIST)
        i = fls64(value);
    else if (desc->bucket_size)
        i = value / desc->bucket_size;
    return i < desc->size ? (size_t)i : (size_t)desc->size - 1;
}
