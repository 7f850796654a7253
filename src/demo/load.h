/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a guest does, round by round, and how fast. A load is a line in the table of load.c: which
 * actions make a round, and who paces the rounds.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct options;

/* A round makes one of each that is set, in this order. */
enum {
    LOAD_IO = 1 << 0,   /* a port write that exits to user space */
    LOAD_MMIO = 1 << 1, /* a write to memory that isn't there, which exits to user space */
    LOAD_HALT = 1 << 2, /* a halt in the kernel, ended by an interrupt */
};

/* THREADS: one vCPU's own. Times are of CLOCK_MONOTONIC. */
struct pacer {
    void (*wait)(struct pacer *pacer);
    const struct options *options; /* borrowed */
    unsigned vcpu;
    int64_t period_ns;   /* 0: no pause */
    int64_t deadline_ns; /* of the next exit, or burst */
    int64_t begin_ns;    /* of the burst that is on */
    uint64_t made;       /* exits of it so far */
    bool bursting;
};

struct load {
    const char *name;
    const char *help;
    unsigned actions; /* LOAD_*; 0: the vCPU halts for good once it has started */
    void (*wait)(struct pacer *pacer);
};

size_t load_count(void);
const struct load *load_at(size_t i);
/* NULL: there is no such load. */
const struct load *load_find(const char *name);

/* Before the vCPU runs. */
void pacer_init(struct pacer *pacer, const struct options *options, unsigned vcpu);
/* Called after each exit to user space: sleeps until the guest may go on. */
void pacer_wait(struct pacer *pacer);
