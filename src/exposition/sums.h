/* SPDX-License-Identifier: Apache-2.0 */
/* A VM's statistics summed over its vCPUs. */
#pragma once

#include "families.h"
#include "view.h"

/* What there is of a VM's vCPUs in a frame. */
struct vcpus_seen {
    const struct schema *schema; /* NULL: none of them can be shown */
    bool fresh;                  /* at least one was read in this tick */
};
struct vcpus_seen sums_look(const struct view_vm *vm);

/*
 * Sums the VM's vCPUs into `block`: a data block of `schema` (rounded up to whole values) whose
 * cells are sums. Cumulative values and buckets, those of vCPUs that have left included, never fall
 * as long as the VM lives, whoever asks and however old his frame: a frame older than what was
 * shown last is answered with that. All others are sums of what was read in this tick.
 * Returns 0 or -ENOMEM. THREADS: scrapers; takes the lock of the VM's sums.
 */
MUST_USE int sums_make(const struct view_vm *vm, const struct schema *schema,
                       const struct sum_plan *plan, uint8_t *block);

static inline size_t sums_cells(const struct schema *schema)
{
    return (schema->data_bytes + sizeof(uint64_t) - 1) / sizeof(uint64_t);
}
