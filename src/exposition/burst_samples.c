/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rates are no exact values: text has them as the shortest decimal of a double. Highs and lows
 * of gauges are exact, as the gauges are.
 */
#include "burst_samples.h"

#include "clock.h"
#include "number.h"

enum {
    LABELS_MAX = 3,
};

/* One set of one VM or vCPU. */
struct item {
    const struct burst_set *set;
    const char *vm;
    int32_t vcpu; /* -1: none */
};

/* All of a scope. */
struct item_list {
    struct item *items;
    size_t n;
};

static size_t count_parts(const struct view *view)
{
    size_t n = 0;
    for (size_t i = 0; i < view->n_vms; i++)
        n += view->vms[i].vm->bursts ? view->vms[i].vm->bursts->n_sets : 0;
    return n;
}

static struct item item_of(const struct view_vm *vm, const struct burst_part *part)
{
    return (struct item){.set = part->set, .vm = vm->vm->identity->vm, .vcpu = part->vcpu};
}

static int list_items(const struct view *view, enum scope scope, struct item_list *ret_list)
{
    size_t n = 0;
    struct item *items = calloc(MAX_OF(count_parts(view), (size_t)1), sizeof *items);
    if (!items)
        return -ENOMEM;
    for (size_t i = 0; i < view->n_vms; i++) {
        const struct bursts *bursts = view->vms[i].vm->bursts;
        for (uint32_t p = 0; bursts && p < bursts->n_sets; p++) {
            if (bursts->parts[p].scope == scope)
                items[n++] = item_of(&view->vms[i], &bursts->parts[p]);
        }
    }
    *ret_list = (struct item_list){items, n};
    return 0;
}

/* Which statistic of a set a family shows. Neighbours mostly share it, so it is remembered. */
struct finder {
    const struct burst_family *family;
    const struct burst_stats *stats;
    bool found;
    uint32_t stat; /* for a distribution its number, else the statistic's */
};

static bool find_stat(struct finder *finder, const struct burst_stats *stats)
{
    const struct burst_family *family = finder->family;
    const struct kvmstats_desc *desc = family->descs[stats->schema->index];
    if (finder->stats == stats)
        return finder->found;
    finder->stats = stats;
    finder->found = false;
    uint32_t from = 0, to = stats->n_peaks;
    if (family->shape == BURST_DISTRIBUTION)
        to = stats->n_distributions;
    else if (family->shape != BURST_PEAK)
        from = stats->n_rates, to = stats->n_stats;
    for (uint32_t i = from; desc && i < to; i++) {
        uint32_t stat = family->shape == BURST_DISTRIBUTION ? stats->distributed[i] : i;
        if (stats->descs[stat] != desc)
            continue;
        finder->stat = i;
        finder->found = true;
    }
    return finder->found;
}

/* The labels of an item, one that is still free behind them. */
struct label_set {
    struct own_label items[LABELS_MAX];
    size_t n;
    char vcpu[NUMBER_U64_BYTES + NUMBER_OVERRUN];
};

static void set_labels(struct label_set *labels, const struct item *item)
{
    labels->n = 0;
    labels->items[labels->n++] = (struct own_label){"vm", item->vm};
    if (item->vcpu < 0)
        return;
    *number_put_u64(labels->vcpu, (uint64_t)item->vcpu) = '\0';
    labels->items[labels->n++] = (struct own_label){"vcpu", labels->vcpu};
}

/* --- windows --- */

static struct own_value value_of_key(const struct burst_family *family,
                                     const struct kvmstats_desc *desc, uint64_t key)
{
    if (family->shape == BURST_PEAK)
        return own_double(window_double_of_key(key));
    uint64_t raw = family->shape == BURST_HIGH ? window_high_of_key(key) : window_low_of_key(key);
    return own_scaled(raw, desc->base, desc->exponent);
}

