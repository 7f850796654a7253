/* SPDX-License-Identifier: Apache-2.0 */
/* Families that are not the kernel's: of the daemon, and what is known of a VM besides numbers. */
#pragma once

#include "selfstats.h"
#include "writer.h"

enum own_type {
    OWN_COUNTER,
    OWN_GAUGE,
    OWN_HISTOGRAM,
    OWN_INFO, /* in 0.0.4 a gauge */
};

struct own_family {
    const char *name; /* as OpenMetrics has it: without _total and _info */
    enum own_type type;
    const char *unit; /* NULL: none */
    const char *help; /* needs no escaping */
};

/* Metadata lines; the family's samples follow. */
void own_begin(struct writer *w, enum exposition_format format, const struct own_family *f);
/* What a sample of the family is called after its name. */
const char *own_suffix(const struct own_family *f);
/* One sample. `labels` is "" or `{name="value"}`; `value` is a decimal. */
void own_sample(struct writer *w, const struct own_family *f, const char *labels,
                const char *value);
void own_sample_u64(struct writer *w, const struct own_family *f, const char *labels,
                    uint64_t value);
/* Nanoseconds as exact seconds. */
void own_sample_ns(struct writer *w, const struct own_family *f, const char *labels,
                   uint64_t value_ns);
/* Metadata and all samples of a histogram of ours. */
void own_histogram(struct writer *w, enum exposition_format format, const struct own_family *f,
                   const struct selfhist *hist);

/* The families beside the kernel's own that start with kvm_vm_; the last has no name. */
extern const struct own_family own_vm_families[];
