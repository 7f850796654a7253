/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Most of a block does not move between two ticks, and what moves does so by little. So a block is
 * the list of its cells that moved: one byte for how many unmoved ones to skip and how long the
 * number is (or for a number up to 8 all of it), then the number. Of what is said in bytes nothing
 * depends on a record before: that would have to be known before one can go back.
 */
#include "codec.h"

#include "bytes.h"

enum {
    KIND_UNIFORM = 0x80,

    STATE_STATUS = 0x03,
    STATE_HAD_BEFORE = 0x04,
    STATE_OWN_TIME = 0x08,
    STATE_KNOWN = 0x0f,

    STATUS_ABSENT = 0,
    STATUS_LAST = 2, /* held: the highest there is */

    LENGTH_ROOM = 4,

    /* A cell's first byte: how many to skip, then a number from 1 to SMALL_MAX, or its length. */
    SKIP_SHIFT = 4,
    SKIP_MORE = 15, /* the rest follows as a varint */
    SMALL_MAX = 8,

    LINE_CELLS = 8, /* what is compared at a time: a cache line */
};

int codec_shape_init(struct codec_shape *shape, const struct kvmstats_schema *schema)
{
    size_t bytes = kvmstats_schema_data_bytes(schema);
    if (bytes > CODEC_BLOCK_BYTES_MAX)
        return -E2BIG;
    *shape = (struct codec_shape){
        .data_bytes = (uint32_t)bytes,
        .n_cells = (uint32_t)((bytes + 7) / 8),
    };
    for (size_t i = 0; i < kvmstats_schema_count(schema); i++) {
        const struct kvmstats_desc *desc = kvmstats_schema_desc(schema, i);
        bool rises = desc->known && desc->type != KVMSTATS_TYPE_INSTANT;
        for (size_t j = 0; !rises && j < desc->size; j++) {
            size_t cell = desc->offset / 8 + j;
            shape->falls[cell / 64] |= UINT64_C(1) << cell % 64;
        }
    }
    return 0;
}

static inline uint64_t cell_at(const uint8_t *block, size_t cell)
{
    uint64_t value;
    memcpy(&value, block + cell * sizeof value, sizeof value);
    return value;
}

/* The bytes behind the last whole cell. */
static uint64_t cut_cell(const struct codec_shape *shape, const uint8_t *block)
{
    uint64_t value = 0;
    memcpy(&value, block + shape->data_bytes / 8 * 8, shape->data_bytes % 8);
    return value;
}

struct block_writer {
    uint8_t *to;
    const struct codec_shape *shape;
    uint32_t next; /* the first cell that nothing was said about */
    uint32_t n;
};

static inline void put_cell(struct block_writer *w, uint32_t cell, uint64_t difference)
{
    uint32_t skip = cell - w->next;
    uint8_t *head = w->to++;
    unsigned code;
    w->next = cell + 1;
    w->n++;
    if (w->shape->falls[cell / 64] >> cell % 64 & 1)
        difference = zigzag(difference);
    if (skip >= SKIP_MORE) {
        w->to = put_varint(w->to, skip - SKIP_MORE);
        skip = SKIP_MORE;
    }
    if (difference <= SMALL_MAX) {
        code = (unsigned)difference - 1;
    } else {
        unsigned bytes = (unsigned)(64 - __builtin_clzll(difference) + 7) / 8;
        code = SMALL_MAX + bytes - 1;
        (void)put_u64(w->to, difference); /* there is room for all 8 */
        w->to += bytes;
    }
    *head = (uint8_t)(skip << SKIP_SHIFT | code);
}

static inline void put_line(struct block_writer *w, const uint8_t *before, const uint8_t *now,
                            uint32_t cell, uint32_t n)
{
    for (uint32_t i = cell; i < cell + n; i++) {
        uint64_t difference = cell_at(now, i) - cell_at(before, i);
        if (difference)
            put_cell(w, i, difference);
    }
}

