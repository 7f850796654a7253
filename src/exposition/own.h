/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Families that are not the kernel's: of the daemon, and what is known of a VM besides numbers.
 * They are written once and come out in every format:
 *
 *     own_begin(own, &family);
 *     own_sample(own, (struct own_label[]){{"vm", vm}}, 1, raw, -9);    as often as there are
 * samples own_end(own);
 *
 * A family is begun once in an exposition, and its name ends in its unit, if it has one. Errors
 * stick in the writer.
 */
#pragma once

#include "buffer.h"
#include "pb_histogram.h"
#include "selfstats.h"
#include "writer.h"

enum own_type {
    OWN_COUNTER,
    OWN_GAUGE,
    OWN_HISTOGRAM,
    OWN_INFO, /* where the format has no such type, a gauge */
};

struct own_family {
    const char *name; /* as OpenMetrics has it: without _total and _info */
    enum own_type type;
    const char *unit; /* NULL: none */
    const char *help; /* needs no escaping */
};

/* The value is valid UTF-8, as it is: escaping is done here. */
struct own_label {
    const char *name;
    const char *value;
};

/* raw * base^exponent, which text has exactly and protobuf as the nearest double; or a double. */
struct own_value {
    bool is_double;
    uint8_t base; /* KVMSTATS_BASE_… */
    int16_t exponent;
    uint64_t raw;
    double number; /* finite, not negative */
};

static inline struct own_value own_scaled(uint64_t raw, uint8_t base, int16_t exponent)
{
    return (struct own_value){.raw = raw, .base = base, .exponent = exponent};
}

static inline struct own_value own_exact(uint64_t raw, int16_t exponent10)
{
    return own_scaled(raw, KVMSTATS_BASE_POW10, exponent10);
}

static inline struct own_value own_double(double number)
{
    return (struct own_value){.is_double = true, .number = number};
}

/* An exposition's families of this kind, one after another. */
struct own {
    struct writer *w; /* borrowed */
    enum exposition_format format;
    const struct own_family *family; /* between own_begin() and own_end() */
    struct buffer metrics; /* protobuf: the family's metrics, whose length must come before them */
};
void own_init(struct own *own, struct writer *w, enum exposition_format format);
void own_deinit(struct own *own);
#define CLEANUP_OWN CLEANUP(own_deinit)

void own_begin(struct own *own, const struct own_family *f);
void own_sample(struct own *own, const struct own_label *labels, size_t n_labels,
                struct own_value value);
/* One series of a family of histograms. */
struct own_histogram {
    size_t n;               /* finite bounds */
    const int64_t *bounds;  /* ascending, times 10^bounds_exponent, >= 0 */
    const uint64_t *counts; /* n + 1, not cumulative */
    int16_t bounds_exponent;
    bool has_sum; /* the sum of what was observed is known */
    struct own_value sum;
    /* What protobuf has instead, in a resolution of its own; NULL: the same buckets. */
    const struct native_buckets *native;
};
void own_histogram(struct own *own, const struct own_label *labels, size_t n_labels,
                   const struct own_histogram *h);
void own_end(struct own *own);

/* Whole families of one series without labels. */
void own_single(struct own *own, const struct own_family *f, struct own_value value);
void own_selfhist(struct own *own, const struct own_family *f, const struct selfhist *hist);

/* The families beside the kernel's own that start with kvm_vm_; the last has no name. */
extern const struct own_family own_vm_families[];
/* Those that start with kvm_vcpu_, likewise. */
extern const struct own_family own_vcpu_families[];
