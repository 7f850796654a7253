/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ticks of a VM as records, and back. Pure: bytes in, bytes out.
 *
 * A recording is a sequence of records, each with its length in front:
 *
 *     TICK    the targets are those of the record before; what has changed since
 *     FIRST   targets that were not there before: their list and all of their values
 *     LAST    the other end: the list of the targets and the values they had, which now go
 *
 * Every record says the difference between the tick before it and its own, with zeros for what is
 * not there. So whoever has all values of one tick can go back and forth from it, and a recording
 * may lose any number of its oldest bytes without anything else becoming unreadable. Full values
 * stand nowhere but where targets come and go.
 *
 * docs/dump-format.md tells the form byte by byte.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cleanup.h"
#include "kvmstats/kvmstats.h"

enum record_kind {
    RECORD_TICK = 1,
    RECORD_FIRST = 2,
    RECORD_LAST = 3,
};

enum {
    /* A block larger than this is not recorded: the largest kernel's is 1.3 KiB. */
    CODEC_BLOCK_BYTES_MAX = 64 << 10,
    CODEC_CELLS_MAX = CODEC_BLOCK_BYTES_MAX / 8,
    /* Of a record: what four bytes of varint can say. */
    CODEC_RECORD_BYTES_MAX = (1 << 28) - 1,
    /* Numbers that a recording may know schemas by: 0 … this less 1. */
    CODEC_SCHEMAS_MAX = 16,
    /* The form of records, as dumps keep them. */
    CODEC_VERSION = 1,
    /* What is written at most: before the targets, for one in a list, and of its state. */
    CODEC_HEAD_ROOM = 32,
    CODEC_TARGET_ROOM = 16,
    CODEC_STATE_ROOM = 16,
};

/* What the coding of a block depends on: its length, and which of its cells may fall. */
struct codec_shape {
    uint32_t data_bytes;
    uint32_t n_cells; /* of 8 bytes; the last may be cut short */
    uint64_t falls[CODEC_CELLS_MAX / 64];
};

/* Returns 0, or -E2BIG for a block that is not recorded. */
MUST_USE int codec_shape_init(struct codec_shape *shape, const struct kvmstats_schema *schema);

/* What codec_put_block() writes at most. */
static inline size_t codec_block_room(const struct codec_shape *shape)
{
    return 16 + (size_t)shape->n_cells * 11;
}

/* What changed from `before` to `now`; NULL stands for zeros. Returns the end. */
uint8_t *codec_put_block(uint8_t *to, const struct codec_shape *shape, const void *before,
                         const void *now);
/*
 * The same read: the differences are added to `cells` (n_cells: the block's bytes as they are), or
 * taken away. Returns 0 or -EBADMSG; then the cells are anything.
 */
MUST_USE int codec_get_block(const uint8_t **at, const uint8_t *end,
                             const struct codec_shape *shape, bool add, uint64_t *cells);

/* What a target is known by within a recording. */
struct codec_target {
    int32_t vcpu; /* -1: the VM's own */
    uint32_t schema;
};

/* What became of a target in a record's tick. */
struct codec_state {
    uint8_t status;  /* enum target_status: absent (0) in a LAST */
    bool had_before; /* it had a block in the tick before: not in a FIRST */
    int64_t read_ns; /* when it was read; where it was not, the record's time */
};

/*
 * Writing: codec_begin(), with FIRST and LAST codec_put_target() for each target, then for each
 * target in the same order codec_put_state() and, where it was there before or is now,
 * codec_put_block(); codec_end(). The caller sees to it that there is room.
 */
struct codec_writer {
    uint8_t *start; /* of the room */
    uint8_t *to;
    int64_t time_ns;
    bool uniform;
};

/*
 * `time_ns`: of the tick; of a LAST, that of the tick before it. `before_ns`: of the record before,
 * which counts for TICK only. `uniform`: all targets were read at time_ns, and had been before;
 * then no states are put. `n_targets` counts for FIRST and LAST only.
 */
void codec_begin(struct codec_writer *w, uint8_t *room, enum record_kind kind, int64_t time_ns,
                 int64_t before_ns, bool uniform, uint32_t n_targets);
void codec_put_target(struct codec_writer *w, const struct codec_target *target);
void codec_put_state(struct codec_writer *w, const struct codec_state *state);
/* Returns the record's bytes, which start within the room, or NULL: it is too long. */
const uint8_t *codec_end(struct codec_writer *w, size_t *ret_len);

/* A record taken apart. */
struct codec_record {
    enum record_kind kind;
    bool uniform;
    int64_t time_ns;    /* FIRST, LAST */
    uint64_t since_ns;  /* TICK: since the record before */
    uint32_t n_targets; /* FIRST, LAST */
    const uint8_t *body, *end;
};

/* Takes the record at *at, and moves *at behind it. Returns 0, or -EBADMSG. */
MUST_USE int codec_next(const uint8_t **at, const uint8_t *end, struct codec_record *ret_record);
/* The list in front of FIRST and LAST, one by one; then the states and blocks follow. */
MUST_USE int codec_get_target(const uint8_t **at, const uint8_t *end,
                              struct codec_target *ret_target);
/* `time_ns`: of the record. Only where it is not uniform. */
MUST_USE int codec_get_state(const uint8_t **at, const uint8_t *end, int64_t time_ns,
                             struct codec_state *ret_state);