/* Whether anything in a cache line differs; compilers make vectors of it. */
static inline bool line_differs(const uint8_t *a, const uint8_t *b)
{
    uint64_t differs = 0;
    for (size_t i = 0; i < LINE_CELLS; i++)
        differs |= cell_at(a, i) ^ cell_at(b, i);
    return differs != 0;
}

uint8_t *codec_put_block(uint8_t *to, const struct codec_shape *shape, const void *before,
                         const void *now)
{
    static const uint8_t zeros[CODEC_BLOCK_BYTES_MAX];
    const uint8_t *old = before ? before : zeros;
    const uint8_t *new = now ? now : zeros;
    uint32_t whole = shape->data_bytes / 8, cell = 0;
    struct block_writer w = {.to = to + 1, .shape = shape};

    for (; cell + LINE_CELLS <= whole; cell += LINE_CELLS) {
        if (line_differs(old + (size_t)cell * 8, new + (size_t)cell * 8))
            put_line(&w, old, new, cell, LINE_CELLS);
    }
    put_line(&w, old, new, cell, whole - cell);
    if (whole < shape->n_cells && cut_cell(shape, old) != cut_cell(shape, new))
        put_cell(&w, whole, cut_cell(shape, new) - cut_cell(shape, old));

    /* How many there are stands in front: hardly ever does that take more than one byte. */
    uint8_t count[VARINT_BYTES_MAX];
    size_t count_bytes = (size_t)(put_varint(count, w.n) - count);
    if (count_bytes > 1)
        memmove(to + count_bytes, to + 1, (size_t)(w.to - (to + 1)));
    memcpy(to, count, count_bytes);
    return w.to + count_bytes - 1;
}

/* The number of a cell. */
static bool get_difference(const uint8_t **at, const uint8_t *end, unsigned code,
                           uint64_t *ret_difference)
{
    uint8_t bytes[8] = {0};
    if (code < SMALL_MAX) {
        *ret_difference = code + 1;
        return true;
    }
    size_t n = code - SMALL_MAX + 1;
    if ((size_t)(end - *at) < n)
        return false;
    memcpy(bytes, *at, n);
    *at += n;
    *ret_difference = get_u64(bytes);
    return true;
}

int codec_get_block(const uint8_t **at, const uint8_t *end, const struct codec_shape *shape,
                    bool add, uint64_t *cells)
{
    uint64_t n, cell = 0;
    if (!get_varint(at, end, &n) || n > shape->n_cells)
        return -EBADMSG;
    for (; n; n--, cell++) {
        uint64_t skip, more = 0, difference;
        if (*at == end)
            return -EBADMSG;
        uint8_t head = *(*at)++;
        skip = head >> SKIP_SHIFT;
        if (skip == SKIP_MORE && (!get_varint(at, end, &more) || more > shape->n_cells))
            return -EBADMSG;
        cell += skip + more;
        if (cell >= shape->n_cells ||
            !get_difference(at, end, head & ((1 << SKIP_SHIFT) - 1), &difference))
            return -EBADMSG;
        if (shape->falls[cell / 64] >> cell % 64 & 1)
            difference = unzigzag(difference);
        cells[cell] += add ? difference : -difference;
    }
    return 0;
}

void codec_begin(struct codec_writer *w, uint8_t *room, enum record_kind kind, int64_t time_ns,
                 int64_t before_ns, bool uniform, uint32_t n_targets)
{
    uint8_t *to = room + LENGTH_ROOM;
    *to++ = (uint8_t)((unsigned)kind | (uniform ? KIND_UNIFORM : 0));
    if (kind == RECORD_TICK)
        to = put_varint(to, (uint64_t)time_ns - (uint64_t)before_ns);
    else
        to = put_varint(put_u64(to, (uint64_t)time_ns), n_targets);
    *w = (struct codec_writer){.start = room, .to = to, .time_ns = time_ns, .uniform = uniform};
}

void codec_put_target(struct codec_writer *w, const struct codec_target *target)
{
    w->to = put_varint(w->to, zigzag((uint64_t)(int64_t)target->vcpu));
    w->to = put_varint(w->to, target->schema);
}

