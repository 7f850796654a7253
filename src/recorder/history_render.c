/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON by column: a program that plots wants the values of one statistic in a row, and names stand
 * once. CSV by line, as spreadsheets and data frames want it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "history_internal.h"

enum {
    PIECE_BYTES = 256 << 10,
    U64_DIGITS = 20,
    RATE_DECIMALS = 3,
};
#define RATE_SCALE 1000 /* 10^RATE_DECIMALS */

const char history_csv_head[] = "vm,time,vcpu,stat,value,rate\n";

struct output {
    struct buffer buffer;
    history_piece_fn *piece;
    void *ctx;
    const struct history *history;
    int64_t wall_offset_ns;
};

static int flush(struct output *o)
{
    int r = o->buffer.error;
    if (r == 0 && o->buffer.len)
        r = o->piece(o->ctx, o->buffer.data, o->buffer.len);
    o->buffer.len = 0;
    return r;
}

static int flush_if_full(struct output *o)
{
    return o->buffer.len >= PIECE_BYTES || o->buffer.error ? flush(o) : 0;
}

/* --- numbers --- */

static char *write_u64(char *to, uint64_t value)
{
    char digits[U64_DIGITS];
    size_t n = 0;
    if (value < 10) { /* nearly all buckets of a histogram */
        *to = (char)('0' + value);
        return to + 1;
    }
    for (; value; value /= 10)
        digits[n++] = (char)('0' + value % 10);
    while (n)
        *to++ = digits[--n];
    return to;
}

static void put_value(struct buffer *to, uint64_t value)
{
    char *at = buffer_reserve(to, U64_DIGITS);
    if (at)
        to->len += (size_t)(write_u64(at, value) - at);
}

/* Seconds since the epoch, exact. */
static void put_time(const struct output *o, struct buffer *to, int64_t time_ns)
{
    int64_t wall_ns = clock_add_ns(time_ns, o->wall_offset_ns);
    int64_t s = wall_ns / NSEC_PER_SEC, ns = wall_ns % NSEC_PER_SEC;
    if (ns < 0) { /* a clock before 1970: not worth a column of its own */
        s--;
        ns += NSEC_PER_SEC;
    }
    buffer_printf(to, "%" PRId64 ".%09" PRId64, s, ns);
}

/* Per second, in the statistic's base unit: to a thousandth of its raw unit. */
static void put_scaled_rate(struct buffer *to, const struct kvmstats_desc *desc, uint64_t rise,
                            uint64_t ns, const char *none)
{
    char text[KVMSTATS_DECIMAL_BYTES];
    bool pow10 = desc->base == KVMSTATS_BASE_POW10;
    unsigned __int128 rate =
        (unsigned __int128)rise * (uint64_t)NSEC_PER_SEC * (pow10 ? RATE_SCALE : 1) / ns;
    if (rate > UINT64_MAX) {
        buffer_puts(to, none); /* no counter of a kernel gets there within its life */
        return;
    }
    size_t len = kvmstats_format_scaled(text, (uint64_t)rate, desc->base,
                                        (int16_t)(desc->exponent - (pow10 ? RATE_DECIMALS : 0)));
    buffer_put(to, text, len);
}

/* `none` is what stands where there is no rate. */
static void put_rate(struct buffer *to, const struct history_target *target,
                     const struct history_column *column, size_t row, const char *none)
{
    const struct kvmstats_desc *desc = column->desc;
    const uint64_t *now = &target->values[row * target->row_values + column->at];
    if (!desc->known || desc->type != KVMSTATS_TYPE_CUMULATIVE || !target->rows[row].continues) {
        buffer_puts(to, none);
        return;
    }
    uint64_t before = *(now - target->row_values);
    int64_t ns = clock_since_ns(target->rows[row - 1].time_ns, target->rows[row].time_ns);
    if (*now < before || ns <= 0)
        buffer_puts(to, none);
    else if (*now == before)
        buffer_puts(to, "0");
    else
        put_scaled_rate(to, desc, *now - before, (uint64_t)ns, none);
}

/* --- texts --- */

