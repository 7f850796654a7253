/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records can be told apart only from the front, and undone only from the back. So they are listed
 * once, with their times, and then gone through in either direction.
 */
#include "replay.h"

#include <string.h>

int replay_schemas_add(struct replay_schemas *schemas, uint32_t number,
                       const struct kvmstats_schema *decoded)
{
    int r = codec_shape_init(&schemas->shapes[number], decoded);
    if (r == 0)
        schemas->decoded[number] = decoded;
    return r;
}

static int count_records(const uint8_t *at, const uint8_t *end, size_t *ret_n)
{
    size_t n = 0;
    struct codec_record record;
    for (; at < end; n++) {
        int r = codec_next(&at, end, &record);
        if (r < 0)
            return r;
    }
    *ret_n = n;
    return 0;
}

static int64_t time_after(const struct codec_record *record, int64_t before_ns)
{
    return record->kind == RECORD_TICK ? (int64_t)((uint64_t)before_ns + record->since_ns)
                                       : record->time_ns;
}

int replay_begin(struct replay *replay, const struct replay_schemas *schemas, const uint8_t *bytes,
                 size_t len, int64_t first_ns, size_t records_max)
{
    const uint8_t *at = bytes, *end = len ? bytes + len : bytes;
    size_t n;
    int r = count_records(at, end, &n);
    if (r == 0 && n > records_max)
        r = -EFBIG;
    if (r < 0)
        return r;
    CLEANUP_REPLAY struct replay new = {
        .schemas = schemas,
        .n_records = n,
        .end = end,
        .records = calloc(MAX_OF(n, (size_t)1), sizeof *new.records),
        .times_ns = calloc(MAX_OF(n, (size_t)1), sizeof *new.times_ns),
    };
    if (!new.records || !new.times_ns)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        struct codec_record record;
        new.records[i] = at;
        r = codec_next(&at, end, &record);
        if (r < 0)
            return r;
        new.times_ns[i] = i ? time_after(&record, new.times_ns[i - 1]) : first_ns;
    }
    *replay = new;
    new = (struct replay){0};
    return 0;
}

static void forget_targets(struct replay *replay)
{
    if (replay->targets)
        free(replay->targets[0].cells);
    free(replay->targets);
    replay->targets = NULL;
    replay->n_targets = 0;
}

void replay_end(struct replay *replay)
{
    forget_targets(replay);
    free(replay->records);
    free(replay->times_ns);
    *replay = (struct replay){0};
}

/* --- what targets there are --- */

/* Cells for all targets, which know their schemas; nothing is present. */
static int give_cells(struct replay *replay)
{
    size_t n = 0;
    if (replay->n_targets == 0)
        return -EBADMSG; /* the recorder has no such records, and nobody would own the cells */
    for (uint32_t i = 0; i < replay->n_targets; i++) {
        uint32_t schema = replay->targets[i].id.schema;
        if (!replay->schemas->decoded[schema])
            return -EBADMSG;
        n += replay->schemas->shapes[schema].n_cells;
        if (n > REPLAY_CELLS_MAX)
            return -EBADMSG;
    }
    uint64_t *cells = calloc(MAX_OF(n, (size_t)1), sizeof *cells);
    if (!cells)
        return -ENOMEM;
    for (uint32_t i = 0; i < replay->n_targets; i++) {
        replay->targets[i].cells = cells;
        cells += replay->schemas->shapes[replay->targets[i].id.schema].n_cells;
    }
    return 0;
}

static int new_targets(struct replay *replay, uint32_t n)
{
    forget_targets(replay);
    replay->targets = calloc(MAX_OF(n, 1u), sizeof *replay->targets);
    if (!replay->targets)
        return -ENOMEM;
    replay->n_targets = n;
    return 0;
}

static int list_targets(struct replay *replay, struct codec_record *record)
{
    int r =
        record->n_targets <= REPLAY_TARGETS_MAX ? new_targets(replay, record->n_targets) : -EBADMSG;
    for (uint32_t i = 0; r == 0 && i < record->n_targets; i++)
        r = codec_get_target(&record->body, record->end, &replay->targets[i].id);
    return r < 0 ? r : give_cells(replay);
}

/* The list is there already: this must be the same. */
static int check_list(const struct replay *replay, struct codec_record *record)
{
    struct codec_target target;
    int r = record->n_targets == replay->n_targets ? 0 : -EBADMSG;
    for (uint32_t i = 0; r == 0 && i < record->n_targets; i++) {
        const struct codec_target *known = &replay->targets[i].id;
        r = codec_get_target(&record->body, record->end, &target);
        if (r == 0 && (target.vcpu != known->vcpu || target.schema != known->schema))
            r = -EBADMSG;
    }
    return r;
}

/* --- where to start --- */

int replay_seek_last(struct replay *replay)
{
    struct codec_record record;
    size_t n = replay->n_records;
    for (; n; n--) {
        const uint8_t *at = replay->records[n - 1];
        int r = codec_next(&at, replay->end, &record);
        if (r < 0)
            return r;
        if (record.kind == RECORD_LAST)
            break;
    }
    if (n == 0)
        return -ENOENT;
    forget_targets(replay);
    replay->at = replay->n_records = n;
    return 0;
}