void codec_put_state(struct codec_writer *w, const struct codec_state *state)
{
    if (w->uniform)
        return;
    bool own_time = state->status != STATUS_ABSENT && state->read_ns != w->time_ns;
    *w->to++ = (uint8_t)(state->status | (state->had_before ? STATE_HAD_BEFORE : 0) |
                         (own_time ? STATE_OWN_TIME : 0));
    if (own_time)
        w->to = put_varint(w->to, zigzag((uint64_t)state->read_ns - (uint64_t)w->time_ns));
}

const uint8_t *codec_end(struct codec_writer *w, size_t *ret_len)
{
    uint8_t length[VARINT_BYTES_MAX];
    size_t body = (size_t)(w->to - (w->start + LENGTH_ROOM));
    if (body > CODEC_RECORD_BYTES_MAX)
        return NULL;
    size_t n = (size_t)(put_varint(length, body) - length);
    uint8_t *from = w->start + LENGTH_ROOM - n;
    memcpy(from, length, n);
    *ret_len = n + body;
    return from;
}

static int get_head(struct codec_record *record)
{
    uint64_t n;
    if (record->kind == RECORD_TICK)
        return get_varint(&record->body, record->end, &record->since_ns) ? 0 : -EBADMSG;
    if (record->end - record->body < 8)
        return -EBADMSG;
    record->time_ns = (int64_t)get_u64(record->body);
    record->body += 8;
    /* A target takes two bytes at least. */
    if (!get_varint(&record->body, record->end, &n) ||
        n > (uint64_t)(record->end - record->body) / 2)
        return -EBADMSG;
    record->n_targets = (uint32_t)n;
    return 0;
}

int codec_next(const uint8_t **at, const uint8_t *end, struct codec_record *ret_record)
{
    const uint8_t *p = *at;
    uint64_t len;
    if (!get_varint(&p, end, &len) || len == 0 || len > CODEC_RECORD_BYTES_MAX ||
        len > (uint64_t)(end - p))
        return -EBADMSG;
    unsigned kind = *p & ~(unsigned)KIND_UNIFORM;
    struct codec_record record = {
        .kind = (enum record_kind)kind,
        .uniform = *p & KIND_UNIFORM,
        .body = p + 1,
        .end = p + len,
    };
    if (kind < RECORD_TICK || kind > RECORD_LAST || (kind != RECORD_TICK && record.uniform))
        return -EBADMSG;
    int r = get_head(&record);
    if (r < 0)
        return r;
    *at = record.end;
    *ret_record = record;
    return 0;
}

int codec_get_target(const uint8_t **at, const uint8_t *end, struct codec_target *ret_target)
{
    uint64_t vcpu, schema;
    if (!get_varint(at, end, &vcpu) || !get_varint(at, end, &schema))
        return -EBADMSG;
    int64_t id = (int64_t)unzigzag(vcpu);
    if (id < -1 || id > INT32_MAX || schema >= CODEC_SCHEMAS_MAX)
        return -EBADMSG;
    *ret_target = (struct codec_target){.vcpu = (int32_t)id, .schema = (uint32_t)schema};
    return 0;
}

int codec_get_state(const uint8_t **at, const uint8_t *end, int64_t time_ns,
                    struct codec_state *ret_state)
{
    uint64_t offset = 0;
    if (*at == end)
        return -EBADMSG;
    uint8_t byte = *(*at)++;
    uint8_t status = byte & STATE_STATUS;
    if (byte & ~STATE_KNOWN || status > STATUS_LAST)
        return -EBADMSG;
    if (byte & STATE_OWN_TIME && !get_varint(at, end, &offset))
        return -EBADMSG;
    *ret_state = (struct codec_state){
        .status = status,
        .had_before = byte & STATE_HAD_BEFORE,
        .read_ns = (int64_t)((uint64_t)time_ns + unzigzag(offset)),
    };
    return 0;
}
