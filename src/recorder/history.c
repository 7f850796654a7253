/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records come by time and hold all statistics; what is asked for is one statistic over time. So
 * the values that were asked for are kept in rows, a tick each, before anything is written.
 */
#include "history.h"

#include <fnmatch.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "history_internal.h"

bool history_format_parse(const char *word, enum history_format *ret_format)
{
    static const char *const words[] = {[HISTORY_JSON] = "json", [HISTORY_CSV] = "csv"};
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (strcmp(word, words[i]) == 0) {
            *ret_format = (enum history_format)i;
            return true;
        }
    }
    return false;
}

/* --- what is wanted --- */

static bool matches(const char *globs, const char *name)
{
    char glob[256];
    if (!globs)
        return true;
    for (;;) {
        size_t len = strcspn(globs, ",");
        if (len < sizeof glob) {
            memcpy(glob, globs, len);
            glob[len] = '\0';
            if (fnmatch(glob, name, 0) == 0)
                return true;
        }
        if (!globs[len])
            return false;
        globs += len + 1;
    }
}

bool history_asks_of(const struct history_query *query, const struct kvmstats_schema *schema)
{
    size_t n = kvmstats_schema_count(schema);
    for (size_t i = 0; i < n; i++) {
        if (matches(query->stats, kvmstats_schema_desc(schema, i)->name))
            return true;
    }
    return false;
}

static void target_free(struct history_target *target)
{
    free(target->columns);
    free(target->rows);
    free(target->values);
}

static int choose_columns(struct history_target *target, const char *globs)
{
    size_t n = kvmstats_schema_count(target->schema);
    target->columns = calloc(MAX_OF(n, (size_t)1), sizeof *target->columns);
    if (!target->columns)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        const struct kvmstats_desc *desc = kvmstats_schema_desc(target->schema, i);
        if (!matches(globs, desc->name))
            continue;
        target->columns[target->n_columns++] = (struct history_column){desc, target->row_values};
        target->row_values += desc->size;
    }
    return 0;
}

static int make_room(struct history *history)
{
    if (history->n_targets == HISTORY_TARGETS_MAX)
        return -EFBIG;
    if (history->n_targets < history->capacity)
        return 0;
    size_t capacity = MAX_OF(history->capacity * 2, (size_t)8);
    struct history_target *targets = reallocarray(history->targets, capacity, sizeof *targets);
    if (!targets)
        return -ENOMEM;
    history->targets = targets;
    uint32_t *by_id = reallocarray(history->by_id, capacity, sizeof *by_id);
    if (!by_id)
        return -ENOMEM;
    history->by_id = by_id;
    history->capacity = capacity;
    return 0;
}

static int make_target(struct history *history, const struct codec_target *id, size_t rows_max,
                       struct history_target *ret_target)
{
    struct history_target target = {.id = *id, .schema = history->schemas->decoded[id->schema]};
    int r = choose_columns(&target, history->query.stats);
    if (r == 0) {
        history->n_values += (uint64_t)rows_max * (target.row_values + sizeof *target.rows / 8) +
                             kvmstats_schema_count(target.schema) * sizeof *target.columns / 8;
        if (history->n_values > history->values_max)
            r = -EFBIG;
    }
    if (r == 0) {
        /* Pages that no row comes to are never touched. */
        target.rows = calloc(MAX_OF(rows_max, (size_t)1), sizeof *target.rows);
        target.values =
            calloc(MAX_OF(rows_max * target.row_values, (size_t)1), sizeof *target.values);
        if (!target.rows || !target.values)
            r = -ENOMEM;
    }
    if (r < 0) {
        target_free(&target);
        return r;
    }
    *ret_target = target;
    return 0;
}

