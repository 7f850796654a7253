/* SPDX-License-Identifier: Apache-2.0 */
#include "table.h"

#include <errno.h>

void table_free(struct table *table)
{
    buffer_free(&table->text);
}

/*
 * The length of the next character that a terminal takes as text, or 0 where there is a control
 * character (of one byte, or of two: U+0080 to U+009F), or a byte that only goes on with one: some
 * terminals take it for such.
 */
static size_t printable(const char *p)
{
    unsigned char c = (unsigned char)p[0], next = (unsigned char)p[1];
    if (c < ' ' || (c >= 0x7f && c < 0xc0) || (c == 0xc2 && next >= 0x80 && next < 0xa0))
        return 0;
    size_t len = 1;
    while (c >= 0xc0 && len < 4 && ((unsigned char)p[len] & 0xc0) == 0x80)
        len++;
    return len;
}

static size_t step(const char *p)
{
    size_t len = printable(p);
    return len ? len : (unsigned char)p[0] == 0xc2 ? 2 : 1;
}

void print_plain(const char *text, FILE *to)
{
    for (const char *p = text; *p; p += step(p)) {
        if (printable(p))
            fwrite(p, 1, printable(p), to);
        else
            fputc('?', to);
    }
}

static size_t width(const char *text)
{
    size_t n = 0;
    for (const char *p = text; *p; p += step(p))
        n++;
    return n;
}

void table_cell(struct table *table, const char *text)
{
    const char *shown = text[0] ? text : "-";
    size_t w = width(shown);
    if (w > table->widths[table->column])
        table->widths[table->column] = w;
    table->column = (table->column + 1) % table->n_columns;
    table->n_cells++;
    buffer_put(&table->text, shown, strlen(shown) + 1);
}

/* So many characters of a line that is `left` wide; returns what is left then. */
static size_t put(const char *text, size_t left, FILE *to)
{
    for (const char *p = text; *p && left; p += step(p), left--) {
        if (printable(p))
            fwrite(p, 1, printable(p), to);
        else
            fputc('?', to);
    }
    return left;
}

static size_t put_spaces(size_t n, size_t left, FILE *to)
{
    for (; n && left; n--, left--)
        fputc(' ', to);
    return left;
}

int table_print(const struct table *table, size_t max_rows, size_t max_width, FILE *to)
{
    const char *cell = table->text.data;
    if (table->text.error)
        return -ENOMEM;
    size_t left = max_width;
    for (size_t i = 0; i < table->n_cells && i / table->n_columns < max_rows; i++) {
        size_t column = i % table->n_columns, space = table->widths[column] - width(cell);
        bool last = column + 1 == table->n_columns;
        if (table->right >> column & 1)
            left = put_spaces(space, left, to);
        left = put(cell, left, to);
        if (!last && !(table->right >> column & 1))
            left = put_spaces(space, left, to);
        left = last ? max_width : put_spaces(2, left, to);
        if (last)
            fputc('\n', to);
        cell += strlen(cell) + 1;
    }
    return 0;
}

/* --- numbers in short --- */

/* Three digits that count, with the unit that gives at least one before the point. */
static const char *scaled(char text[SHORT_BYTES], double value, double factor,
                          const char *const *units, size_t n_units)
{
    size_t unit = 0;
    if (!(value > -1e30 && value < 1e30)) { /* what nobody has */
        (void)snprintf(text, SHORT_BYTES, "%g", value);
        return text;
    }
    while (unit + 1 < n_units && (value >= factor * 0.9995 || value <= -factor * 0.9995)) {
        value /= factor;
        unit++;
    }
    double size = value < 0 ? -value : value;
    if (size >= 1e6) {
        (void)snprintf(text, SHORT_BYTES, "%.3g%s", value, units[unit]);
        return text;
    }
    int decimals = size >= 99.95 || size == (double)(int64_t)size ? 0 : size >= 9.995 ? 1 : 2;
    (void)snprintf(text, SHORT_BYTES, "%.*f%s", decimals, value, units[unit]);
    return text;
}

const char *short_count(char text[SHORT_BYTES], double value)
{
    static const char *const units[] = {"", "k", "M", "G", "T", "P", "E"};
    return scaled(text, value, 1e3, units, ARRAY_LEN(units));
}

const char *short_seconds(char text[SHORT_BYTES], double seconds)
{
    static const char *const units[] = {" ns", " us", " ms", " s"};
    static const char *const longer[] = {" s", " min", " h"};
    if (seconds < 60)
        return seconds == 0 ? scaled(text, 0, 1e3, &units[3], 1)
                            : scaled(text, seconds * 1e9, 1e3, units, ARRAY_LEN(units));
    if (seconds < 86400)
        return scaled(text, seconds, 60, longer, ARRAY_LEN(longer));
    static const char *const days[] = {" d"};
    return scaled(text, seconds / 86400, 1e9, days, 1);
}

const char *short_bytes(char text[SHORT_BYTES], double bytes)
{
    static const char *const units[] = {" B", " KiB", " MiB", " GiB", " TiB", " PiB"};
    return scaled(text, bytes, 1024, units, ARRAY_LEN(units));
}

const char *short_percent(char text[SHORT_BYTES], double ratio)
{
    (void)snprintf(text, SHORT_BYTES, ratio < 1e6 ? "%.1f %%" : "%.3g %%", ratio * 100);
    return text;
}
