/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The families of what happened between two scrapes: what they are called, for every statistic that
 * could be watched, whether or not it is. Names are claimed together with those of the kernel's
 * own families, schema by schema, so that they never change.
 */
#pragma once

#include "families.h"
#include "own.h"

enum burst_shape {
    BURST_PEAK, /* the highest rate */
    BURST_HIGH, /* of a gauge */
    BURST_LOW,
    BURST_DISTRIBUTION,
    BURST_SHAPES,
};

struct burst_family {
    struct burst_family *next;
    struct own_family own; /* the strings are owned */
    enum burst_shape shape;
    enum scope scope;
    const struct kvmstats_desc *descs[SCHEMAS_MAX]; /* by schema->index; NULL: it lacks it */
};

struct burst_families {
    struct burst_family *first, **last;
};

/* How the table of families lends its list of names. */
struct name_claims {
    void *ctx;
    /* Returns 1 when the name was free and is taken now, 0 when it was not, or -ENOMEM. */
    int (*claim)(void *ctx, const char *name, enum family_type type);
    /* A family is left out: all its names are taken. */
    void (*left_out)(void *ctx, const struct kvmstats_desc *desc, const char *name);
};

void burst_families_init(struct burst_families *families);
void burst_families_deinit(struct burst_families *families);
/* Adds what a schema has. Returns 0 or -ENOMEM. */
MUST_USE int burst_families_add(struct burst_families *families, const struct schema *schema,
                                const struct name_claims *claims);

/* For the tests: malloc'ed, NULL when memory runs out. `raw` as in family_name(). */
char *burst_family_name(enum scope scope, const struct kvmstats_desc *desc, enum burst_shape shape,
                        bool raw);
