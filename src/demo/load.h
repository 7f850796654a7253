/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a guest does, round by round, and how fast. A load is a line in the table of load.c: which
 * actions make a round, and who paces the rounds.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct options;

/* A round makes one of each that is set, in this order. */
enum {
    LOAD_IO = 1 << 0,   /* a port write that exits to user space */
    LOAD_MMIO = 1 << 1, /* a write to memory that isn't there, which exits to user space */
    LOAD_HALT = 1 << 2, /* a halt in the kernel, ended by an interrupt */
};

/* THREADS: one vCPU's own. */
struct pacer {
    int64_t period_ns;   /* 0: no pause */
    int64_t deadline_ns; /* CLOCK_MONOTONIC; of the next exit */
};

struct load {
    const char *name;
    const char *help;
    unsigned actions; /* LOAD_*; 0: the vCPU halts for good once it has started */
    void (*pacer_init)(struct pacer *pacer, const struct options *options);
};

size_t load_count(void);
const struct load *load_at(size_t i);
/* NULL: there is no such load. */
const struct load *load_find(const char *name);

/* Called after each exit to user space: sleeps until the guest may go on. */
void pacer_wait(struct pacer *pacer);
