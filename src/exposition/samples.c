/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a scrape's time goes: some 700,000 lines for a thousand VMs. So each family is one loop
 * over its series, specialised by the form of its numbers at compile time; a line is two or three
 * copies of texts made before and one number. Families come outermost, as both formats demand, so
 * the loop strides over the data blocks (1.1 KB apart), which the hardware does not foresee: it is
 * told a few series ahead.
 */
#include "samples.h"

#include "number.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

enum {
    PREFETCH_AHEAD = 8, /* series */
    /* What a line has besides names and labels: `} `, or `,index="65535"} `, a number, line feed.
     */
    LINE_FIXED = 32 + NUMBER_NANO_BYTES,
    LINE_FIXED_SCALED = 32 + KVMSTATS_DECIMAL_BYTES,
};

static ALWAYS_INLINE char *put_number(char *to, uint64_t value, enum number_form form,
                                      const struct kvmstats_desc *desc)
{
    switch (form) {
    case NUMBER_PLAIN:
        return number_put_u64(to, value);
    case NUMBER_NANO:
        return number_put_nano(to, value);
    case NUMBER_BOOL:
        *to = value ? '1' : '0';
        return to + 1;
    case NUMBER_SCALED:
        return to + kvmstats_format_scaled(to, value, desc->base, desc->exponent);
    }
    return to;
}

