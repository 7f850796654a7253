/* SPDX-License-Identifier: Apache-2.0 */
#include "own.h"

#include <inttypes.h>
#include <stdio.h>

#include "kvmstats/kvmstats.h"

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

const char *own_suffix(const struct own_family *f)
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

void own_begin(struct writer *w, enum exposition_format format, const struct own_family *f)
{
    const char *type = type_name(f->type, format);
    if (format == EXPOSITION_OPENMETRICS) {
        writer_printf(w, "# TYPE %s %s\n", f->name, type);
        if (f->unit)
            writer_printf(w, "# UNIT %s %s\n", f->name, f->unit);
        writer_printf(w, "# HELP %s %s\n", f->name, f->help);
    } else {
        const char *suffix = own_suffix(f);
        writer_printf(w, "# HELP %s%s %s\n# TYPE %s%s %s\n", f->name, suffix, f->help, f->name,
                      suffix, type);
    }
}

void own_sample(struct writer *w, const struct own_family *f, const char *labels, const char *value)
{
    writer_printf(w, "%s%s%s %s\n", f->name, own_suffix(f), labels, value);
}

void own_sample_u64(struct writer *w, const struct own_family *f, const char *labels,
                    uint64_t value)
{
    writer_printf(w, "%s%s%s %" PRIu64 "\n", f->name, own_suffix(f), labels, value);
}

void own_sample_ns(struct writer *w, const struct own_family *f, const char *labels,
                   uint64_t value_ns)
{
    char value[KVMSTATS_DECIMAL_BYTES];
    (void)kvmstats_format_scaled(value, value_ns, KVMSTATS_BASE_POW10, -9);
    own_sample(w, f, labels, value);
}

void own_histogram(struct writer *w, enum exposition_format format, const struct own_family *f,
                   const struct selfhist *hist)
{
    char text[KVMSTATS_DECIMAL_BYTES];
    uint64_t seen = 0;
    own_begin(w, format, f);
    for (unsigned i = 0; i < hist->bounds->n; i++) {
        seen += atomic_load_explicit(&hist->buckets[i], memory_order_relaxed);
        (void)kvmstats_format_scaled(text, (uint64_t)hist->bounds->upper_ns[i], KVMSTATS_BASE_POW10,
                                     -9);
        writer_printf(w, "%s_bucket{le=\"%s%s\"} %" PRIu64 "\n", f->name, text,
                      strchr(text, '.') ? "" : ".0", seen);
    }
    seen += atomic_load_explicit(&hist->buckets[hist->bounds->n], memory_order_relaxed);
    (void)kvmstats_format_scaled(text, atomic_load_explicit(&hist->sum_ns, memory_order_relaxed),
                                 KVMSTATS_BASE_POW10, -9);
    writer_printf(w, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n%s_sum %s\n%s_count %" PRIu64 "\n",
                  f->name, seen, f->name, text, f->name, seen);
}
