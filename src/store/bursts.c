/* SPDX-License-Identifier: Apache-2.0 */
#include "bursts.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "clock.h"

void burst_window_label(int64_t ns, char ret_label[BURST_WINDOW_LABEL_BYTES])
{
    static const struct {
        int64_t ns;
        const char *name;
    } units[] = {
        {3600 * NSEC_PER_SEC, "h"}, {60 * NSEC_PER_SEC, "m"}, {NSEC_PER_SEC, "s"},
        {NSEC_PER_MSEC, "ms"},      {NSEC_PER_USEC, "us"},    {1, "ns"},
    };
    size_t i = 0;
    while (ns % units[i].ns)
        i++;
    (void)snprintf(ret_label, BURST_WINDOW_LABEL_BYTES, "%" PRId64 "%s", ns / units[i].ns,
                   units[i].name);
}

int burst_stats_new(const struct schema *schema, const int64_t *windows_ns, size_t n_windows,
                    struct burst_stats **ret_stats)
{
    struct burst_stats *stats = calloc(1, sizeof *stats);
    if (!stats)
        return -ENOMEM;
    atomic_init(&stats->refs, 1);
    stats->schema = schema;
    stats->n_windows = (uint32_t)MIN_OF(n_windows, (size_t)BURST_WINDOWS_MAX);
    for (uint32_t i = 0; i < stats->n_windows; i++) {
        stats->windows_ns[i] = windows_ns[i];
        burst_window_label(windows_ns[i], stats->window_labels[i]);
    }
    *ret_stats = stats;
    return 0;
}

static bool is_watchable(const struct kvmstats_desc *desc, enum kvmstats_type type)
{
    return desc->known && desc->type == type && desc->unit != KVMSTATS_UNIT_BOOLEAN &&
           desc->size == 1;
}

bool burst_has_rate(const struct kvmstats_desc *desc)
{
    return is_watchable(desc, KVMSTATS_TYPE_CUMULATIVE);
}

bool burst_has_level(const struct kvmstats_desc *desc)
{
    return is_watchable(desc, KVMSTATS_TYPE_INSTANT);
}

/* Per nanosecond to per second, and raw to base units: in one product, exact for 10^-9. */
static double factor_of(const struct kvmstats_desc *desc)
{
    if (desc->base == KVMSTATS_BASE_POW2)
        return ldexp(1e9, desc->exponent);
    return pow(10, 9 + desc->exponent);
}

static void add_stat(struct burst_stats *stats, const struct kvmstats_desc *desc, bool distribute)
{
    uint32_t at = stats->n_stats++;
    stats->descs[at] = desc;
    stats->offsets[at] = desc->offset;
    stats->factors[at] = factor_of(desc);
    if (distribute)
        stats->distributed[stats->n_distributions++] = at;
}

/* Those of one list. `want`: of peak and distribution exactly these. */
static void add_those(struct burst_stats *stats, enum kvmstats_type type, unsigned mask,
                      unsigned want, unsigned (*wants)(void *ctx, const char *name), void *ctx)
{
    const struct kvmstats_schema *schema = stats->schema->decoded;
    for (size_t i = 0; i < kvmstats_schema_count(schema); i++) {
        const struct kvmstats_desc *desc = kvmstats_schema_desc(schema, i);
        if (!is_watchable(desc, type) || stats->n_stats == BURST_STATS_MAX)
            continue;
        unsigned wanted = wants(ctx, desc->name);
        if ((wanted & mask) == want)
            add_stat(stats, desc,
                     type == KVMSTATS_TYPE_CUMULATIVE && (wanted & BURST_WANT_DISTRIBUTION));
    }
}

void burst_stats_choose(struct burst_stats *stats, unsigned (*wants)(void *ctx, const char *name),
                        void *ctx)
{
    const unsigned peak = stats->n_windows ? BURST_WANT_PEAK : 0;
    if (peak)
        add_those(stats, KVMSTATS_TYPE_CUMULATIVE, peak, peak, wants, ctx);
    stats->n_peaks = stats->n_stats;
    add_those(stats, KVMSTATS_TYPE_CUMULATIVE, peak | BURST_WANT_DISTRIBUTION,
              BURST_WANT_DISTRIBUTION, wants, ctx);
    stats->n_rates = stats->n_stats;
    if (peak)
        add_those(stats, KVMSTATS_TYPE_INSTANT, peak, peak, wants, ctx);
}

struct burst_stats *burst_stats_ref(struct burst_stats *stats)
{
    atomic_fetch_add_explicit(&stats->refs, 1, memory_order_relaxed);
    return stats;
}

void burst_stats_unref(struct burst_stats *stats)
{
    if (stats && atomic_fetch_sub_explicit(&stats->refs, 1, memory_order_acq_rel) == 1)
        free(stats);
}

static const struct distribution_range *range_of(const struct kvmstats_desc *desc)
{
    switch ((enum kvmstats_unit)desc->unit) {
    case KVMSTATS_UNIT_SECONDS:
        return &distribution_of_ratios;
    case KVMSTATS_UNIT_BYTES:
    case KVMSTATS_UNIT_CYCLES:
        return &distribution_of_large;
    case KVMSTATS_UNIT_NONE:
    case KVMSTATS_UNIT_BOOLEAN:
        break;
    }
    return &distribution_of_counts;
}

