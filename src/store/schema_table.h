/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The schemas seen by this process. All targets of one scope on a host share one, so the table is
 * tiny; entries are never freed before the table, so a pointer to one may be kept anywhere.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "cleanup.h"
#include "kvmstats/kvmstats.h"

enum scope {
    SCOPE_VM,
    SCOPE_VCPU,
};

/* A way of reading a target. */
enum target_source {
    TARGET_SOURCE_HANDOFF, /* pread of a stats fd that the VMM gave us */
    TARGET_SOURCE_STATSFD, /* pread of a stats fd borrowed from the VMM */
    TARGET_SOURCE_BPF,     /* copied out of the kernel by the sweep program */
    TARGET_SOURCES,
};
/* "handoff", "statsfd", "bpf". */
const char *target_source_name(enum target_source source);
/* The same of a set of them (1 << source): "statsfd+bpf"; "" for none. */
const char *target_sources_name(unsigned set);

enum {
    /* One a scope is the rule; more come from a kvm module replaced while we run. */
    SCHEMAS_MAX = 16,
};

/* Immutable after publish. */
struct schema {
    unsigned index; /* 0 … SCHEMAS_MAX - 1: a dense key for caches */
    enum scope scope;
    struct kvmstats_schema *decoded;
    uint32_t data_offset; /* of the data block in the stats file, bytes */
    uint32_t data_bytes;
};

struct schema_table {
    struct schema entries[SCHEMAS_MAX]; /* the first `count` are immutable */
    atomic_uint count;
    pthread_mutex_t lock; /* guards additions */
};

void schema_table_init(struct schema_table *table);
void schema_table_deinit(struct schema_table *table);

/*
 * Finds or adds the entry that equals `decoded`, which is consumed in every case.
 * Returns 0, or -ENOSPC when the table is full. THREADS: any.
 */
MUST_USE int schema_table_intern(struct schema_table *table, enum scope scope,
                                 struct kvmstats_schema *decoded, const struct schema **ret_schema);
