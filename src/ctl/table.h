/* SPDX-License-Identifier: Apache-2.0 */
/* Columns for a person: texts of any origin made fit for a terminal, and numbers in short. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "buffer.h"

enum {
    TABLE_COLUMNS_MAX = 16,
    SHORT_BYTES = 32,
};

struct table {
    size_t n_columns;
    uint32_t right; /* a bit for each column whose cells stand at its right side */
    size_t n_cells;
    struct buffer text; /* one cell after another, each ended by a zero */
    size_t column;      /* the next cell's */
    size_t widths[TABLE_COLUMNS_MAX];
};

void table_free(struct table *table);
#define CLEANUP_TABLE CLEANUP(table_free)
/* The next cell; "" becomes "-". Control characters of any kind become "?". Errors stick in `text`.
 */
void table_cell(struct table *table, const char *text);
/* At most `max_rows` rows, each cut at `max_width` columns. Returns 0 or -ENOMEM. */
MUST_USE int table_print(const struct table *table, size_t max_rows, size_t max_width, FILE *to);

/* Text as a terminal may have it, to `to`. */
void print_plain(const char *text, FILE *to);

/* "4.5k", "12.3 ms", "1.2 MiB", "12.3 %". */
const char *short_count(char text[SHORT_BYTES], double value);
const char *short_seconds(char text[SHORT_BYTES], double seconds);
const char *short_bytes(char text[SHORT_BYTES], double bytes);
const char *short_percent(char text[SHORT_BYTES], double ratio);
