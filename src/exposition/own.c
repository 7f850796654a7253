/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text goes straight to the writer. In protobuf a family's length stands before it, so its metrics
 * are collected in a buffer first. There are few such families compared with the kernel's, whose
 * loops (samples.c, samples_protobuf.c) know better.
 */
#include "own.h"

#include "kvmstats/kvmstats.h"
#include "shortest.h"
#include "text.h"

enum {
    SUFFIX_ROOM = sizeof "_bucket",
    LE_ROOM = KVMSTATS_DECIMAL_BYTES + sizeof ",le=\".0\"",
    /* Braces, blank, number, line feed. */
    VALUE_ROOM = MAX_OF((int)KVMSTATS_DECIMAL_BYTES, (int)SHORTEST_BYTES) + 8,
};

static const char *type_name(enum own_type type, enum exposition_format format)
{
    switch (type) {
    case OWN_COUNTER:
        return "counter";
    case OWN_GAUGE:
        return "gauge";
    case OWN_HISTOGRAM:
        return "histogram";
    case OWN_INFO:
        return format == EXPOSITION_OPENMETRICS ? "info" : "gauge";
    }
    return "unknown";
}

static const char *suffix_of(const struct own_family *f)
{
    switch (f->type) {
    case OWN_COUNTER:
        return "_total";
    case OWN_INFO:
        return "_info";
    case OWN_GAUGE:
    case OWN_HISTOGRAM:
        break;
    }
    return "";
}

void own_init(struct own *own, struct writer *w, enum exposition_format format)
{
    *own = (struct own){.w = w, .format = format, .metrics = BUFFER_INIT};
}

void own_deinit(struct own *own)
{
    buffer_free(&own->metrics);
}

void own_begin(struct own *own, const struct own_family *f)
{
    const char *type = type_name(f->type, own->format), *suffix = suffix_of(f);
    own->family = f;
    switch (own->format) {
    case EXPOSITION_TEXT:
        writer_printf(own->w, "# HELP %s%s %s\n# TYPE %s%s %s\n", f->name, suffix, f->help, f->name,
                      suffix, type);
        break;
    case EXPOSITION_OPENMETRICS:
        writer_printf(own->w, "# TYPE %s %s\n", f->name, type);
        if (f->unit)
            writer_printf(own->w, "# UNIT %s %s\n", f->name, f->unit);
        writer_printf(own->w, "# HELP %s %s\n", f->name, f->help);
        break;
    case EXPOSITION_PROTOBUF:
        own->metrics.len = 0;
        break;
    }
}

/* Text. */

/* What labels take at most, escaped. */
static size_t labels_room(const struct own_label *labels, size_t n)
{
    size_t room = 1;
    for (size_t i = 0; i < n; i++)
        room += strlen(labels[i].name) + 2 * strlen(labels[i].value) + sizeof ",=\"\"";
    return room;
}

/* `a="b",c="d"`. */
static char *put_labels(char *to, const struct own_label *labels, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            *to++ = ',';
        to = stpcpy(to, labels[i].name);
        to = stpcpy(to, "=\"");
        to = text_escape_label(to, labels[i].value);
        *to++ = '"';
    }
    return to;
}

static char *put_value(char *to, struct own_value value)
{
    if (value.is_double)
        return to + shortest_format(to, value.number);
    return to + kvmstats_format_scaled(to, value.raw, value.base, value.exponent);
}

static void put_text_sample(struct own *own, const struct own_label *labels, size_t n,
                            struct own_value value)
{
    const struct own_family *f = own->family;
    if (!writer_room(own->w, strlen(f->name) + SUFFIX_ROOM + labels_room(labels, n) + VALUE_ROOM))
        return;
    char *to = stpcpy(stpcpy(own->w->at, f->name), suffix_of(f));
    if (n > 0) {
        *to++ = '{';
        to = put_labels(to, labels, n);
        *to++ = '}';
    }
    *to++ = ' ';
    to = put_value(to, value);
    *to++ = '\n';
    own->w->at = to;
}

