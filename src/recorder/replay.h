/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Going through a recording: from the values at its end back to where somebody wants to begin, and
 * from there forth, tick by tick. What is read may be anything (a dump from anywhere): all is
 * bounded, and what is wrong is -EBADMSG.
 */
#pragma once

#include "codec.h"
#include "frame.h"

enum {
    /* Values that the targets of one tick may have together: 4,097 of the largest there are take
     * a fifteenth. */
    REPLAY_CELLS_MAX = 8 << 20,
    /* Of one tick: the VM and as many vCPUs as limits.max_vcpus_per_vm may say. */
    REPLAY_TARGETS_MAX = (64 << 10) + 1,
};

/* What records know by numbers. Schemas are borrowed; NULL: there is none of that number. */
struct replay_schemas {
    const struct kvmstats_schema *decoded[CODEC_SCHEMAS_MAX];
    struct codec_shape shapes[CODEC_SCHEMAS_MAX];
};
/* Returns 0, or -E2BIG. */
MUST_USE int replay_schemas_add(struct replay_schemas *schemas, uint32_t number,
                                const struct kvmstats_schema *decoded);

struct replay_target {
    struct codec_target id;
    uint8_t status;  /* enum target_status */
    bool present;    /* it has values */
    bool anew;       /* it had none in the tick before */
    int64_t read_ns; /* READ: when */
    uint64_t *cells; /* its block; of all of a tick one after another */
};

/* Between records: what the targets have after the one before. */
struct replay {
    const struct replay_schemas *schemas; /* borrowed */
    size_t n_records;
    const uint8_t **records; /* owned; each one's first byte */
    int64_t *times_ns;       /* owned; each one's time */
    const uint8_t *end;      /* of the bytes, which are borrowed */
    size_t at;               /* records[at] is the next one; n_records: none is */
    /* After the record before: */
    uint32_t n_targets;
    struct replay_target *targets; /* owned, as are the cells of the first */
};

/*
 * `bytes`: records from the first byte on, the first of them of `first_ns`. There are no values
 * yet: replay_seek_last() or replay_seek_frame() first. To go through them takes memory for each,
 * twice what the shortest has itself: of more than `records_max` nothing is made. Returns 0,
 * -EFBIG, -EBADMSG or -ENOMEM.
 */
MUST_USE int replay_begin(struct replay *replay, const struct replay_schemas *schemas,
                          const uint8_t *bytes, size_t len, int64_t first_ns, size_t records_max);
void replay_end(struct replay *replay);
#define CLEANUP_REPLAY CLEANUP(replay_end)

/* Goes behind the newest LAST; records after it are cut off. Returns 0, or -ENOENT: none is. */
MUST_USE int replay_seek_last(struct replay *replay);
/*
 * Takes the values of a VM in a frame, and goes behind the record of that tick; records after it
 * are cut off. Returns 0, -ENOENT (it has none), or -ENOMEM.
 */
MUST_USE int replay_seek_frame(struct replay *replay, const struct frame *frame,
                               const struct layout_vm *vm, int64_t tick_ns);

/*
 * Back over one record, or forth. Going back over a FIRST leaves nothing, and only a LAST can stand
 * before it. Returns 0, -EBADMSG or -ENOMEM.
 */
MUST_USE int replay_back(struct replay *replay);
MUST_USE int replay_forth(struct replay *replay);

/*
 * Goes back to before the first record that is not older than `since_ns`, or as far as it goes:
 * what is not whole at the old end is left out. Returns as replay_back() does.
 */
MUST_USE int replay_rewind(struct replay *replay, int64_t since_ns);
