/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `kvmstatctl dump VM`. One answer of /api/v1/history has all: exact values, units, and what they
 * were a moment ago. A rate is over the last second, or over one tick where ticks are longer: over
 * a single tick of 100 ms it would jump too much to be read.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "client.h"
#include "clock.h"
#include "commands.h"
#include "table.h"

enum {
    BUCKETS_MAX = 4096,
};
#define RATE_NS NSEC_PER_SEC

/* A statistic of the VM, or of all its vCPUs together. */
struct total {
    const char *name, *type, *unit; /* owned by the answer */
    double scale;                   /* of a raw value, in base units */
    uint64_t sum, highest;
    size_t n; /* targets */
    bool has_rate;
    double rate;
    size_t n_buckets;
    uint64_t *buckets; /* owned; NULL: no histogram */
};

struct totals {
    size_t n, capacity;
    struct total *totals; /* owned */
};

static void totals_free(struct totals *totals)
{
    for (size_t i = 0; i < totals->n; i++)
        free(totals->totals[i].buckets);
    free(totals->totals);
}
#define CLEANUP_TOTALS CLEANUP(totals_free)

/* All vCPUs have the same statistics in the same order, but for odd ones. NULL: no memory. */
static struct total *find_total(struct totals *totals, size_t hint, json_object *stat)
{
    const char *name = json_text(stat, "stat");
    if (hint < totals->n && strcmp(totals->totals[hint].name, name) == 0)
        return &totals->totals[hint];
    for (size_t i = 0; i < totals->n; i++) {
        if (strcmp(totals->totals[i].name, name) == 0)
            return &totals->totals[i];
    }
    if (totals->n == totals->capacity) {
        size_t capacity = totals->capacity ? totals->capacity * 2 : 128;
        struct total *more = realloc(totals->totals, capacity * sizeof *more);
        if (!more)
            return NULL;
        totals->totals = more;
        totals->capacity = capacity;
    }
    double base = strcmp(json_text(stat, "base"), "pow2") == 0 ? 2 : 10;
    struct total *total = &totals->totals[totals->n++];
    *total = (struct total){
        .name = name,
        .type = json_text(stat, "type"),
        .unit = json_text(stat, "unit"),
        .scale = pow(base, (double)json_i64(stat, "exponent", 0)),
    };
    return total;
}

/* Buckets of the newest reading, added to those of other vCPUs. */
static int add_buckets(struct total *total, json_object *buckets)
{
    size_t n = json_object_array_length(buckets);
    if (n > BUCKETS_MAX)
        return -EINVAL;
    if (n > total->n_buckets) {
        uint64_t *more = realloc(total->buckets, n * sizeof *more);
        if (!more)
            return -ENOMEM;
        memset(more + total->n_buckets, 0, (n - total->n_buckets) * sizeof *more);
        total->buckets = more;
        total->n_buckets = n;
    }
    for (size_t i = 0; i < n; i++)
        total->buckets[i] += json_object_get_uint64(json_object_array_get_idx(buckets, i));
    return 0;
}

/* Which rows of a target a rate is from and to. */
struct span {
    size_t from, to;
    double seconds;
};

static struct span find_span(json_object *times)
{
    struct span span = {.to = json_object_array_length(times) - 1};
    double end = json_object_get_double(json_object_array_get_idx(times, span.to));
    span.from = span.to;
    while (span.from > 0 && span.seconds < (double)RATE_NS / (double)NSEC_PER_SEC * 0.999)
        span.seconds = end - json_object_get_double(json_object_array_get_idx(times, --span.from));
    return span;
}

static uint64_t value_at(json_object *values, size_t row)
{
    return json_object_get_uint64(json_object_array_get_idx(values, row));
}

/* Per second in base units; false where there is none: too new, no counter, gone back. */
static bool find_rate(json_object *stat, const struct span *span, double scale, double *ret_rate)
{
    json_object *values = json_array(stat, "values");
    if (strcmp(json_text(stat, "type"), "cumulative") != 0 || span->seconds <= 0 ||
        json_object_is_type(json_object_array_get_idx(values, span->to), json_type_array))
        return false;
    uint64_t from = value_at(values, span->from), to = value_at(values, span->to);
    if (to < from)
        return false;
    double rate = (double)(to - from) * scale / span->seconds;
    if (!isfinite(rate)) /* a scale that no statistic has, and JSON has no number for it */
        return false;
    *ret_rate = rate;
    return true;
}