/* Windows go on where they have the same series. */
static bool same_series(const struct burst_stats *a, const struct burst_stats *b)
{
    if (a->schema != b->schema || a->n_peaks != b->n_peaks ||
        a->n_stats - a->n_rates != b->n_stats - b->n_rates)
        return false;
    for (uint32_t i = 0; i < a->n_peaks; i++) {
        if (a->descs[i] != b->descs[i])
            return false;
    }
    for (uint32_t i = 0; i < a->n_stats - a->n_rates; i++) {
        if (a->descs[a->n_rates + i] != b->descs[b->n_rates + i])
            return false;
    }
    return true;
}

static struct windows *find_windows(const struct burst_set *set, const struct burst_stats *like,
                                    int64_t window_ns)
{
    for (uint32_t i = 0; set && same_series(set->stats, like) && i < set->stats->n_windows; i++) {
        if (set->stats->windows_ns[i] == window_ns)
            return set->windows[i];
    }
    return NULL;
}

static struct distribution *find_distribution(const struct burst_set *set,
                                              const struct kvmstats_desc *desc)
{
    for (uint32_t i = 0; set && i < set->stats->n_distributions; i++) {
        if (set->stats->descs[set->stats->distributed[i]] == desc)
            return set->distributions[i];
    }
    return NULL;
}

static int fill_set(struct burst_set *set, const struct burst_set *before)
{
    const struct burst_stats *stats = set->stats;
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < stats->n_windows; i++) {
        struct windows *found = find_windows(before, stats, stats->windows_ns[i]);
        if (found)
            set->windows[i] = windows_ref(found);
        else
            r = windows_new(stats->windows_ns[i], burst_n_series(stats), &set->windows[i]);
    }
    for (uint32_t i = 0; r == 0 && i < stats->n_distributions; i++) {
        const struct kvmstats_desc *desc = stats->descs[stats->distributed[i]];
        struct distribution *found = find_distribution(before, desc);
        if (found)
            set->distributions[i] = distribution_ref(found);
        else
            r = distribution_new(range_of(desc), &set->distributions[i]);
    }
    return r;
}

int burst_set_new(struct burst_stats *stats, const struct burst_set *before,
                  struct burst_set **ret_set)
{
    size_t pointers = (size_t)stats->n_windows + stats->n_distributions;
    CLEANUP(cleanup_burst_set_unref)
    struct burst_set *set = calloc(1, sizeof *set + pointers * sizeof(void *));
    if (!set)
        return -ENOMEM;
    atomic_init(&set->refs, 1);
    set->stats = burst_stats_ref(stats);
    set->windows = (struct windows **)(set + 1);
    set->distributions = (struct distribution **)(set->windows + stats->n_windows);
    int r = fill_set(set, before);
    if (r < 0)
        return r;
    *ret_set = steal_ptr(&set);
    return 0;
}

struct burst_set *burst_set_ref(struct burst_set *set)
{
    atomic_fetch_add_explicit(&set->refs, 1, memory_order_relaxed);
    return set;
}

void burst_set_unref(struct burst_set *set)
{
    if (!set || atomic_fetch_sub_explicit(&set->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (uint32_t i = 0; i < set->stats->n_windows; i++)
        windows_free(set->windows[i]);
    for (uint32_t i = 0; i < set->stats->n_distributions; i++)
        distribution_unref(set->distributions[i]);
    burst_stats_unref(set->stats);
    free(set);
}

static void tick_windows(struct windows *windows, const struct burst_stats *stats,
                         const struct burst_tick *tick)
{
    for (uint32_t i = 0; i < stats->n_peaks; i++) {
        if (tick->seen[i])
            windows_add(windows, i, window_key_of_double(tick->rates[i]));
    }
    if (!tick->levels)
        return;
    for (uint32_t i = stats->n_rates; i < stats->n_stats; i++) {
        uint32_t series = burst_series_of_high(stats, i);
        uint64_t level = tick->levels[i - stats->n_rates];
        windows_add(windows, series, window_key_of_high(level));
        windows_add(windows, series + 1, window_key_of_low(level));
    }
}

void burst_set_tick(struct burst_set *set, const struct burst_tick *tick)
{
    const struct burst_stats *stats = set->stats;
    for (uint32_t i = 0; i < stats->n_windows; i++) {
        windows_age(set->windows[i], tick->now_ns,
                    tick->now_ns + MAX_OF(stats->windows_ns[i], tick->patience_ns));
        tick_windows(set->windows[i], stats, tick);
    }
    for (uint32_t i = 0; i < stats->n_distributions; i++) {
        uint32_t stat = stats->distributed[i];
        if (tick->seen[stat])
            distribution_observe(set->distributions[i], tick->rates[stat]);
    }
}

int bursts_new(uint32_t n_sets, struct bursts **ret_bursts)
{
    struct bursts *bursts = calloc(1, sizeof *bursts + n_sets * sizeof bursts->parts[0]);
    if (!bursts)
        return -ENOMEM;
    atomic_init(&bursts->refs, 1);
    *ret_bursts = bursts;
    return 0;
}

struct bursts *bursts_ref(struct bursts *bursts)
{
    atomic_fetch_add_explicit(&bursts->refs, 1, memory_order_relaxed);
    return bursts;
}

void bursts_unref(struct bursts *bursts)
{
    if (!bursts || atomic_fetch_sub_explicit(&bursts->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (uint32_t i = 0; i < bursts->n_sets; i++)
        burst_set_unref(bursts->parts[i].set);
    free(bursts);
}
