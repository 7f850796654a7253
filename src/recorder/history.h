/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stretch of a recording for people and their programs: every tick's time, raw value and rate, as
 * JSON or CSV. A tick in which a target was not read has no values, and a counter that went back
 * has no rate.
 */
#pragma once

#include "buffer.h"
#include "replay.h"

enum history_format {
    HISTORY_JSON,
    HISTORY_CSV,
};
/* "json", "csv". False: another word. */
bool history_format_parse(const char *word, enum history_format *ret_format);

enum {
    HISTORY_VCPU_ALL = -2, /* the VM's own statistics, too */
    /* More than that there can be only where they are others in every tick. */
    HISTORY_TARGETS_MAX = REPLAY_TARGETS_MAX,
};

struct history_query {
    const char *stats; /* globs of the kernel's names, separated by commas; NULL: all */
    int32_t vcpu;      /* or HISTORY_VCPU_ALL */
    int64_t since_ns;  /* monotonic, as all times within; INT64_MIN: all there is */
};

/* Whether anything that is asked for is in a schema. */
bool history_asks_of(const struct history_query *query, const struct kvmstats_schema *schema);

struct history_target; /* history.c */

struct history {
    struct history_query query;
    const struct replay_schemas *schemas; /* borrowed */
    size_t n_targets, capacity;
    struct history_target *targets; /* owned */
    uint32_t *by_id;                /* owned; their indices, in the order of their ids */
    uint64_t n_values, values_max;  /* room for so many has been made; may be made */
};

/*
 * Goes through a recording, which has been sought to its end. Returns 0, -EFBIG (more than
 * `values_max` values of 8 bytes, or than HISTORY_TARGETS_MAX targets), -EBADMSG or -ENOMEM.
 */
MUST_USE int history_collect(struct replay *replay, const struct history_query *query,
                             uint64_t values_max, struct history *ret_history);
void history_free(struct history *history);
#define CLEANUP_HISTORY CLEANUP(history_free)
/* Whether there is any target that was asked for. */
bool history_is_empty(const struct history *history);

/* Takes bytes of what is rendered. Returns 0, or a -errno that ends it. */
typedef int history_piece_fn(void *ctx, const char *bytes, size_t len);

/*
 * `vm` is the VM's label, valid UTF-8. `wall_offset_ns`: from monotonic times to those since the
 * epoch. Returns 0, -ENOMEM or what `piece` returned.
 */
MUST_USE int history_render(const struct history *history, const char *vm, int64_t wall_offset_ns,
                            enum history_format format, history_piece_fn *piece, void *ctx);
/* CSV's first line; JSON has none. For several VMs one after another, `vm` is a column of its own.
 */
extern const char history_csv_head[];