/* A line of a histogram; `labels` are text, and so is `le` (NULL: none). */
static void put_part(struct own *own, const char *suffix, struct snippet labels, const char *le,
                     struct own_value value)
{
    const struct own_family *f = own->family;
    if (!writer_room(own->w, strlen(f->name) + SUFFIX_ROOM + labels.len + LE_ROOM + VALUE_ROOM))
        return;
    char *to = stpcpy(stpcpy(own->w->at, f->name), suffix);
    if (labels.len || le)
        *to++ = '{';
    to = mempcpy(to, labels.bytes, labels.len);
    if (le)
        to = stpcpy(stpcpy(stpcpy(to, labels.len ? ",le=\"" : "le=\""), le), "\"");
    if (labels.len || le)
        *to++ = '}';
    *to++ = ' ';
    to = put_value(to, value);
    *to++ = '\n';
    own->w->at = to;
}

static void put_text_histogram(struct own *own, const struct own_label *labels, size_t n,
                               const struct own_histogram *h)
{
    CLEANUP_FREE char *text = malloc(labels_room(labels, n));
    char le[LE_ROOM];
    uint64_t seen = 0;
    if (!text) {
        own->w->error = own->w->error ? own->w->error : -ENOMEM;
        return;
    }
    const struct snippet set = {text, (uint32_t)(put_labels(text, labels, n) - text)};
    for (size_t i = 0; i < h->n; i++) {
        size_t len = kvmstats_format_scaled(le, (uint64_t)h->bounds[i], KVMSTATS_BASE_POW10,
                                            h->bounds_exponent);
        if (!memchr(le, '.', len)) /* OpenMetrics wants a float; the same in both formats */
            strcpy(le + len, ".0");
        seen += h->counts[i];
        put_part(own, "_bucket", set, le, own_exact(seen, 0));
    }
    seen += h->counts[h->n];
    put_part(own, "_bucket", set, "+Inf", own_exact(seen, 0));
    if (h->has_sum)
        put_part(own, "_sum", set, NULL, h->sum);
    /* OpenMetrics allows _count only together with _sum. */
    if (h->has_sum || own->format != EXPOSITION_OPENMETRICS)
        put_part(own, "_count", set, NULL, own_exact(seen, 0));
}

/* Protobuf. */

static double nearest(struct own_value value)
{
    return value.is_double ? value.number : pb_scaled(value.raw, value.base, value.exponent);
}

static size_t encoded_bytes(const struct own_label *labels, size_t n)
{
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++)
        bytes += pb_label_bytes(labels[i].name, labels[i].value);
    return bytes;
}

static char *encode_labels(char *to, const struct own_label *labels, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to = pb_put_label(to, labels[i].name, labels[i].value);
    return to;
}

static void put_pb_sample(struct own *own, const struct own_label *labels, size_t n, double value)
{
    size_t len = encoded_bytes(labels, n) + PB_SCALAR_BYTES;
    char *begin = buffer_reserve(&own->metrics, 1 + PB_VARINT_MAX + len), *to = begin;
    if (!begin)
        return;
    to = pb_put_field(to, PB_FAMILY_METRIC, len);
    to = encode_labels(to, labels, n);
    to = pb_put_field(to, own->family->type == OWN_COUNTER ? PB_METRIC_COUNTER : PB_METRIC_GAUGE,
                      PB_DOUBLE_FIELD);
    to = pb_put_double(to, PB_VALUE, value);
    own->metrics.len += (size_t)(to - begin);
}

static void put_pb_native(struct own *own, const char *labels, size_t labels_len,
                          const struct native_buckets *b, double sum)
{
    char *to = buffer_reserve(&own->metrics, native_room(labels_len, b));
    if (to)
        own->metrics.len += (size_t)(native_put(to, labels, labels_len, b, sum) - to);
}