static void put_json_text(struct buffer *to, const char *text)
{
    buffer_puts(to, "\"");
    for (const char *p = text; *p; p++) {
        unsigned char c = (unsigned char)*p;
        if (c == '"' || c == '\\')
            buffer_printf(to, "\\%c", c);
        else if (c < ' ' || c == 0x7f)
            buffer_printf(to, "\\u%04x", c);
        else
            buffer_put(to, p, 1);
    }
    buffer_puts(to, "\"");
}

/* The kernel's names may hold any byte, JSON's texts may not. */
static void put_json_name(struct buffer *to, const char *name)
{
    char fine[128];
    size_t n = 0;
    for (; name[n] && n < sizeof fine - 1; n++)
        fine[n] = (unsigned char)name[n] < 0x80 ? name[n] : '?';
    fine[n] = '\0';
    put_json_text(to, fine);
}

static void put_csv_text(struct buffer *to, const char *text)
{
    if (!text[strcspn(text, ",\"\r\n")]) {
        buffer_puts(to, text);
        return;
    }
    buffer_puts(to, "\"");
    for (const char *p = text; *p; p++)
        buffer_put(to, *p == '"' ? "\"\"" : p, *p == '"' ? 2 : 1);
    buffer_puts(to, "\"");
}

static const char *or_unknown(const char *name)
{
    return name ? name : "unknown";
}

/* --- JSON --- */

/* The first row that was asked for: those before it are there for its rate. */
static size_t first_row(const struct output *o, const struct history_target *target)
{
    size_t row = 0;
    while (row < target->n_rows && target->rows[row].time_ns < o->history->query.since_ns)
        row++;
    return row;
}

static int put_json_values(struct output *o, const struct history_target *target,
                           const struct history_column *column, size_t first)
{
    struct buffer *to = &o->buffer;
    size_t size = column->desc->size;
    bool array = size > 1 || kvmstats_is_histogram(column->desc);
    buffer_puts(to, ",\"values\":[");
    for (size_t row = first; row < target->n_rows; row++) {
        const uint64_t *values = &target->values[row * target->row_values + column->at];
        char *at = buffer_reserve(to, size * (U64_DIGITS + 1) + 4);
        if (!at)
            return to->error;
        char *begin = at;
        if (row > first)
            *at++ = ',';
        if (array)
            *at++ = '[';
        for (size_t i = 0; i < size; i++) {
            if (i)
                *at++ = ',';
            at = write_u64(at, values[i]);
        }
        if (array)
            *at++ = ']';
        to->len += (size_t)(at - begin);
        int r = flush_if_full(o);
        if (r < 0)
            return r;
    }
    buffer_puts(to, "]");
    return 0;
}

static int put_json_rates(struct output *o, const struct history_target *target,
                          const struct history_column *column, size_t first)
{
    buffer_puts(&o->buffer, ",\"rates\":[");
    for (size_t row = first; row < target->n_rows; row++) {
        if (row > first)
            buffer_puts(&o->buffer, ",");
        put_rate(&o->buffer, target, column, row, "null");
        int r = flush_if_full(o);
        if (r < 0)
            return r;
    }
    buffer_puts(&o->buffer, "]");
    return 0;
}

static int put_json_column(struct output *o, const struct history_target *target,
                           const struct history_column *column, size_t first)
{
    struct buffer *to = &o->buffer;
    const struct kvmstats_desc *desc = column->desc;
    buffer_puts(to, "{\"stat\":");
    put_json_name(to, desc->name);
    buffer_printf(to, ",\"type\":\"%s\",\"unit\":\"%s\",\"base\":\"%s\",\"exponent\":%d",
                  or_unknown(kvmstats_type_name(desc->type)),
                  or_unknown(kvmstats_unit_name(desc->unit)),
                  or_unknown(kvmstats_base_name(desc->base)), desc->exponent);
    int r = put_json_values(o, target, column, first);
    if (r == 0 && desc->known && desc->type == KVMSTATS_TYPE_CUMULATIVE && desc->size == 1)
        r = put_json_rates(o, target, column, first);
    buffer_puts(to, "}");
    return r;
}

