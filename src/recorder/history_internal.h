/* SPDX-License-Identifier: Apache-2.0 */
/* What history.c (collecting) and history_render.c (writing) share. */
#pragma once

#include "history.h"

struct history_column {
    const struct kvmstats_desc *desc;
    size_t at; /* of its first value in a row */
};

struct history_row {
    int64_t time_ns;
    bool continues; /* the row before has the values before: there is a rate */
};

struct history_target {
    struct codec_target id;
    const struct kvmstats_schema *schema;
    size_t n_columns;
    struct history_column *columns; /* owned */
    size_t row_values;
    size_t n_rows;
    struct history_row *rows; /* owned */
    uint64_t *values;         /* owned; n_rows * row_values */
    /* While collecting: */
    bool interrupted; /* the next row does not continue */
    size_t seen_at;   /* the replay's place when it was there last */
};
