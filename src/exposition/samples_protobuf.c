/* SPDX-License-Identifier: Apache-2.0 */
/*
 * As samples.c, in protobuf. A family is one message that begins with its length, and it can be far
 * longer than a piece. Counters and gauges have a fixed size, so theirs is known before any is
 * written: the labels' bytes were added up when the scene was made. A sample is one copy (the
 * metric's tag, length and labels, made once a scrape) and 11 bytes that hold the value. Histograms
 * vary in size and are few, so theirs are collected in a buffer until the family is complete.
 */
#include "samples.h"

#include "kvmstats/kvmstats.h"
#include "number.h"
#include "pb_histogram.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

enum {
    PREFETCH_AHEAD = 8, /* series */
    /* Of a logarithmic histogram: one of 0, 64 with a bound and one for what the last has not. */
    LOG_BUCKETS_MAX = 66,
};

static ALWAYS_INLINE uint64_t load_value(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

/* `form` is a constant at every call. */
static ALWAYS_INLINE void put_scalars(struct writer *w, int tag, const struct kvmstats_desc *desc,
                                      const struct series *series, size_t n, enum number_form form)
{
    const char before_value[] = {(char)tag, PB_DOUBLE_FIELD, PB_VALUE};
    const size_t offset = desc->offset;
    for (size_t i = 0; i < n; i++) {
        const struct series *s = &series[i];
        size_t len = (size_t)s->head_len + s->labels_len;
        if (!writer_room(w, len + PB_SCALAR_BYTES))
            return;
        if (i + PREFETCH_AHEAD < n)
            __builtin_prefetch(s[PREFETCH_AHEAD].block + offset);
        char *to = writer_copy(w->at, s->labels - s->head_len, len);
        memcpy(to, before_value, sizeof before_value);
        double value = pb_number(load_value(s->block + offset), form, desc);
        w->at = pb_put_double(to + sizeof before_value - 1, PB_VALUE, value);
    }
}

/* A statistic of several values that is no histogram: none exists today. */
static void put_arrays(struct buffer *metrics, int tag, const struct kvmstats_desc *desc,
                       const struct series *series, size_t n, enum number_form form)
{
    for (size_t i = 0; i < n; i++) {
        const struct series *s = &series[i];
        for (size_t k = 0; k < desc->size; k++) {
            char index[NUMBER_U64_BYTES + NUMBER_OVERRUN];
            *number_put_u64(index, k) = '\0';
            size_t len = s->labels_len + pb_label_bytes("index", index) + PB_SCALAR_BYTES;
            char *begin = buffer_reserve(metrics, 1 + PB_VARINT_MAX + len), *to = begin;
            if (!begin)
                return;
            to = pb_put_field(to, PB_FAMILY_METRIC, len);
            to = mempcpy(to, s->labels, s->labels_len);
            to = pb_put_label(to, "index", index);
            to = pb_put_field(to, tag, PB_DOUBLE_FIELD);
            to = pb_put_double(to, PB_VALUE,
                               pb_number(kvmstats_value(desc, s->block, k), form, desc));
            metrics->len += (size_t)(to - begin);
        }
    }
}

static double sum_of(const struct family_member *m, const struct series *s)
{
    if (!m->sum)
        return pb_unknown();
    return pb_number(kvmstats_value(m->sum, s->block, 0), m->sum_form, m->sum);
}

/* The counts of m->n_bounds + 1 buckets: all whose bound has no number are one. */
static void load_counts(const struct family_member *m, const uint8_t *values, uint64_t *counts)
{
    memcpy(counts, values, (m->n_bounds + (size_t)1) * sizeof *counts);
    for (size_t rest = m->n_bounds + (size_t)1; rest < m->desc->size; rest++)
        counts[m->n_bounds] += load_value(values + rest * sizeof *counts);
}

static void put_native(struct buffer *metrics, const struct family_member *m,
                       const struct series *s)
{
    uint64_t counts[LOG_BUCKETS_MAX];
    load_counts(m, s->block + m->desc->offset, counts);
    const struct native_buckets b = {
        .zero_threshold = m->zero_threshold,
        .zero_count = counts[0],
        .first = 1 + m->native_shift,
        .n = m->n_bounds,
        .counts = counts + 1,
    };
    char *to = buffer_reserve(metrics, native_room(s->labels_len, &b));
    if (to)
        metrics->len += (size_t)(native_put(to, s->labels, s->labels_len, &b, sum_of(m, s)) - to);
}

static void put_classic(struct buffer *metrics, const struct family_member *m,
                        const struct series *s, uint64_t *counts)
{
    const struct classic_buckets b = {
        .n = m->n_bounds,
        .bounds = m->bound_values,
        .counts = counts,
    };
    load_counts(m, s->block + m->desc->offset, counts);
    char *to = buffer_reserve(metrics, classic_room(s->labels_len, &b));
    if (to)
        metrics->len += (size_t)(classic_put(to, s->labels, s->labels_len, &b, sum_of(m, s)) - to);
}

static void put_histograms(struct buffer *metrics, const struct family_member *m,
                           const struct series *series, size_t n)
{
    CLEANUP_FREE uint64_t *counts = malloc((m->n_bounds + (size_t)1) * sizeof *counts);
    if (!counts) {
        metrics->error = -ENOMEM;
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const struct series *s = &series[i];
        for (size_t line = 0; i + 1 < n && line < m->desc->size * sizeof(uint64_t); line += 64)
            __builtin_prefetch(s[1].block + m->desc->offset + line);
        if (m->desc->type == KVMSTATS_TYPE_LOG_HIST)
            put_native(metrics, m, s);
        else
            put_classic(metrics, m, s, counts);
    }
}

static int scalar_tag(const struct family *f)
{
    return f->type == FAMILY_COUNTER ? PB_METRIC_COUNTER : PB_METRIC_GAUGE;
}

static void put_run(struct writer *w, int tag, const struct family_member *m,
                    const struct series *series, size_t n, bool sums)
{
    switch (samples_form(m, sums)) {
    case NUMBER_PLAIN:
        put_scalars(w, tag, m->desc, series, n, NUMBER_PLAIN);
        break;
    case NUMBER_NANO:
        put_scalars(w, tag, m->desc, series, n, NUMBER_NANO);
        break;
    case NUMBER_BOOL:
        put_scalars(w, tag, m->desc, series, n, NUMBER_BOOL);
        break;
    case NUMBER_SCALED:
        put_scalars(w, tag, m->desc, series, n, NUMBER_SCALED);
        break;
    }
}

static bool is_scalar(const struct family_member *m)
{
    return m->desc->size == 1 && !kvmstats_is_histogram(m->desc);
}

/* What a family's series come to: those of fixed size as bytes to come, all others in `metrics`. */
static size_t collect(const struct family *f, const struct series_list *list, bool sums,
                      struct buffer *metrics, size_t *ret_n)
{
    size_t bytes = 0, n = 0;
    metrics->len = 0;
    for (size_t r = 0; r < list->n_runs; r++) {
        const struct series_run *run = &list->runs[r];
        const struct family_member *m = f->members[run->schema->index];
        const struct series *series = &list->items[run->first];
        if (!m)
            continue;
        n += run->n;
        if (is_scalar(m))
            bytes += run->label_bytes + run->n * PB_SCALAR_BYTES;
        else if (f->type == FAMILY_HISTOGRAM)
            put_histograms(metrics, m, series, run->n);
        else
            put_arrays(metrics, scalar_tag(f), m->desc, series, run->n, samples_form(m, sums));
    }
    *ret_n = n;
    return bytes;
}

static void put_family(struct writer *w, const struct family *f, const struct series_list *list,
                       bool sums, struct buffer *metrics)
{
    size_t n, bytes = collect(f, list, sums, metrics, &n);
    if (n == 0)
        return;
    if (metrics->error) {
        w->error = w->error ? w->error : metrics->error;
        return;
    }
    pb_begin_family(w, f->head[EXPOSITION_PROTOBUF], bytes + metrics->len);
    for (size_t r = 0; r < list->n_runs; r++) {
        const struct series_run *run = &list->runs[r];
        const struct family_member *m = f->members[run->schema->index];
        if (m && is_scalar(m))
            put_run(w, scalar_tag(f), m, &list->items[run->first], run->n, sums);
    }
    writer_put_long(w, metrics->data, metrics->len);
}

void samples_put_protobuf(struct writer *w, const struct config *config,
                          const struct family_table *table, enum scope scope,
                          const struct scene *scene)
{
    CLEANUP_BUFFER struct buffer metrics = BUFFER_INIT;
    for (const struct family *f = family_table_first(table, scope); f && !w->error; f = f->next) {
        bool sums = family_is_summed(config, scope, f->type);
        put_family(w, f, samples_list(scene, scope, f->type, sums), sums, &metrics);
    }
}