static int add_stat(struct totals *totals, size_t i, json_object *stat, const struct span *span)
{
    double rate;
    struct total *total = find_total(totals, i, stat);
    if (!total)
        return -ENOMEM;
    json_object *value = json_object_array_get_idx(json_array(stat, "values"), span->to);
    total->n++;
    if (json_object_is_type(value, json_type_array))
        return add_buckets(total, value);
    total->sum += json_object_get_uint64(value);
    total->highest = MAX_OF(total->highest, json_object_get_uint64(value));
    if (find_rate(stat, span, total->scale, &rate)) {
        total->has_rate = true;
        total->rate += rate;
    }
    return 0;
}

/* --- for a person --- */

static const char *with_unit(const struct total *total, double raw, char text[SHORT_BYTES])
{
    double value = raw * total->scale;
    if (strcmp(total->unit, "seconds") == 0)
        return short_seconds(text, value);
    if (strcmp(total->unit, "bytes") == 0)
        return short_bytes(text, value);
    short_count(text, value);
    if (strcmp(total->unit, "cycles") == 0)
        strcat(text, " cycles");
    return text;
}

/* The upper end of the bucket that the quantile is in: bucket i is up to 2^i - 1. */
static const char *quantile(const struct total *total, uint64_t count, double q,
                            char text[SHORT_BYTES])
{
    uint64_t seen = 0;
    size_t i = 0;
    for (; i + 1 < total->n_buckets; i++) {
        seen += total->buckets[i];
        if ((double)seen >= q * (double)count)
            break;
    }
    if (i + 1 == total->n_buckets)
        i--; /* has no end: at least the end of the one before */
    return with_unit(total, ldexp(1, (int)MIN_OF(i, (size_t)1000)), text);
}

static void put_histogram(struct table *table, const struct total *total)
{
    char text[256], number[SHORT_BYTES], p50[SHORT_BYTES], p99[SHORT_BYTES];
    uint64_t count = 0;
    for (size_t i = 0; i < total->n_buckets; i++)
        count += total->buckets[i];
    table_cell(table, short_count(number, (double)count));
    if (count == 0 || total->n_buckets < 2 ||
        strcmp(total->type, "log_hist") != 0) { /* bounds of linear ones are not told */
        table_cell(table, "");
        return;
    }
    (void)snprintf(text, sizeof text, "half within %s, 99%% within %s%s",
                   quantile(total, count, 0.5, p50), quantile(total, count, 0.99, p99),
                   (double)total->buckets[total->n_buckets - 1] > 0.01 * (double)count ? " or more"
                                                                                       : "");
    table_cell(table, text);
}

static void put_total(struct table *table, const struct total *total)
{
    char text[2 * SHORT_BYTES] = "", number[SHORT_BYTES];
    table_cell(table, total->name);
    if (total->buckets) {
        put_histogram(table, total);
        return;
    }
    if (strcmp(total->unit, "boolean") == 0) {
        if (total->n > 1)
            (void)snprintf(text, sizeof text, "%" PRIu64 " of %zu", total->sum, total->n);
        table_cell(table, total->n > 1 ? text : total->sum ? "yes" : "no");
    } else {
        bool peak = strcmp(total->type, "peak") == 0;
        table_cell(table, with_unit(total, (double)(peak ? total->highest : total->sum), number));
    }
    text[0] = '\0';
    if (!total->has_rate) {
        table_cell(table, "");
    } else if (strcmp(total->unit, "seconds") == 0) {
        table_cell(table, short_percent(number, total->rate));
    } else {
        struct total unscaled = *total;
        unscaled.scale = 1;
        strcat(strcat(text, with_unit(&unscaled, total->rate, number)), "/s");
        table_cell(table, text);
    }
}

static int print_totals(const char *head, const struct totals *totals)
{
    CLEANUP_TABLE struct table table = {.n_columns = 3, .right = 2};
    if (!totals->n)
        return 0;
    table_cell(&table, head);
    table_cell(&table, "NOW");
    table_cell(&table, "RATE");
    for (size_t i = 0; i < totals->n; i++)
        put_total(&table, &totals->totals[i]);
    putchar('\n');
    return table_print(&table, SIZE_MAX, SIZE_MAX, stdout);
}

