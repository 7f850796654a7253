/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is kept of a VM between two scrapes: sliding peaks and distributions of its rates, sliding
 * highs and lows of its gauges. Made by discovery's thread, written by the sampler at each tick,
 * read by scrapers through the layout: no lock anywhere.
 *
 * Everything is counted by reference, down to each window and each distribution, so that they go on
 * when vCPUs come and go, the VM moves to another rate group, or the configuration changes.
 */
#pragma once

#include "distribution.h"
#include "schema_table.h"
#include "window.h"

enum {
    BURST_STATS_MAX = 256, /* of one schema; those of KVM have some 50, the most (s390) 120 */
    BURST_WINDOWS_MAX = 8,
    BURST_WINDOW_LABEL_BYTES = 24,
};

/*
 * Which statistics of a schema are watched, and how. Three lists, one after another: those with a
 * peak of their rate, those whose rate is only distributed, and gauges. Immutable once used.
 */
struct burst_stats {
    atomic_uint refs;
    const struct schema *schema;
    uint32_t n_peaks;         /* of the statistics 0 … n_peaks - 1 */
    uint32_t n_rates;         /* 0 … n_rates - 1 are cumulative … */
    uint32_t n_stats;         /* … and the rest gauges */
    uint32_t n_distributions; /* … of the statistics distributed[0 … n_distributions - 1] */
    uint32_t n_windows;
    const struct kvmstats_desc *descs[BURST_STATS_MAX];
    /* The same for the tick: where each is in a block, and what makes a rate in base units a second
     * of a difference over nanoseconds. */
    uint32_t offsets[BURST_STATS_MAX];
    double factors[BURST_STATS_MAX];
    uint32_t distributed[BURST_STATS_MAX];
    int64_t windows_ns[BURST_WINDOWS_MAX];
    char window_labels[BURST_WINDOWS_MAX][BURST_WINDOW_LABEL_BYTES]; /* "15s", "1500ms" */
};

/* The label of a window, as a person writes it: in the largest unit that it is whole in. */
void burst_window_label(int64_t ns, char ret_label[BURST_WINDOW_LABEL_BYTES]);

/* Whether a statistic has a rate, or a level that goes up and down, worth watching: scalars only,
 * no booleans, and none that is itself a peak since its VM was made. */
bool burst_has_rate(const struct kvmstats_desc *desc);
bool burst_has_level(const struct kvmstats_desc *desc);

/* Each window stands once; of more than BURST_WINDOWS_MAX the first count. */
MUST_USE int burst_stats_new(const struct schema *schema, const int64_t *windows_ns,
                             size_t n_windows, struct burst_stats **ret_stats);
/* Adds the statistics that `wants` asks for and that can be watched. Called once. */
enum {
    BURST_WANT_PEAK = 1 << 0,
    BURST_WANT_DISTRIBUTION = 1 << 1,
};
void burst_stats_choose(struct burst_stats *stats, unsigned (*wants)(void *ctx, const char *name),
                        void *ctx);
struct burst_stats *burst_stats_ref(struct burst_stats *stats);
void burst_stats_unref(struct burst_stats *stats);
DEFINE_CLEANUP(struct burst_stats *, burst_stats_unref)

/* Series in a window: the peaks, then high and low of each gauge by turns. */
static inline uint32_t burst_series_of_high(const struct burst_stats *stats, uint32_t stat)
{
    return stats->n_peaks + 2 * (stat - stats->n_rates);
}

static inline uint32_t burst_n_series(const struct burst_stats *stats)
{
    return stats->n_peaks + 2 * (stats->n_stats - stats->n_rates);
}

/* What is kept for the VM scope, for one vCPU, or for all vCPUs of a VM together. */
struct burst_set {
    atomic_uint refs;
    struct burst_stats *stats;           /* a reference */
    struct windows **windows;            /* references; stats->n_windows of burst_n_series() */
    struct distribution **distributions; /* references; stats->n_distributions */
};

/* `before` (may be NULL): what can be taken over from it is. Returns 0 or -ENOMEM. */
MUST_USE int burst_set_new(struct burst_stats *stats, const struct burst_set *before,
                           struct burst_set **ret_set);
struct burst_set *burst_set_ref(struct burst_set *set);
void burst_set_unref(struct burst_set *set);
DEFINE_CLEANUP(struct burst_set *, burst_set_unref)

/*
 * One tick of a set. THREADS: sampler. `rates` and `seen` have n_rates items, a rate counts where
 * it was seen; `levels` has the gauges, NULL: not seen. Also to be called when nothing was seen, so
 * that windows age.
 */
struct burst_tick {
    int64_t now_ns;
    int64_t patience_ns; /* readers believe it for so long, and for the length of the window */
    const double *rates;
    const uint8_t *seen;
    const uint64_t *levels;
};
void burst_set_tick(struct burst_set *set, const struct burst_tick *tick);

/* All sets of a VM, and which of its targets go into each. Immutable. */
struct bursts {
    atomic_uint refs;
    uint32_t n_sets;
    struct burst_part {
        struct burst_set *set; /* a reference */
        uint32_t first, n;     /* targets, counted from the VM's first */
        int32_t vcpu;          /* -1: the VM scope, or all vCPUs together … */
        enum scope scope;      /* … which this tells apart */
    } parts[];
};

/* Room for n_sets parts, which the caller fills, raising n_sets. */
MUST_USE int bursts_new(uint32_t n_sets, struct bursts **ret_bursts);
struct bursts *bursts_ref(struct bursts *bursts);
void bursts_unref(struct bursts *bursts);
DEFINE_CLEANUP(struct bursts *, bursts_unref)
