/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rate is what a counter has gained over the real time between the two readings, whatever ticks
 * were late or missed in between. A target that could not be read in this tick adds nothing to its
 * VM's rate; when it can be read again, all it gained meanwhile is spread over all of that time. So
 * a sum over vCPUs may be too low for a tick, and is never too high. A gauge is not shown at all in
 * such a tick: a sum that lacks one would be a low that never was. Nor is a rate in a tick in which
 * the counter of any vCPU went back: what that one gained will never be known.
 */
#include "rates.h"

#include "clock.h"

/* The shortest time a rate is told of, where half an interval is not shorter still. */
#define RESOLUTION_NS (50 * NSEC_PER_MSEC)

/* What the targets of one part come to. */
struct tally {
    double rates[BURST_STATS_MAX];
    uint8_t seen[BURST_STATS_MAX];
    uint8_t fell[BURST_STATS_MAX];
    uint64_t levels[BURST_STATS_MAX];
    bool any_level, all_levels;
};

static inline uint64_t load_value(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

/*
 * Ticks come early where VMs have joined or moved. The few exits of a millisecond are no rate of
 * thousands a second, so there is a resolution: half of the interval. Of a long one it would be too
 * much, since where VMs join all the time most ticks are early, and every rate would be too low.
 */
static int64_t time_between(const struct tick_vm *tick, const struct last_reading *before,
                            const struct last_reading *now)
{
    int64_t gap_ns = now->read_ns - before->read_ns;
    return gap_ns <= 0 ? 0 : MAX_OF(gap_ns, MIN_OF(tick->interval_ns / 2, RESOLUTION_NS));
}

static void add_rates(struct tally *tally, const struct burst_stats *stats, const uint8_t *before,
                      const uint8_t *now, int64_t gap_ns)
{
    const double gap = (double)gap_ns;
    for (uint32_t i = 0; i < stats->n_rates; i++) {
        uint64_t then = load_value(before + stats->offsets[i]);
        int64_t gained = (int64_t)(load_value(now + stats->offsets[i]) - then);
        bool counts = gained >= 0; /* else it went back: it was cleared */
        tally->rates[i] += counts ? (double)gained * stats->factors[i] / gap : 0;
        tally->seen[i] |= counts;
        tally->fell[i] |= !counts;
    }
}

static void add_target(struct tally *tally, const struct burst_stats *stats,
                       const struct tick_vm *tick, uint32_t target)
{
    enum target_status status = tick_status(tick, target);
    if (status == TARGET_HELD)
        tally->all_levels = false;
    if (status != TARGET_READ || tick->targets[target].schema != stats->schema)
        return;
    struct last_reading now = tick_now(tick, target), before = tick_before(tick, target);
    for (uint32_t i = stats->n_rates; i < stats->n_stats; i++)
        tally->levels[i - stats->n_rates] += load_value(now.block + stats->offsets[i]);
    tally->any_level = true;
    int64_t gap_ns = before.block ? time_between(tick, &before, &now) : 0;
    if (gap_ns > 0)
        add_rates(tally, stats, before.block, now.block, gap_ns);
}

static void observe_part(const struct tick_vm *tick, const struct burst_part *part)
{
    const struct burst_stats *stats = part->set->stats;
    struct tally tally;
    memset(tally.rates, 0, stats->n_rates * sizeof tally.rates[0]);
    memset(tally.seen, 0, stats->n_rates * sizeof tally.seen[0]);
    memset(tally.fell, 0, stats->n_rates * sizeof tally.fell[0]);
    memset(tally.levels, 0, (stats->n_stats - stats->n_rates) * sizeof tally.levels[0]);
    tally.any_level = false;
    tally.all_levels = true;
    for (uint32_t i = part->first; i < part->first + part->n; i++)
        add_target(&tally, stats, tick, i);
    for (uint32_t i = 0; i < stats->n_rates; i++)
        tally.seen[i] &= !tally.fell[i];
    const struct burst_tick observed = {
        .now_ns = tick->frame->end_ns,
        .patience_ns = 4 * tick->interval_ns,
        .rates = tally.rates,
        .seen = tally.seen,
        .levels = tally.any_level && tally.all_levels ? tally.levels : NULL,
    };
    burst_set_tick(part->set, &observed);
}

void rates_observe(const struct tick_vm *tick)
{
    const struct bursts *bursts = tick->place->bursts;
    for (uint32_t i = 0; bursts && i < bursts->n_sets; i++)
        observe_part(tick, &bursts->parts[i]);
}
