/* SPDX-License-Identifier: Apache-2.0 */
/* What the host's scheduler gave the vCPUs' threads: CPU time, run-queue wait and its peaks. */
#pragma once

#include "cputimes.h"
#include "own.h"
#include "view.h"

/* One sample of a family of own_vcpu_families. */
struct threads_sample {
    const struct vm_identity *vm;
    int32_t vcpu;        /* -1: without that label, of the whole VM */
    const char *window;  /* NULL: without that label */
    uint64_t value_nano; /* times 10^9 */
};
typedef void threads_sample_fn(void *ctx, const struct threads_sample *sample);

/*
 * Calls `sample` for each sample of own_vcpu_families[family], by VM: those of the view alone, so
 * that one that has ended is gone here as well. `times` may be NULL.
 */
void threads_each(const struct view *view, const struct cputimes *times,
                  const struct config *config, size_t family, threads_sample_fn *sample, void *ctx);
/* All families. Errors stick in the writer. */
void threads_put(struct own *own, const struct view *view, const struct cputimes *times,
                 const struct config *config);
