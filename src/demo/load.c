/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads with halts are paced inside the guest, by its timer; the others by the vCPU's thread, which
 * sleeps in user space between two exits, as a VMM does that waits for a device. So each load moves
 * its own statistics and no others.
 */
#include "load.h"

#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "options.h"

static void pace_by_guest(struct pacer *pacer, const struct options *options)
{
    (void)options;
    *pacer = (struct pacer){0};
}

static void pace_by_rate(struct pacer *pacer, const struct options *options)
{
    *pacer = (struct pacer){
        .period_ns = options->rate ? NSEC_PER_SEC / (int64_t)options->rate : 0,
        .deadline_ns = clock_now_ns(),
    };
}

static const struct load loads[] = {
    {"idle", "halted for good, nothing wakes it", 0, pace_by_guest},
    {"halt", "halts, woken by its timer's interrupt", LOAD_HALT, pace_by_guest},
    {"io", "port writes that exit to the VMM", LOAD_IO, pace_by_rate},
    {"mmio", "memory writes that exit to the VMM", LOAD_MMIO, pace_by_rate},
    {"mix", "one of each a round", LOAD_IO | LOAD_MMIO | LOAD_HALT, pace_by_guest},
};

size_t load_count(void)
{
    return ARRAY_LEN(loads);
}

const struct load *load_at(size_t i)
{
    return &loads[i];
}

const struct load *load_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(loads); i++) {
        if (strcmp(loads[i].name, name) == 0)
            return &loads[i];
    }
    return NULL;
}

void pacer_wait(struct pacer *pacer)
{
    if (!pacer->period_ns)
        return;
    pacer->deadline_ns += pacer->period_ns;
    int64_t now_ns = clock_now_ns();
    if (pacer->deadline_ns <= now_ns) {
        pacer->deadline_ns = now_ns; /* late: what was missed isn't made up in a burst */
        return;
    }
    struct timespec until = {
        .tv_sec = pacer->deadline_ns / NSEC_PER_SEC,
        .tv_nsec = pacer->deadline_ns % NSEC_PER_SEC,
    };
    (void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}