static void put_windows(struct own *own, const struct burst_family *family, const struct item *item,
                        uint32_t stat, int64_t now_ns)
{
    const struct burst_stats *stats = item->set->stats;
    uint32_t series = family->shape == BURST_PEAK ? stat : burst_series_of_high(stats, stat);
    struct label_set labels;
    series += family->shape == BURST_LOW;
    set_labels(&labels, item);
    for (uint32_t i = 0; i < stats->n_windows; i++) {
        uint64_t key = windows_read(item->set->windows[i], series, now_ns);
        if (key == WINDOW_NOTHING)
            continue;
        labels.items[labels.n] = (struct own_label){"window", stats->window_labels[i]};
        own_sample(own, labels.items, labels.n + 1, value_of_key(family, stats->descs[stat], key));
    }
}

/* --- distributions --- */

/* The bounds of a range in units of its first one's power of ten. */
struct bounds {
    const struct distribution_range *range;
    int64_t values[DISTRIBUTION_BOUNDS];
};

static void make_bounds(struct bounds *bounds, const struct distribution_range *range)
{
    for (unsigned i = 0; i < DISTRIBUTION_BOUNDS; i++) {
        int power10;
        int64_t value = distribution_bound(range, i, &power10);
        for (; power10 > range->first_power10; power10--)
            value *= 10;
        bounds->values[i] = value;
    }
    bounds->range = range;
}

static void load(uint64_t *to, const _Atomic uint64_t *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = atomic_load_explicit(&from[i], memory_order_relaxed);
}

static void put_distribution(struct own *own, const struct item *item,
                             const struct distribution *distribution, struct bounds *bounds)
{
    const struct distribution_range *range = distribution->range;
    bool is_native = own->format == EXPOSITION_PROTOBUF; /* the others show the classic buckets */
    uint64_t classic[DISTRIBUTION_CLASSIC], native[DISTRIBUTION_NATIVE], zero = 0;
    if (bounds->range != range)
        make_bounds(bounds, range);
    /* Before the buckets: never the sum of more than they count. */
    double sum = distribution_sum(distribution);
    if (is_native) {
        load(&zero, &distribution->zero, 1);
        load(native, distribution->native, ARRAY_LEN(native));
    } else {
        load(classic, distribution->classic, ARRAY_LEN(classic));
    }
    const struct native_buckets finer = {
        .schema = DISTRIBUTION_SCHEMA,
        .zero_threshold = range->zero_threshold,
        .zero_count = zero,
        .first = distribution_native_index(range, 0),
        .n = ARRAY_LEN(native),
        .counts = native,
    };
    const struct own_histogram h = {
        .n = DISTRIBUTION_BOUNDS,
        .bounds = bounds->values,
        .bounds_exponent = (int16_t)range->first_power10,
        .counts = classic,
        .has_sum = true,
        .sum = own_double(sum),
        .native = is_native ? &finer : NULL,
    };
    struct label_set labels;
    set_labels(&labels, item);
    own_histogram(own, labels.items, labels.n, &h);
}

/* --- families --- */

static void put_family(struct own *own, const struct burst_family *family,
                       const struct item_list *list, int64_t now_ns)
{
    struct finder finder = {.family = family};
    struct bounds bounds = {.range = NULL};
    bool begun = false;
    for (size_t i = 0; i < list->n && !own->w->error; i++) {
        const struct item *item = &list->items[i];
        if (!find_stat(&finder, item->set->stats))
            continue;
        if (!begun)
            own_begin(own, &family->own);
        begun = true;
        if (family->shape == BURST_DISTRIBUTION)
            put_distribution(own, item, item->set->distributions[finder.stat], &bounds);
        else
            put_windows(own, family, item, finder.stat, now_ns);
    }
    if (begun)
        own_end(own);
}

void bursts_put(struct own *own, const struct burst_families *families, const struct view *view)
{
    struct writer *w = own->w;
    struct item_list lists[SCOPE_VCPU + 1] = {{0}};
    int64_t now_ns = clock_now_ns();
    int r = list_items(view, SCOPE_VM, &lists[SCOPE_VM]);
    if (r == 0)
        r = list_items(view, SCOPE_VCPU, &lists[SCOPE_VCPU]);
    if (r < 0)
        w->error = w->error ? w->error : r;
    for (const struct burst_family *f = families->first; f && !w->error; f = f->next)
        put_family(own, f, &lists[f->scope], now_ns);
    free(lists[SCOPE_VM].items);
    free(lists[SCOPE_VCPU].items);
}