static ALWAYS_INLINE uint64_t load_value(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

/* `form` is a constant at every call. */
static ALWAYS_INLINE void put_scalars(struct writer *w, struct snippet name,
                                      const struct kvmstats_desc *desc, const struct series *series,
                                      size_t n, enum number_form form)
{
    const size_t fixed = name.len + (form == NUMBER_SCALED ? LINE_FIXED_SCALED : LINE_FIXED);
    const size_t offset = desc->offset;
    for (size_t i = 0; i < n; i++) {
        const struct series *s = &series[i];
        if (!writer_room(w, fixed + s->labels_len))
            return;
        if (i + PREFETCH_AHEAD < n)
            __builtin_prefetch(s[PREFETCH_AHEAD].block + offset);
        char *to = writer_copy(w->at, name.bytes, name.len);
        to = writer_copy(to, s->labels, s->labels_len);
        *to++ = '}';
        *to++ = ' ';
        to = put_number(to, load_value(s->block + offset), form, desc);
        *to++ = '\n';
        w->at = to;
    }
}

/* A statistic of several values that is no histogram: none exists today. */
static void put_arrays(struct writer *w, struct snippet name, const struct kvmstats_desc *desc,
                       const struct series *series, size_t n, enum number_form form)
{
    for (size_t i = 0; i < n; i++) {
        const struct series *s = &series[i];
        for (size_t k = 0; k < desc->size; k++) {
            if (!writer_room(w, name.len + s->labels_len + LINE_FIXED_SCALED))
                return;
            char *to = writer_copy(w->at, name.bytes, name.len);
            to = writer_copy(to, s->labels, s->labels_len);
            to = mempcpy(to, ",index=\"", 8);
            to = number_put_u64(to, k);
            to = mempcpy(to, "\"} ", 3);
            to = put_number(to, kvmstats_value(desc, s->block, k), form, desc);
            *to++ = '\n';
            w->at = to;
        }
    }
}

static void put_scalar_family(struct writer *w, struct snippet name, const struct family_member *m,
                              const struct series *series, size_t n, bool sums)
{
    enum number_form form = samples_form(m, sums);
    if (m->desc->size > 1) {
        put_arrays(w, name, m->desc, series, n, form);
        return;
    }
    switch (form) {
    case NUMBER_PLAIN:
        put_scalars(w, name, m->desc, series, n, NUMBER_PLAIN);
        break;
    case NUMBER_NANO:
        put_scalars(w, name, m->desc, series, n, NUMBER_NANO);
        break;
    case NUMBER_BOOL:
        put_scalars(w, name, m->desc, series, n, NUMBER_BOOL);
        break;
    case NUMBER_SCALED:
        put_scalars(w, name, m->desc, series, n, NUMBER_SCALED);
        break;
    }
}

/*
 * The buckets of one series; returns their count. A line begins with the same name and labels as
 * the one before it and, in an empty bucket, ends in the same number, so both are copied from
 * where they were made: `head` and `number`.
 */
static ALWAYS_INLINE bool put_buckets(struct writer *w, const struct family_member *m,
                                      const uint8_t *values, const char *head, size_t head_len,
                                      uint64_t *ret_count)
{
    char number[32] = "0\n";
    size_t number_len = 2;
    uint64_t seen = 0;
    for (size_t k = 0; k <= m->n_bounds; k++) {
        uint64_t here = load_value(values + k * sizeof(uint64_t));
        if (k == m->n_bounds) {
            /* All buckets whose bound has no number are one. */
            for (size_t rest = k + 1; rest < m->desc->size; rest++)
                here += load_value(values + rest * sizeof(uint64_t));
        }
        if (here) {
            seen += here;
            char *end = number_put_u64(number, seen);
            *end++ = '\n';
            number_len = (size_t)(end - number);
        }
        if (!writer_room(w, head_len + m->bounds[k].len + sizeof number))
            return false;
        char *to = writer_copy(w->at, head, head_len);
        to = writer_copy(to, m->bounds[k].bytes, m->bounds[k].len);
        memcpy(to, number, sizeof number);
        w->at = to + number_len;
    }
    *ret_count = seen;
    return true;
}

static char *put_name_and_labels(char *to, struct snippet name, const struct series *s)
{
    return writer_copy(writer_copy(to, name.bytes, name.len), s->labels, s->labels_len);
}

static void put_sum_and_count(struct writer *w, enum exposition_format format,
                              const struct family *f, const struct family_member *m,
                              const struct series *s, uint64_t count)
{
    size_t room = f->sum.len + f->count.len + 2 * s->labels_len + LINE_FIXED + LINE_FIXED_SCALED;
    /* OpenMetrics allows _count only together with _sum. */
    if ((format == EXPOSITION_OPENMETRICS && !m->sum) || !writer_room(w, room))
        return;
    char *to = w->at;
    if (m->sum) {
        to = put_name_and_labels(to, f->sum, s);
        to = mempcpy(to, "} ", 2);
        to = put_number(to, kvmstats_value(m->sum, s->block, 0), m->sum_form, m->sum);
        *to++ = '\n';
    }
    to = put_name_and_labels(to, f->count, s);
    to = mempcpy(to, "} ", 2);
    to = number_put_u64(to, count);
    *to++ = '\n';
    w->at = to;
}

static void put_histograms(struct writer *w, enum exposition_format format, const struct family *f,
                           const struct family_member *m, const struct series *series, size_t n)
{
    size_t longest = 0;
    for (size_t i = 0; i < n; i++)
        longest = MAX_OF(longest, (size_t)series[i].labels_len);
    CLEANUP_FREE char *head = malloc(f->bucket.len + longest + WRITER_OVERRUN);
    if (!head) {
        w->error = w->error ? w->error : -ENOMEM;
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const struct series *s = &series[i];
        uint64_t count;
        for (size_t line = 0; i + 1 < n && line < m->desc->size * sizeof(uint64_t); line += 64)
            __builtin_prefetch(s[1].block + m->desc->offset + line);
        size_t head_len = (size_t)(put_name_and_labels(head, f->bucket, s) - head);
        if (!put_buckets(w, m, s->block + m->desc->offset, head, head_len, &count))
            return;
        put_sum_and_count(w, format, f, m, s, count);
    }
}

static void put_family(struct writer *w, enum exposition_format format, const struct family *f,
                       const struct series_list *list, bool sums)
{
    bool begun = false;
    for (size_t r = 0; r < list->n_runs; r++) {
        const struct series_run *run = &list->runs[r];
        const struct family_member *m = f->members[run->schema->index];
        const struct series *series = &list->items[run->first];
        if (!m)
            continue;
        if (!begun)
            writer_put(w, f->head[format].bytes, f->head[format].len);
        begun = true;
        if (f->type == FAMILY_HISTOGRAM)
            put_histograms(w, format, f, m, series, run->n);
        else
            put_scalar_family(w, f->sample, m, series, run->n, sums);
    }
}

bool samples_need_sums(const struct config *config)
{
    return !config->metrics.vcpu || config->metrics.histograms == CONFIG_HISTOGRAMS_VM;
}

const struct series_list *samples_list(const struct scene *scene, enum scope scope,
                                       enum family_type type, bool sums)
{
    if (sums)
        return type == FAMILY_GAUGE ? &scene->sums_fresh : &scene->sums;
    return scope == SCOPE_VM ? &scene->vm : &scene->vcpu;
}

void samples_put(struct writer *w, enum exposition_format format, const struct config *config,
                 const struct family_table *table, enum scope scope, const struct scene *scene)
{
    for (const struct family *f = family_table_first(table, scope); f && !w->error; f = f->next) {
        bool sums = family_is_summed(config, scope, f->type);
        put_family(w, format, f, samples_list(scene, scope, f->type, sums), sums);
    }
}
