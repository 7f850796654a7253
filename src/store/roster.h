/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The roster: every VM that discovery knows, how it is read, or why it is not. Discovery publishes
 * a new one when something changes; readers take a reference. The sampler has nothing to do with
 * it.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

#include "cleanup.h"
#include "schema_table.h"

/* Why a VM cannot be read; roster_reason_name() gives the label value. */
enum unreadable_reason {
    UNREADABLE_NOT, /* it is read */
    UNREADABLE_NO_STATS_FD,
    UNREADABLE_AMBIGUOUS,
    UNREADABLE_PERMISSION,
    UNREADABLE_BAD_STATS, /* the stats file was refused: see detail */
    UNREADABLE_FD_LIMIT,  /* our own file descriptors are exhausted */
    UNREADABLE_LIMIT,     /* limits.max_vms, limits.max_vcpus_per_vm */
    UNREADABLE_UNSAFE_KERNEL,
    UNREADABLE_DISABLED, /* by a rule of the configuration: not counted as unreadable */
    UNREADABLE_REASONS,  /* how many there are */
};
const char *roster_reason_name(enum unreadable_reason reason);

struct roster_vm {
    char *vm, *name, *uuid, *vmm, *machine, *unit; /* valid UTF-8, owned, "" when unknown */
    pid_t pid;
    int64_t start_wall_ns;
    uint32_t n_vcpus;      /* the VM has */
    uint32_t n_vcpus_read; /* that are sampled */
    int vm_scope_read;     /* 1 when the VM's own statistics are sampled */
    int64_t interval_ns;   /* 0 when not sampled */
    const char *source;    /* static; "" when not read */
    enum unreadable_reason reason;
    char *detail; /* owned; one sentence for a person: what is wrong and what would help; "" if read
                   */
};

struct roster {
    atomic_uint refs;
    size_t n_vms;
    struct roster_vm *vms;
    uint32_t unreadable[UNREADABLE_REASONS]; /* VMs, by reason */
    uint32_t read;                           /* VMs that are read */
    int64_t kernel_vms;                  /* alive on this host, by the kernel's word; -1 unknown */
    uint32_t targets[2][TARGET_SOURCES]; /* read now, by enum scope and source */
};

struct roster_slot {
    pthread_mutex_t lock; /* held for a pointer copy only */
    struct roster *current;
};

void roster_slot_init(struct roster_slot *slot);
void roster_slot_deinit(struct roster_slot *slot);
/* Consumes `roster` (one reference). THREADS: discovery. */
void roster_publish(struct roster_slot *slot, struct roster *roster);
/* A reference to the newest roster, or NULL before the first look. THREADS: any but the sampler. */
struct roster *roster_get(struct roster_slot *slot);
void roster_unref(struct roster *roster);
DEFINE_CLEANUP(struct roster *, roster_unref)