static void print_head(json_object *vm, double newest_s)
{
    char text[SHORT_BYTES];
    double ago_s = (double)clock_read_ns(CLOCK_REALTIME) / (double)NSEC_PER_SEC - newest_s;
    fputs("VM ", stdout);
    print_plain(json_text(vm, "vm"), stdout);
    printf(": pid %" PRId64 ", ", json_i64(vm, "pid", 0));
    print_plain(json_text(vm, "vmm"), stdout);
    printf(", %" PRId64 " of %" PRId64 " vCPUs read by ", json_i64(vm, "vcpus_read", 0),
           json_i64(vm, "vcpus", 0));
    print_plain(json_text(vm, "source"), stdout);
    printf(" every %s", short_seconds(text, json_number(vm, "interval_ms", 0) / 1e3));
    printf(", last %s ago\n", short_seconds(text, ago_s > 0 ? ago_s : 0));
}

/* Calls add_stat() for all of the newest readings. */
static int add_targets(json_object *targets, struct totals *own, struct totals *vcpus,
                       double *ret_newest_s)
{
    for (size_t i = 0; i < json_object_array_length(targets); i++) {
        json_object *target = json_object_array_get_idx(targets, i);
        json_object *times = json_array(target, "times"), *stats = json_array(target, "stats");
        if (!json_object_array_length(times))
            continue;
        struct totals *to = strcmp(json_text(target, "scope"), "vm") == 0 ? own : vcpus;
        struct span span = find_span(times);
        double newest_s = json_object_get_double(json_object_array_get_idx(times, span.to));
        *ret_newest_s = MAX_OF(*ret_newest_s, newest_s);
        for (size_t s = 0; s < json_object_array_length(stats); s++) {
            int r = add_stat(to, s, json_object_array_get_idx(stats, s), &span);
            if (r < 0)
                return r;
        }
    }
    return *ret_newest_s > 0 ? 0 : -ENODATA;
}

static int print_human(json_object *vm, json_object *targets)
{
    CLEANUP_TOTALS struct totals own = {0}, vcpus = {0};
    double newest_s = 0;
    char head[64] = "OF THE VCPU";
    int r = add_targets(targets, &own, &vcpus, &newest_s);
    if (r < 0)
        return r;
    print_head(vm, newest_s);
    if (vcpus.n && vcpus.totals[0].n > 1)
        (void)snprintf(head, sizeof head, "OF %zu VCPUS TOGETHER", vcpus.totals[0].n);
    r = print_totals("OF THE VM", &own);
    return r < 0 ? r : print_totals(head, &vcpus);
}

/* --- for programs --- */

/* From all values to the newest, by whose time; a rate beside, and over which time. */
static int newest_stat(json_object *stat, const struct span *span)
{
    double rate, exponent = (double)json_i64(stat, "exponent", 0);
    double scale = pow(strcmp(json_text(stat, "base"), "pow2") == 0 ? 2 : 10, exponent);
    bool has_rate = find_rate(stat, span, scale, &rate);
    json_object *value = json_object_array_get_idx(json_array(stat, "values"), span->to);
    json_object_object_add(stat, "value", json_object_get(value));
    json_object_object_del(stat, "values");
    json_object_object_del(stat, "rates");
    return json_object_object_add(stat, "rate", has_rate ? json_object_new_double(rate) : NULL);
}

static int newest_target(json_object *target)
{
    json_object *times = json_array(target, "times"), *stats = json_array(target, "stats");
    struct span span = find_span(times);
    json_object_object_add(target, "time",
                           json_object_get(json_object_array_get_idx(times, span.to)));
    json_object_object_add(target, "rates_over_s",
                           span.seconds > 0 ? json_object_new_double(span.seconds) : NULL);
    for (size_t s = 0; s < json_object_array_length(stats); s++) {
        if (newest_stat(json_object_array_get_idx(stats, s), &span) < 0)
            return -ENOMEM;
    }
    json_object_object_del(target, "stats");
    json_object_object_del(target, "times");
    return 0;
}