static void put_pb_classic(struct own *own, const char *labels, size_t labels_len,
                           const struct own_histogram *h, double sum)
{
    CLEANUP_FREE double *bounds = malloc((h->n + 1) * sizeof *bounds);
    struct classic_buckets b = {.n = h->n, .bounds = bounds, .counts = h->counts};
    char *to = bounds ? buffer_reserve(&own->metrics, classic_room(labels_len, &b)) : NULL;
    if (!to) {
        own->w->error = own->w->error ? own->w->error : -ENOMEM;
        return;
    }
    for (size_t i = 0; i < h->n; i++)
        bounds[i] = pb_scaled((uint64_t)h->bounds[i], KVMSTATS_BASE_POW10, h->bounds_exponent);
    own->metrics.len += (size_t)(classic_put(to, labels, labels_len, &b, sum) - to);
}

static void put_pb_histogram(struct own *own, const struct own_label *labels, size_t n,
                             const struct own_histogram *h)
{
    size_t labels_len = encoded_bytes(labels, n);
    CLEANUP_FREE char *encoded = malloc(labels_len + 1);
    double sum = h->has_sum ? nearest(h->sum) : pb_unknown();
    if (!encoded) {
        own->w->error = own->w->error ? own->w->error : -ENOMEM;
        return;
    }
    (void)encode_labels(encoded, labels, n);
    if (h->native)
        put_pb_native(own, encoded, labels_len, h->native, sum);
    else
        put_pb_classic(own, encoded, labels_len, h, sum);
}

static int pb_type(enum own_type type)
{
    switch (type) {
    case OWN_COUNTER:
        return PB_TYPE_COUNTER;
    case OWN_HISTOGRAM:
        return PB_TYPE_HISTOGRAM;
    case OWN_GAUGE:
    case OWN_INFO:
        break;
    }
    return PB_TYPE_GAUGE;
}

static void put_pb_family(struct own *own)
{
    const struct own_family *f = own->family;
    const struct pb_head head = {
        .name = f->name,
        .suffix = suffix_of(f),
        .help = f->help,
        .unit = f->unit,
        .type = pb_type(f->type),
    };
    size_t len = pb_head_bytes(&head);
    CLEANUP_FREE char *bytes = malloc(len);
    int error = bytes ? own->metrics.error : -ENOMEM;
    if (error < 0) {
        own->w->error = own->w->error ? own->w->error : error;
        return;
    }
    (void)pb_put_head(bytes, &head);
    pb_begin_family(own->w, (struct snippet){bytes, (uint32_t)len}, own->metrics.len);
    writer_put_long(own->w, own->metrics.data, own->metrics.len);
}

/* All formats. */

void own_sample(struct own *own, const struct own_label *labels, size_t n_labels,
                struct own_value value)
{
    if (own->format == EXPOSITION_PROTOBUF)
        put_pb_sample(own, labels, n_labels, nearest(value));
    else
        put_text_sample(own, labels, n_labels, value);
}

void own_histogram(struct own *own, const struct own_label *labels, size_t n_labels,
                   const struct own_histogram *h)
{
    if (own->format == EXPOSITION_PROTOBUF)
        put_pb_histogram(own, labels, n_labels, h);
    else
        put_text_histogram(own, labels, n_labels, h);
}

void own_end(struct own *own)
{
    if (own->format == EXPOSITION_PROTOBUF)
        put_pb_family(own);
    own->family = NULL;
}

void own_single(struct own *own, const struct own_family *f, struct own_value value)
{
    own_begin(own, f);
    own_sample(own, NULL, 0, value);
    own_end(own);
}

void own_selfhist(struct own *own, const struct own_family *f, const struct selfhist *hist)
{
    uint64_t counts[SELFHIST_BUCKETS_MAX];
    for (unsigned i = 0; i <= hist->bounds->n; i++)
        counts[i] = atomic_load_explicit(&hist->buckets[i], memory_order_relaxed);
    const struct own_histogram h = {
        .n = hist->bounds->n,
        .bounds = hist->bounds->upper_ns,
        .bounds_exponent = -9,
        .counts = counts,
        .has_sum = true,
        .sum = own_exact(atomic_load_explicit(&hist->sum_ns, memory_order_relaxed), -9),
    };
    own_begin(own, f);
    own_histogram(own, NULL, 0, &h);
    own_end(own);
}
