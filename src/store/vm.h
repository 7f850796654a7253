/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is known of a VM outside its numbers. `struct vm` lives as long as anything refers to it;
 * its identity can be replaced (a second VM of the same name appears), so it is a separate object.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "cleanup.h"
#include "recording.h"

/* Immutable after creation. All strings are valid UTF-8, "" when unknown. */
struct vm_identity {
    atomic_uint refs;
    char *vm;   /* the label `vm`: unique among the VMs alive */
    char *name; /* as its stack names it; "" for an unnamed VM */
    char *uuid;
    char *vmm; /* "qemu", else the executable's name */
    char *machine;
    char *unit;
    char *
        labels; /* `{vm="…"`: escaped, unterminated label set that every sample of it starts with */
    uint32_t labels_len;
    const char *source; /* "statsfd", "bpf", "handoff"; static */
    pid_t pid;
    int64_t start_wall_ns; /* when its VMM started, since the epoch */
};

struct vm_identity_spec {
    const char *vm, *name, *uuid, *vmm, *machine, *unit; /* any bytes; NULL is "" */
    const char *source;
    pid_t pid;
    int64_t start_wall_ns;
};

/* Copies and sanitises. Returns 0 or -ENOMEM. */
MUST_USE int vm_identity_new(const struct vm_identity_spec *spec,
                             struct vm_identity **ret_identity);
struct vm_identity *vm_identity_ref(struct vm_identity *identity);
void vm_identity_unref(struct vm_identity *identity);

/*
 * Sums over a VM's vCPUs as they were last exposed, and what must be added so that they never fall
 * (debugfs lets root clear a vCPU's counters, a vCPU may become unreadable). Grown on demand.
 */
struct vm_sums {
    pthread_mutex_t lock; /* scrapers only; the sampler never takes it */
    const void *key;      /* the schema that the cells belong to */
    int64_t as_of_ns;     /* end_ns of the newest frame that was shown */
    size_t cells;
    uint64_t *shown;
    uint64_t *added;
};

struct vm {
    atomic_uint refs;
    uint64_t id;                /* never reused in this process */
    atomic_bool gone;           /* set by the sampler when its VMM has exited: show it no more */
    _Atomic int64_t created_ns; /* when the kernel announced it, 0: not known */
    atomic_bool sampled;        /* set by the sampler after its first frame */
    struct vm_sums sums;
    struct recording recording;
};

MUST_USE int vm_new(struct vm **ret_vm);
struct vm *vm_ref(struct vm *vm);
void vm_unref(struct vm *vm);
DEFINE_CLEANUP(struct vm *, vm_unref)
DEFINE_CLEANUP(struct vm_identity *, vm_identity_unref)
