/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads with halts are paced inside the guest, by its timer; the others by the vCPU's thread, which
 * sleeps in user space between two exits, as a VMM does that waits for a device. So each load moves
 * its own statistics and no others.
 */
#include "load.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "options.h"

enum {
    /* A sleep takes longer by some 50 µs: what is due sooner is not worth one. */
    SLEEP_MIN_NS = 200000,
};

static void sleep_until(int64_t until_ns)
{
    const struct timespec until = {
        .tv_sec = until_ns / NSEC_PER_SEC,
        .tv_nsec = until_ns % NSEC_PER_SEC,
    };
    (void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}

static void pace_by_guest(struct pacer *pacer)
{
    (void)pacer;
}

static void pace_by_rate(struct pacer *pacer)
{
    if (!pacer->period_ns)
        return;
    pacer->deadline_ns += pacer->period_ns;
    int64_t now_ns = clock_now_ns();
    if (pacer->deadline_ns <= now_ns)
        pacer->deadline_ns = now_ns; /* late: what was missed isn't made up in a burst */
    else
        sleep_until(pacer->deadline_ns);
}

/* The inside of a string of JSON, of a name without control characters. */
static void quote_name(const char *name, char *to)
{
    for (; name && *name; name++) {
        if (*name == '"' || *name == '\\')
            *to++ = '\\';
        *to++ = *name;
    }
    *to = '\0';
}

/* What really happened, for whoever wants to compare. */
static void report_burst(const struct pacer *pacer, int64_t end_ns)
{
    char name[2 * OPTIONS_NAME_MAX + 1];
    quote_name(pacer->options->name, name);
    int64_t wall_ns = pacer->begin_ns + clock_wall_offset_ns();
    printf("burst {\"vm\": \"%s\", \"vcpu\": %u, \"exits\": %" PRIu64
           ", \"start_monotonic_ns\": %" PRId64 ", \"start_seconds\": %" PRId64 ".%09" PRId64
           ", \"duration_ns\": %" PRId64 "}\n",
           name, pacer->vcpu, pacer->made, pacer->begin_ns, wall_ns / NSEC_PER_SEC,
           wall_ns % NSEC_PER_SEC, end_ns - pacer->begin_ns);
}

/* The exits of a burst are spread over its length; one that is late is made up for at once. */
static void pace_by_bursts(struct pacer *pacer)
{
    const struct options *options = pacer->options;
    int64_t now_ns = clock_now_ns();
    if (pacer->bursting && ++pacer->made < options->burst_exits) {
        double part = (double)pacer->made / (double)options->burst_exits;
        int64_t due_ns = pacer->begin_ns + (int64_t)(part * (double)options->burst_ms * 1e6);
        if (due_ns - now_ns >= SLEEP_MIN_NS)
            sleep_until(due_ns);
        return;
    }
    if (pacer->bursting)
        report_burst(pacer, now_ns);
    int64_t every_ns = (int64_t)options->burst_every_ms * NSEC_PER_MSEC;
    while (pacer->deadline_ns <= now_ns)
        pacer->deadline_ns += every_ns;
    sleep_until(pacer->deadline_ns);
    pacer->begin_ns = clock_now_ns();
    pacer->made = 0;
    pacer->bursting = true;
}

static const struct load loads[] = {
    {"idle", "halted for good, nothing wakes it", 0, pace_by_guest},
    {"halt", "halts, woken by its timer's interrupt", LOAD_HALT, pace_by_guest},
    {"io", "port writes that exit to the VMM", LOAD_IO, pace_by_rate},
    {"mmio", "memory writes that exit to the VMM", LOAD_MMIO, pace_by_rate},
    {"mix", "one of each a round", LOAD_IO | LOAD_MMIO | LOAD_HALT, pace_by_guest},
    {"burst", "port writes in short bursts, nothing between them", LOAD_IO, pace_by_bursts},
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

void pacer_init(struct pacer *pacer, const struct options *options, unsigned vcpu)
{
    *pacer = (struct pacer){
        .wait = options->load->wait,
        .options = options,
        .vcpu = vcpu,
        .period_ns = options->rate ? NSEC_PER_SEC / (int64_t)options->rate : 0,
        .deadline_ns = clock_now_ns(),
    };
}

void pacer_wait(struct pacer *pacer)
{
    pacer->wait(pacer);
}
