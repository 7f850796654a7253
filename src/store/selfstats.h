/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the daemon counts about itself. Relaxed atomics: each value is exact, none is ordered with
 * another. Writers say below who they are; anyone may read.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

/* Bucket bounds in nanoseconds, ascending; the last bucket is open. Static. */
struct selfhist_bounds {
    unsigned n;
    const int64_t *upper_ns;
};

enum {
    SELFHIST_BUCKETS_MAX = 24,
};

struct selfhist {
    const struct selfhist_bounds *bounds;
    _Atomic uint64_t buckets[SELFHIST_BUCKETS_MAX]; /* not cumulative; bounds->n + 1 in use */
    _Atomic uint64_t sum_ns;
};

enum read_error {
    READ_ERROR_SHORT, /* fewer bytes than the schema says */
    READ_ERROR_IO,    /* the read failed */
    READ_ERRORS,
};
const char *read_error_name(enum read_error error);

enum handoff_reject {
    HANDOFF_REJECT_NOT_STATS_FD,
    HANDOFF_REJECT_TOO_MANY_FDS,
    HANDOFF_REJECT_BAD_MESSAGE,
    HANDOFF_REJECT_PEER,
    HANDOFF_REJECT_LIMIT,
    HANDOFF_REJECTS,
};
const char *handoff_reject_name(enum handoff_reject reject);

enum dump_result {
    DUMP_WRITTEN,
    DUMP_FAILED,  /* the directory could not be written to */
    DUMP_SKIPPED, /* too much was to be dumped at a time */
    DUMP_RESULTS,
};
const char *dump_result_name(enum dump_result result);

struct selfstats {
    /* sampler */
    struct selfhist discovery;      /* VM created -> first sample */
    struct selfhist sweep_duration; /* one tick of one group */
    struct selfhist tick_lateness;
    _Atomic uint64_t ticks;
    _Atomic uint64_t ticks_missed;
    _Atomic uint64_t read_errors[READ_ERRORS];
    _Atomic uint64_t recorder_bytes;   /* of its memory in use */
    _Atomic int64_t recorder_since_ns; /* what is older may have gone; 0: there is no recorder */
    /* reaper */
    struct selfhist release; /* VMM exited -> all its fds closed */
    /* discovery */
    _Atomic uint64_t handoff_rejected[HANDOFF_REJECTS];
    atomic_bool looked_once; /* the first look over all processes is done and handed on */
    /* dumper; SKIPPED also the sampler */
    _Atomic uint64_t dumps[DUMP_RESULTS];
    /* scrapers */
    _Atomic int64_t render_duration_ns; /* of the last scrape */
    atomic_bool web_config_refused; /* its files say what is wrong, and the former is in force */
    /* main */
    atomic_bool config_reload_ok;
    _Atomic int64_t config_reload_ok_wall_ns;
};

void selfstats_init(struct selfstats *self);
void selfhist_observe(struct selfhist *hist, int64_t duration_ns);