/* Its place in history->by_id will be `place`. */
static int add_target(struct history *history, const struct codec_target *id, size_t place,
                      size_t rows_max)
{
    int r = make_room(history);
    if (r == 0)
        r = make_target(history, id, rows_max, &history->targets[history->n_targets]);
    if (r < 0)
        return r;
    memmove(&history->by_id[place + 1], &history->by_id[place],
            (history->n_targets - place) * sizeof *history->by_id);
    history->by_id[place] = (uint32_t)history->n_targets++;
    return 0;
}

static int compare_ids(const struct codec_target *a, const struct codec_target *b)
{
    if (a->vcpu != b->vcpu)
        return a->vcpu < b->vcpu ? -1 : 1;
    return (a->schema > b->schema) - (a->schema < b->schema);
}

/* The target of that id, which is mostly at the place where it was in the tick before. */
static int find_target(struct history *history, const struct codec_target *id, size_t guess,
                       size_t rows_max, size_t *ret_index)
{
    *ret_index = guess;
    if (guess < history->n_targets && compare_ids(&history->targets[guess].id, id) == 0)
        return 0;
    size_t low = 0, high = history->n_targets;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        *ret_index = history->by_id[middle];
        int order = compare_ids(&history->targets[*ret_index].id, id);
        if (order == 0)
            return 0;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *ret_index = history->n_targets;
    return add_target(history, id, low, rows_max);
}

static void add_row(struct history_target *target, const struct replay_target *now, bool continues)
{
    uint64_t *values = target->values + target->n_rows * target->row_values;
    target->rows[target->n_rows++] = (struct history_row){
        .time_ns = now->read_ns,
        .continues = continues,
    };
    for (size_t i = 0; i < target->n_columns; i++) {
        const struct history_column *column = &target->columns[i];
        memcpy(values + column->at, (const char *)now->cells + column->desc->offset,
               column->desc->size * sizeof *values);
    }
}

static int collect_tick(struct history *history, const struct replay *replay, size_t rows_max)
{
    size_t at = 0;
    for (uint32_t i = 0; i < replay->n_targets; i++) {
        const struct replay_target *now = &replay->targets[i];
        if (history->query.vcpu != HISTORY_VCPU_ALL && now->id.vcpu != history->query.vcpu)
            continue;
        int r = find_target(history, &now->id, at, rows_max, &at);
        if (r < 0)
            return r;
        struct history_target *target = &history->targets[at++];
        if (target->seen_at == replay->at)
            return -EBADMSG; /* it is there twice: it has no room for that */
        target->seen_at = replay->at;
        if (now->anew)
            target->interrupted = true;
        if (now->status != TARGET_READ)
            continue;
        add_row(target, now, target->n_rows > 0 && !target->interrupted);
        target->interrupted = false;
    }
    return 0;
}

int history_collect(struct replay *replay, const struct history_query *query, uint64_t values_max,
                    struct history *ret_history)
{
    CLEANUP_HISTORY struct history history = {
        .query = *query,
        .schemas = replay->schemas,
        .values_max = values_max,
    };
    int r = replay_rewind(replay, query->since_ns);
    /* One more, for the first one's rate. */
    if (r == 0 && replay->at && query->since_ns != INT64_MIN)
        r = replay_rewind(replay, replay->times_ns[replay->at - 1]);
    size_t rows_max = replay->n_records - replay->at;
    while (r == 0 && replay->at < replay->n_records) {
        r = replay_forth(replay);
        if (r == 0)
            r = collect_tick(&history, replay, rows_max);
    }
    if (r < 0)
        return r;
    *ret_history = history;
    history = (struct history){0};
    return 0;
}

void history_free(struct history *history)
{
    for (size_t i = 0; i < history->n_targets; i++)
        target_free(&history->targets[i]);
    free(history->targets);
    free(history->by_id);
    *history = (struct history){0};
}

bool history_is_empty(const struct history *history)
{
    for (size_t i = 0; i < history->n_targets; i++) {
        if (history->targets[i].n_columns)
            return false;
    }
    return true;
}
