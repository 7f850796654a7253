/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The metric families that KVM's descriptors make: names, metadata, bucket texts, all rendered once
 * for a set of schemas. The set is always "the first n of the schema table", so what a family is
 * called never changes as VMs come and go: a later schema only adds to what is there.
 */
#pragma once

#include "config.h"
#include "exposition.h"
#include "schema_table.h"
#include "writer.h"

enum {
    EXPOSITION_FORMATS = EXPOSITION_PROTOBUF + 1,
};

enum family_type {
    FAMILY_COUNTER,
    FAMILY_GAUGE,
    FAMILY_HISTOGRAM,
};

/* How a raw value is written. */
enum number_form {
    NUMBER_PLAIN,  /* as it is */
    NUMBER_NANO,   /* times 10^-9: all that Linux has today */
    NUMBER_BOOL,   /* 0 or 1 */
    NUMBER_SCALED, /* times base^exponent, whatever they are */
};

/* How one schema fills a family. Immutable. */
struct family_member {
    const struct kvmstats_desc *desc;
    enum number_form form; /* of a value (histograms count: plain) */
    /* Histograms: the texts `,le="…"} ` of the finite buckets and of +Inf, one after another. */
    uint32_t n_bounds;      /* finite ones; every bucket from here on is counted in +Inf */
    struct snippet *bounds; /* n_bounds + 1 */
    double *bound_values;   /* n_bounds, for protobuf */
    /* Logarithmic ones: how they become native histograms. */
    int native_shift;
    double zero_threshold;
    const struct kvmstats_desc
        *sum; /* the sibling that has the sum of what was observed, or NULL */
    enum number_form sum_form;
};

struct family {
    struct family *next; /* of the same scope */
    enum family_type type;
    struct snippet head[EXPOSITION_FORMATS];    /* HELP, TYPE, UNIT: lines, or encoded */
    struct snippet sample;                      /* the samples' name; empty for histograms */
    struct snippet bucket, sum, count;          /* the samples' names of a histogram */
    struct family_member *members[SCHEMAS_MAX]; /* by schema->index; NULL: it lacks the statistic */
};

/* The cells of a data block by how they add up over vCPUs. */
enum sum_kind {
    SUM_COUNTER, /* cumulative values and buckets: must never fall */
    SUM_INSTANT, /* of what is there now */
    SUM_BOOL,    /* how many are not 0 */
};
struct sum_run {
    uint32_t offset; /* bytes into the block */
    uint32_t n;      /* values */
    enum sum_kind kind;
};
struct sum_plan {
    size_t n;
    struct sum_run *runs;
};

struct family_table;

/*
 * Builds the families of the first `n` schemas. Statistics that the configuration doesn't want have
 * no family but keep their claim on a name. Names that clash are told to `notice` (may be NULL),
 * but only for schemas from `first_new` on. Returns 0 or -ENOMEM.
 */
MUST_USE int family_table_new(const struct schema *schemas, unsigned n, const struct config *config,
                              exposition_notice_fn *notice, unsigned first_new,
                              struct family_table **ret_table);
void family_table_free(struct family_table *table);
DEFINE_CLEANUP(struct family_table *, family_table_free)

/* The first family of a scope, in the order of the descriptors. */
const struct family *family_table_first(const struct family_table *table, enum scope scope);
const struct sum_plan *family_table_sum_plan(const struct family_table *table,
                                             const struct schema *schema);

/* The families of what happened between two scrapes. */
struct burst_families;
const struct burst_families *family_table_bursts(const struct family_table *table);

/* Whether a family is shown as sums over each VM's vCPUs. */
bool family_is_summed(const struct config *config, enum scope scope, enum family_type type);

/* For the table and its tests: what a statistic is called. */

enum family_type family_type_of(const struct kvmstats_desc *desc);
/*
 * The family's name as OpenMetrics has it (a counter's without _total), malloc'ed; NULL when memory
 * runs out. `raw`: without the unit's suffix, for the later one of two that clash.
 */
char *family_name(enum scope scope, const struct kvmstats_desc *desc, bool raw);
/* "seconds", "bytes", "cycles", or NULL where the name says no unit. */
const char *family_unit(const struct kvmstats_desc *desc);
enum number_form family_number_form(const struct kvmstats_desc *desc);
/* The statistic that counts the sum of what histogram `desc` observed, or NULL. */
const struct kvmstats_desc *family_sum_sibling(const struct kvmstats_schema *schema,
                                               const struct kvmstats_desc *desc);
