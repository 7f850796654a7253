/* SPDX-License-Identifier: Apache-2.0 */
#include "selfstats.h"

#include "cleanup.h"
#include "clock.h"

#define US NSEC_PER_USEC
#define MS NSEC_PER_MSEC
#define S  NSEC_PER_SEC

/* From one small group's sweep to one that takes as long as a slow tick. */
static const int64_t fine_ns[] = {10 * US,  25 * US,  50 * US,  100 * US, 250 * US, 500 * US,
                                  1 * MS,   2 * MS,   5 * MS,   10 * MS,  25 * MS,  50 * MS,
                                  100 * MS, 250 * MS, 500 * MS, 1 * S};
/* Around what is promised: a first sample within 1 s, release within 100 ms. */
static const int64_t coarse_ns[] = {1 * MS,   2 * MS,   5 * MS, 10 * MS, 25 * MS, 50 * MS, 100 * MS,
                                    250 * MS, 500 * MS, 1 * S,  2 * S,   5 * S,   10 * S,  60 * S};

static const struct selfhist_bounds fine = {ARRAY_LEN(fine_ns), fine_ns};
static const struct selfhist_bounds coarse = {ARRAY_LEN(coarse_ns), coarse_ns};

_Static_assert(ARRAY_LEN(fine_ns) < SELFHIST_BUCKETS_MAX, "one more bucket is open");
_Static_assert(ARRAY_LEN(coarse_ns) < SELFHIST_BUCKETS_MAX, "one more bucket is open");

const char *read_error_name(enum read_error error)
{
    static const char *const names[READ_ERRORS] = {
        [READ_ERROR_SHORT] = "short",
        [READ_ERROR_IO] = "io",
    };
    return names[error];
}

const char *handoff_reject_name(enum handoff_reject reject)
{
    static const char *const names[HANDOFF_REJECTS] = {
        [HANDOFF_REJECT_NOT_STATS_FD] = "not_stats_fd",
        [HANDOFF_REJECT_TOO_MANY_FDS] = "too_many_fds",
        [HANDOFF_REJECT_BAD_MESSAGE] = "bad_message",
        [HANDOFF_REJECT_PEER] = "peer",
        [HANDOFF_REJECT_LIMIT] = "limit",
    };
    return names[reject];
}

const char *dump_result_name(enum dump_result result)
{
    static const char *const names[DUMP_RESULTS] = {
        [DUMP_WRITTEN] = "written",
        [DUMP_FAILED] = "failed",
        [DUMP_SKIPPED] = "skipped",
    };
    return names[result];
}

void selfstats_init(struct selfstats *self)
{
    self->discovery.bounds = &coarse;
    self->release.bounds = &coarse;
    self->sweep_duration.bounds = &fine;
    self->tick_lateness.bounds = &fine;
}

void selfhist_observe(struct selfhist *hist, int64_t duration_ns)
{
    unsigned i = 0;
    if (duration_ns < 0)
        duration_ns = 0;
    while (i < hist->bounds->n && duration_ns > hist->bounds->upper_ns[i])
        i++;
    atomic_fetch_add_explicit(&hist->buckets[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&hist->sum_ns, (uint64_t)duration_ns, memory_order_relaxed);
}