static int put_json_target(struct output *o, const struct history_target *target)
{
    struct buffer *to = &o->buffer;
    size_t first = first_row(o, target);
    if (target->id.vcpu < 0)
        buffer_puts(to, "{\"scope\":\"vm\",\"vcpu\":null,\"times\":[");
    else
        buffer_printf(to, "{\"scope\":\"vcpu\",\"vcpu\":%" PRId32 ",\"times\":[", target->id.vcpu);
    for (size_t row = first; row < target->n_rows; row++) {
        if (row > first)
            buffer_puts(to, ",");
        put_time(o, to, target->rows[row].time_ns);
        int r = flush_if_full(o);
        if (r < 0)
            return r;
    }
    buffer_puts(to, "],\"stats\":[");
    for (size_t i = 0; i < target->n_columns; i++) {
        if (i)
            buffer_puts(to, ",\n");
        int r = put_json_column(o, target, &target->columns[i], first);
        if (r < 0)
            return r;
    }
    buffer_puts(to, "]}");
    return 0;
}

static int put_json(struct output *o, const char *vm)
{
    int r = 0;
    bool some = false;
    buffer_puts(&o->buffer, "{\"vm\":");
    put_json_text(&o->buffer, vm);
    buffer_puts(&o->buffer, ",\"targets\":[");
    for (size_t i = 0; r == 0 && i < o->history->n_targets; i++) {
        if (o->history->targets[i].n_columns == 0)
            continue;
        buffer_puts(&o->buffer, some ? ",\n" : "\n");
        some = true;
        r = put_json_target(o, &o->history->targets[i]);
    }
    buffer_puts(&o->buffer, "\n]}\n");
    return r;
}

/* --- CSV --- */

static void put_csv_values(struct buffer *to, const struct history_target *target,
                           const struct history_column *column, size_t row)
{
    const uint64_t *values = &target->values[row * target->row_values + column->at];
    for (size_t i = 0; i < column->desc->size; i++) {
        if (i)
            buffer_puts(to, " ");
        put_value(to, values[i]);
    }
}

/* What all lines of a row begin with: some fifty statistics have it in common. */
static void put_csv_head(const struct output *o, struct buffer *to,
                         const struct history_target *target, size_t row, const char *vm)
{
    to->len = 0;
    put_csv_text(to, vm);
    buffer_puts(to, ",");
    put_time(o, to, target->rows[row].time_ns);
    if (target->id.vcpu < 0)
        buffer_puts(to, ",,");
    else
        buffer_printf(to, ",%" PRId32 ",", target->id.vcpu);
}

static int put_csv_target(struct output *o, const struct history_target *target, const char *vm)
{
    CLEANUP_BUFFER struct buffer head = BUFFER_INIT;
    struct buffer *to = &o->buffer;
    int r = 0;
    for (size_t row = first_row(o, target); r == 0 && row < target->n_rows; row++) {
        put_csv_head(o, &head, target, row, vm);
        for (size_t i = 0; i < target->n_columns; i++) {
            const struct history_column *column = &target->columns[i];
            buffer_put(to, head.data, head.len);
            put_csv_text(to, column->desc->name);
            buffer_puts(to, ",");
            put_csv_values(to, target, column, row);
            buffer_puts(to, ",");
            if (column->desc->size == 1)
                put_rate(to, target, column, row, "");
            buffer_puts(to, "\n");
        }
        r = head.error ? head.error : flush_if_full(o);
    }
    return r;
}

int history_render(const struct history *history, const char *vm, int64_t wall_offset_ns,
                   enum history_format format, history_piece_fn *piece, void *ctx)
{
    struct output o = {BUFFER_INIT, piece, ctx, history, wall_offset_ns};
    int r = 0;
    switch (format) {
    case HISTORY_JSON:
        r = put_json(&o, vm);
        break;
    case HISTORY_CSV:
        for (size_t i = 0; r == 0 && i < history->n_targets; i++)
            r = put_csv_target(&o, &history->targets[i], vm);
        break;
    }
    if (r == 0)
        r = flush(&o);
    buffer_free(&o.buffer);
    return r;
}
