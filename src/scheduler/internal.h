/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this folder share. THREADS: the scheduler's only, but for what feed.c has. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "clock.h"
#include "mailbox.h"
#include "names.h"
#include "schedstat.h"
#include "scheduler.h"
#include "window.h"

/* --- from discovery's side to the thread --- */

struct vcpu_facts {
    int32_t id;
    pid_t hints[THREAD_HINTS];      /* 0: none */
    bool hint_is_new[THREAD_HINTS]; /* since the last letter */
};

/* All that is known of a VM; the newest letter counts. Immutable once posted. */
struct facts {
    struct letter letter;
    uint64_t vm_id;
    bool removed; /* nothing below is set */
    pid_t pid;
    uint64_t start_ticks;
    const struct thread_names *names;
    uint32_t vm_vcpus; /* that the VM has */
    uint32_t n;
    struct vcpu_facts vcpus[]; /* by id */
};

struct fed_vm; /* feed.c */

/* --- the thread's side --- */

/* A vCPU that the VM has or has had. */
struct sched_vcpu {
    int32_t id;
    bool wanted;               /* it is among the facts */
    pid_t hints[THREAD_HINTS]; /* still to be looked at; 0: none */

    pid_t tid;             /* its thread; 0: not known */
    uint64_t start_ticks;  /* of that */
    int fd;                /* of its schedstat; -1: opened for each reading */
    unsigned nothing_read; /* how often in a row there was nothing in it */
    bool fresh;            /* was read by the last reading */
    bool known;            /* has been read once */
    struct times base;     /* what the thread had before it was this vCPU's */
    struct times last;     /* what it has now */
    struct times former;   /* what the vCPU's earlier threads had for it */
    int64_t read_boot_ns;  /* CLOCK_BOOTTIME at the last reading */

    int64_t observed_ns; /* begin of the interval that is observed next; 0: none */
    uint64_t observed_wait_ns;
    struct windows **peaks; /* of one series, for each window; NULL: none yet */
};

struct sched_vm {
    uint64_t id;
    pid_t pid;
    uint64_t start_ticks;
    const struct thread_names *names;
    uint32_t vm_vcpus;
    uint32_t n;
    struct sched_vcpu *vcpus; /* by id; none is ever taken out */

    bool seen;              /* its process has been looked at */
    nlink_t n_threads;      /* of the process, at the last count */
    bool all_named_bound;   /* no thread that by its name runs a vCPU is left */
    unsigned misses;        /* looks in a row that left a vCPU without a thread */
    int64_t look_due_ns;    /* INT64_MAX: when something changes */
    bool just_bound;        /* vCPUs have got a thread and were not read yet */
    bool closed;            /* while nothing is read */
    struct windows **peaks; /* as a vCPU's */
};

struct scheduler {
    struct store *store;
    const struct proc *proc;
    scheduler_notice_fn *notice;
    int64_t (*now_ns)(void); /* CLOCK_MONOTONIC, or a test's */
    bool noticed[SCHEDULER_TROUBLES];
    bool initial_pid_namespace;
    int fd_limit;          /* files with a number from here on are not kept open */
    struct config *config; /* a reference */
    size_t n_vms, vms_capacity;
    struct sched_vm **vms; /* by id */

    int64_t interval_ns; /* 0: off */
    int64_t due_ns;      /* the next tick */
    int64_t count_due_ns;
    bool peaks_by_vcpu;
    size_t n_windows;
    int64_t *windows_ns; /* owned */
    size_t look_cursor;  /* whose turn it is to be looked at again */

    /* THREADS: discovery. */
    size_t n_fed, fed_capacity;
    struct fed_vm **fed; /* by id */

    struct mailbox inbox;     /* facts */
    atomic_bool lost_threads; /* THREADS: written by the thread, read by discovery */
    atomic_bool stopping;
    _Atomic(struct config *) new_config; /* a reference on its way; THREADS: any may exchange */
    bool running;                        /* THREADS: whoever starts and stops */
    pthread_t thread;
};

/* --- scheduler.c --- */

void scheduler_say(struct scheduler *s, enum scheduler_trouble trouble, int error);

/* --- feed.c --- */

void feed_free(struct scheduler *s);

/* --- bind.c --- */

/* Finds threads for the VM's vCPUs. `again` tells when to look again, INT64_MAX: never. */
void bind_look(struct scheduler *s, struct sched_vm *vm, int64_t now_ns);
/* The vCPU has lost its thread, or is to have none; what it had is kept. */
void bind_release(struct sched_vcpu *vcpu);
/* Closes all files, but remembers whose they are: the next look opens them again. */
void bind_close(struct sched_vm *vm);
/* Where vCPUs are without, counts the process's threads, and has it looked at if that is news. */
void bind_count(struct scheduler *s, struct sched_vm *vm, int64_t now_ns);

/* --- read.c --- */

/* Reads the VM's threads and observes their waits. */
void read_vm(struct scheduler *s, struct sched_vm *vm, int64_t boot_ns);
/* Forgets the peaks; before the windows change. */
void read_drop_peaks(const struct scheduler *s, struct sched_vm *vm);
/* A snapshot of everything. Without memory the former one stays. */
void read_publish(struct scheduler *s);
struct times read_total(const struct sched_vcpu *vcpu);