static int print_json(json_object *vm, json_object *targets)
{
    CLEANUP_JSON json_object *out = json_object_new_object(), *list = json_object_new_array();
    bool some = false;
    if (!out || !list)
        return -ENOMEM;
    for (size_t i = 0; i < json_object_array_length(targets); i++) {
        json_object *target = json_object_array_get_idx(targets, i);
        if (!json_object_array_length(json_array(target, "times")))
            continue;
        CLEANUP_JSON json_object *stats = json_object_get(json_array(target, "stats"));
        some = true;
        if (newest_target(target) < 0)
            return -ENOMEM;
        json_object_object_add(target, "stats", steal_ptr(&stats)); /* last: they are long */
        json_object_array_add(list, json_object_get(target));
    }
    if (!some)
        return -ENODATA;
    json_object_object_foreach(vm, key, value)
        json_object_object_add(out, key, json_object_get(value));
    json_object_object_add(out, "targets", steal_ptr(&list));
    const char *text = json_object_to_json_string_ext(out, JSON_C_TO_STRING_PRETTY |
                                                               JSON_C_TO_STRING_NOSLASHESCAPE);
    return text && puts(text) >= 0 ? 0 : -ENOMEM;
}

/* --- asking --- */

/* Every target has times and as many values of each statistic; else it is not kvmstatd's. */
static bool is_history(json_object *targets)
{
    for (size_t i = 0; targets && i < json_object_array_length(targets); i++) {
        json_object *target = json_object_array_get_idx(targets, i);
        json_object *times = json_array(target, "times"), *stats = json_array(target, "stats");
        if (!times || !stats)
            return false;
        for (size_t s = 0; s < json_object_array_length(stats); s++) {
            json_object *stat = json_object_array_get_idx(stats, s);
            json_object *values = json_array(stat, "values");
            if (!values || !json_text(stat, "stat")[0] ||
                json_object_array_length(values) != json_object_array_length(times))
                return false;
        }
    }
    return targets != NULL;
}

static json_object *find_vm(json_object *vms, const char *name)
{
    for (size_t i = 0; i < json_object_array_length(vms); i++) {
        json_object *vm = json_object_array_get_idx(vms, i);
        if (strcmp(json_text(vm, "vm"), name) == 0)
            return vm;
    }
    return NULL;
}

static int complain(struct client *client, const char *vm, const char *what, const char *more)
{
    (void)snprintf(client->message, sizeof client->message, "%s: %s%s", vm, what, more);
    client_complain(client);
    return -ENOENT;
}

static int show(struct client *client, const struct dump_vm_options *o, json_object *vm)
{
    CLEANUP_JSON json_object *history = NULL;
    int64_t interval_ns = (int64_t)(json_number(vm, "interval_ms", 0) * (double)NSEC_PER_MSEC);
    if (interval_ns < 0 || interval_ns > 3600 * NSEC_PER_SEC)
        interval_ns = 0;
    int r = client_get_history(client, o->vm, o->stats, o->vcpu, RATE_NS + 3 * interval_ns, "json");
    if (r == 0)
        r = client_parse(client, &history);
    if (r < 0) {
        client_complain(client);
        return r;
    }
    json_object *targets = json_array(history, "targets");
    if (!is_history(targets))
        return complain(client, o->vm, "its history is not what kvmstatd gives", "");
    r = o->json ? print_json(vm, targets) : print_human(vm, targets);
    if (r == -ENODATA)
        return complain(client, o->vm, "nothing was read of it within the last moments", "");
    return r < 0 ? complain(client, o->vm, strerror(-r), "") : 0;
}

int dump_vm_now(const struct dump_vm_options *o)
{
    CLEANUP_CLIENT struct client client = {0};
    CLEANUP_JSON json_object *json = NULL;
    json_object *vms = NULL;
    int r = client_open(&client, "dump", o->client);
    if (r < 0)
        return r == -EINVAL ? EXIT_USAGE : EXIT_FAILURE;
    r = client_get_vms(&client, &json, &vms);
    if (r < 0) {
        client_complain(&client);
        return EXIT_FAILURE;
    }
    json_object *vm = find_vm(vms, o->vm);
    if (!vm)
        r = complain(&client, o->vm,
                     "no such VM, and no such file; 'kvmstatctl list' shows all VMs", "");
    else if (!json_text(vm, "source")[0])
        r = complain(&client, o->vm, "is not read: ",
                     json_text(vm, json_text(vm, "detail")[0] ? "detail" : "reason"));
    else
        r = show(&client, o, vm);
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