static int put_frame(struct replay *replay, const struct frame *frame, const struct layout_vm *vm)
{
    const struct layout_target *targets = &frame->layout->targets[vm->first_target];
    int r = new_targets(replay, vm->n_targets);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < vm->n_targets; i++)
        replay->targets[i].id = (struct codec_target){targets[i].vcpu, targets[i].schema->index};
    r = give_cells(replay);
    for (uint32_t i = 0; r == 0 && i < vm->n_targets; i++) {
        uint8_t status = frame->status[vm->first_target + i];
        replay->targets[i].present = status != TARGET_ABSENT;
        if (replay->targets[i].present)
            memcpy(replay->targets[i].cells, frame_block(frame, &targets[i]),
                   targets[i].schema->data_bytes);
    }
    return r;
}

int replay_seek_frame(struct replay *replay, const struct frame *frame, const struct layout_vm *vm,
                      int64_t tick_ns)
{
    struct codec_record record = {.kind = RECORD_LAST};
    size_t n = replay->n_records;
    while (n && replay->times_ns[n - 1] > tick_ns)
        n--;
    /* A LAST has the time of the tick before it. */
    for (; n && replay->times_ns[n - 1] == tick_ns; n--) {
        const uint8_t *at = replay->records[n - 1];
        int r = codec_next(&at, replay->end, &record);
        if (r < 0)
            return r;
        if (record.kind != RECORD_LAST)
            break;
    }
    if (n == 0 || replay->times_ns[n - 1] != tick_ns || record.kind == RECORD_LAST)
        return -ENOENT;
    replay->at = replay->n_records = n;
    return put_frame(replay, frame, vm);
}

/* --- going --- */

static bool all_zero(const uint64_t *cells, uint32_t n)
{
    uint64_t any = 0;
    for (uint32_t i = 0; i < n; i++)
        any |= cells[i];
    return any == 0;
}

/* One target over one record. What has no values has zeros, or the recording is wrong. */
static int pass_target(struct replay *replay, struct replay_target *target,
                       struct codec_record *record, int64_t time_ns, bool forth)
{
    const struct codec_shape *shape = &replay->schemas->shapes[target->id.schema];
    struct codec_state state = {.status = TARGET_READ, .had_before = true, .read_ns = time_ns};
    int r = record->uniform ? 0 : codec_get_state(&record->body, record->end, time_ns, &state);
    if (r < 0)
        return r;
    bool has_now = state.status != TARGET_ABSENT;
    if ((record->kind == RECORD_FIRST && state.had_before) ||
        (record->kind == RECORD_LAST && has_now))
        return -EBADMSG;
    if (target->present != (forth ? state.had_before : has_now))
        return -EBADMSG;
    if (state.had_before || has_now)
        r = codec_get_block(&record->body, record->end, shape, forth, target->cells);
    target->present = forth ? has_now : state.had_before;
    target->anew = has_now && !state.had_before;
    target->status = forth ? state.status : TARGET_ABSENT;
    target->read_ns = state.read_ns;
    if (r == 0 && !target->present && !all_zero(target->cells, shape->n_cells))
        r = -EBADMSG;
    return r;
}

static int pass(struct replay *replay, struct codec_record *record, int64_t time_ns, bool forth)
{
    for (uint32_t i = 0; i < replay->n_targets; i++) {
        int r = pass_target(replay, &replay->targets[i], record, time_ns, forth);
        if (r < 0)
            return r;
    }
    return record->body == record->end ? 0 : -EBADMSG;
}

/* Passes over a record whose list of targets is, or is not, already known. */
static int pass_listed(struct replay *replay, struct codec_record *record, int64_t time_ns,
                       bool forth)
{
    bool makes_list = record->kind == (forth ? RECORD_FIRST : RECORD_LAST);
    int r = 0;
    if (makes_list)
        r = replay->targets ? -EBADMSG : list_targets(replay, record);
    else if (!replay->targets)
        r = -EBADMSG;
    else if (record->kind != RECORD_TICK)
        r = check_list(replay, record);
    if (r == 0)
        r = pass(replay, record, time_ns, forth);
    if (r == 0 && record->kind == (forth ? RECORD_LAST : RECORD_FIRST))
        forget_targets(replay);
    return r;
}

int replay_back(struct replay *replay)
{
    struct codec_record record;
    const uint8_t *at = replay->records[replay->at - 1];
    int r = codec_next(&at, replay->end, &record);
    if (r == 0)
        r = pass_listed(replay, &record, replay->times_ns[replay->at - 1], false);
    if (r == 0)
        replay->at--;
    return r;
}

int replay_forth(struct replay *replay)
{
    struct codec_record record;
    const uint8_t *at = replay->records[replay->at];
    int r = codec_next(&at, replay->end, &record);
    if (r == 0)
        r = pass_listed(replay, &record, replay->times_ns[replay->at], true);
    if (r == 0)
        replay->at++;
    return r;
}

/* Whether the values before the next record are to be had by going back over it. */
static bool can_go_back(const struct replay *replay)
{
    struct codec_record record;
    if (replay->at == 0)
        return false;
    const uint8_t *at = replay->records[replay->at - 1];
    if (codec_next(&at, replay->end, &record) < 0)
        return true; /* which says what is wrong */
    return replay->targets || record.kind == RECORD_LAST;
}

int replay_rewind(struct replay *replay, int64_t since_ns)
{
    while (can_go_back(replay) && replay->times_ns[replay->at - 1] >= since_ns) {
        int r = replay_back(replay);
        if (r < 0)
            return r;
    }
    return 0;
}
