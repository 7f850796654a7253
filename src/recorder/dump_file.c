/* SPDX-License-Identifier: Apache-2.0 */
#include "dump_file.h"

#include <inttypes.h>
#include <libdeflate.h>
#include <stdarg.h>
#include <stdio.h>

#include "bytes.h"

enum {
    MAGIC_BYTES = 8,
    BEGIN_BYTES = 16,   /* magic, version, byte order */
    SECTION_BYTES = 16, /* tag, checksum, length */
    RECORDING_BYTES = 16,
    ALIGNMENT = 8,
    BYTE_ORDER_MARK = 0x01020304,
    NAME_STEP = 8,
    /* Of LAST records that are made here; as the recorder's scratch. */
    LAST_BYTES_MAX = 16 << 20,
};

static const char magic[MAGIC_BYTES] = {'K', 'V', 'M', 'S', 'T', 'A', 'T', 'D'};

/* --- writing --- */

static void put_number32(struct buffer *to, uint32_t value)
{
    uint8_t bytes[4];
    (void)put_u32(bytes, value);
    buffer_put(to, bytes, sizeof bytes);
}

static void put_number64(struct buffer *to, uint64_t value)
{
    uint8_t bytes[8];
    (void)put_u64(bytes, value);
    buffer_put(to, bytes, sizeof bytes);
}

void dump_put_begin(struct buffer *to)
{
    static const uint32_t byte_order = BYTE_ORDER_MARK;
    buffer_put(to, magic, sizeof magic);
    put_number32(to, DUMP_VERSION);
    buffer_put(to, &byte_order, sizeof byte_order); /* as this machine has it */
}

size_t dump_begin_section(struct buffer *to, const char tag[4])
{
    size_t began = to->len;
    buffer_put(to, tag, 4);
    put_number32(to, 0);
    put_number64(to, 0);
    return began;
}

void dump_end_section(struct buffer *to, size_t began)
{
    static const char zeros[ALIGNMENT];
    if (to->error)
        return;
    uint8_t *head = (uint8_t *)to->data + began;
    size_t len = to->len - began - SECTION_BYTES;
    (void)put_u64(head + 8, len);
    /* Over the tag and the length too: either of them wrong would be a section of another kind. */
    uint32_t crc = libdeflate_crc32(0, head, 4);
    (void)put_u32(head + 4, libdeflate_crc32(crc, head + 8, 8 + len));
    buffer_put(to, zeros, (ALIGNMENT - len % ALIGNMENT) % ALIGNMENT);
}

void dump_put_pair(struct buffer *to, const char *name, const char *value)
{
    buffer_put(to, name, strlen(name) + 1);
    buffer_put(to, value, strlen(value) + 1);
}

void dump_put_pair_i64(struct buffer *to, const char *name, int64_t value)
{
    char text[24];
    (void)snprintf(text, sizeof text, "%" PRId64, value);
    dump_put_pair(to, name, text);
}

static uint32_t name_room(const struct kvmstats_schema *schema)
{
    size_t longest = strlen(kvmstats_schema_id(schema));
    for (size_t i = 0; i < kvmstats_schema_count(schema); i++)
        longest = MAX_OF(longest, strlen(kvmstats_schema_desc(schema, i)->name));
    return (uint32_t)(longest / NAME_STEP + 1) * NAME_STEP;
}

void dump_put_schema(struct buffer *to, const struct schema *schema)
{
    size_t n = kvmstats_schema_count(schema->decoded);
    uint32_t name_size = name_room(schema->decoded);
    struct kvmstats_model model = {
        .flags = kvmstats_schema_flags(schema->decoded),
        .name_size = name_size,
        .id_offset = KVMSTATS_HEADER_BYTES,
        .desc_offset = KVMSTATS_HEADER_BYTES + name_size,
        .id = kvmstats_schema_id(schema->decoded),
        .descs = n ? kvmstats_schema_desc(schema->decoded, 0) : NULL,
        .num_desc = (uint32_t)n,
    };
    size_t room = model.desc_offset + n * (16 + (size_t)name_size);
    model.data_offset = (uint32_t)room;
    size_t began = dump_begin_section(to, "SCHM");
    put_number32(to, schema->index);
    put_number32(to, schema->scope);
    char *file = buffer_reserve(to, room);
    if (!file)
        return;
    size_t len = kvmstats_encode(&model, file, room);
    to->len += len;
    if (len == 0)
        to->error = -EBADMSG; /* cannot be: it was decoded */
    dump_end_section(to, began);
}

void dump_put_recording(struct buffer *to, int64_t first_ns, const uint8_t *bytes, size_t len,
                        const uint8_t *last, size_t last_len)
{
    size_t began = dump_begin_section(to, "TICK");
    put_number64(to, (uint64_t)first_ns);
    put_number32(to, CODEC_VERSION);
    put_number32(to, 0);
    buffer_put(to, bytes, len);
    if (last_len)
        buffer_put(to, last, last_len);
    dump_end_section(to, began);
}

void dump_put_end(struct buffer *to)
{
    dump_end_section(to, dump_begin_section(to, "DONE"));
}

static int shapes_of(const struct frame *frame, const struct layout_vm *vm,
                     struct codec_shape *shapes, size_t *ret_room)
{
    const struct layout_target *targets = &frame->layout->targets[vm->first_target];
    size_t room = CODEC_HEAD_ROOM;
    for (uint32_t i = 0; i < vm->n_targets; i++) {
        struct codec_shape *shape = &shapes[targets[i].schema->index];
        int r = shape->n_cells ? 0 : codec_shape_init(shape, targets[i].schema->decoded);
        if (r < 0)
            return r;
        room += CODEC_TARGET_ROOM + CODEC_STATE_ROOM + codec_block_room(shape);
    }
    *ret_room = room;
    return room > LAST_BYTES_MAX ? -E2BIG : 0;
}

static int put_last(struct buffer *to, const struct frame *frame, const struct layout_vm *vm,
                    int64_t tick_ns, struct codec_shape *shapes)
{
    const struct layout_target *targets = &frame->layout->targets[vm->first_target];
    struct codec_writer w;
    size_t room, len;
    int r = shapes_of(frame, vm, shapes, &room);
    if (r < 0)
        return r;
    uint8_t *at = (uint8_t *)buffer_reserve(to, room);
    if (!at)
        return to->error;
    codec_begin(&w, at, RECORD_LAST, tick_ns, tick_ns, false, vm->n_targets);
    for (uint32_t i = 0; i < vm->n_targets; i++)
        codec_put_target(&w, &(struct codec_target){targets[i].vcpu, targets[i].schema->index});
    for (uint32_t i = 0; i < vm->n_targets; i++) {
        bool present = frame->status[vm->first_target + i] != TARGET_ABSENT;
        codec_put_state(&w, &(struct codec_state){.had_before = present, .read_ns = tick_ns});
        if (present)
            w.to = codec_put_block(w.to, &shapes[targets[i].schema->index],
                                   frame_block(frame, &targets[i]), NULL);
    }
    const uint8_t *record = codec_end(&w, &len);
    if (!record)
        return -E2BIG;
    memmove(at, record, len); /* what codec_begin() kept free for the length goes */
    to->len += len;
    return 0;
}

int dump_put_last(struct buffer *to, const struct frame *frame, const struct layout_vm *vm,
                  int64_t tick_ns)
{
    CLEANUP_FREE struct codec_shape *shapes = calloc(CODEC_SCHEMAS_MAX, sizeof *shapes);
    return shapes ? put_last(to, frame, vm, tick_ns, shapes) : -ENOMEM;
}

/* --- reading --- */

static bool next_pair(const struct dump_pairs *pairs, size_t *at, const char **ret_name,
                      const char **ret_value)
{
    const char *strings[2];
    for (size_t i = 0; i < ARRAY_LEN(strings); i++) {
        size_t left = pairs->len - *at;
        if (left == 0)
            return false; /* also where the section is not there */
        strings[i] = pairs->bytes + *at;
        size_t len = strnlen(strings[i], left);
        if (len == left)
            return false; /* it does not end */
        *at += len + 1;
    }
    *ret_name = strings[0];
    *ret_value = strings[1];
    return true;
}

const char *dump_pair(const struct dump_pairs *pairs, const char *name)
{
    const char *found, *value;
    size_t at = 0;
    while (next_pair(pairs, &at, &found, &value)) {
        if (strcmp(found, name) == 0)
            return value;
    }
    return "";
}

int64_t dump_pair_i64(const struct dump_pairs *pairs, const char *name)
{
    return strtoll(dump_pair(pairs, name), NULL, 10);
}

struct section {
    char tag[5];
    const uint8_t *bytes;
    size_t len;
};

PRINTF_LIKE(2, 3)
static int refuse(struct dump_error *error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(error->message, sizeof error->message, format, args);
    va_end(args);
    return -EBADMSG;
}

static int read_pairs(const struct section *section, struct dump_pairs *ret_pairs,
                      struct dump_error *error)
{
    const struct dump_pairs pairs = {(const char *)section->bytes, section->len};
    const char *name, *value;
    size_t at = 0;
    while (next_pair(&pairs, &at, &name, &value)) {
    }
    if (at != pairs.len)
        return refuse(error, "section %s: a pair does not end", section->tag);
    *ret_pairs = pairs;
    return 0;
}

static int read_schema(struct dump *dump, const struct section *section, struct dump_error *error)
{
    struct kvmstats_schema *schema;
    struct kvmstats_error why;
    if (section->len < 8)
        return refuse(error, "section SCHM: %zu bytes are too few", section->len);
    uint32_t number = get_u32(section->bytes);
    if (number >= CODEC_SCHEMAS_MAX || dump->schemas.decoded[number])
        return refuse(error, "section SCHM: number %" PRIu32 " is out of range or stands twice",
                      number);
    int r = kvmstats_schema_decode(section->bytes + 8, section->len - 8, &schema, &why);
    if (r == -EBADMSG)
        return refuse(error, "section SCHM: %s", why.message);
    if (r < 0)
        return r;
    r = replay_schemas_add(&dump->schemas, number, schema);
    if (r < 0) {
        kvmstats_schema_free(schema);
        return refuse(error, "section SCHM: its blocks are larger than any that is recorded");
    }
    return 0;
}

static int read_vm(struct dump *dump, const struct section *section, struct dump_error *error)
{
    struct dump_vm *vms = reallocarray(dump->vms, dump->n_vms + 1, sizeof *vms);
    if (!vms)
        return -ENOMEM;
    dump->vms = vms;
    vms[dump->n_vms] = (struct dump_vm){0};
    int r = read_pairs(section, &vms[dump->n_vms].about, error);
    if (r == 0)
        dump->n_vms++;
    return r;
}

static int read_recording(const struct dump *dump, const struct section *section,
                          struct dump_error *error)
{
    struct dump_vm *vm = dump->n_vms ? &dump->vms[dump->n_vms - 1] : NULL;
    if (!vm || vm->records)
        return refuse(error, "section TICK: there is no VM that it belongs to");
    if (section->len < RECORDING_BYTES)
        return refuse(error, "section TICK: %zu bytes are too few", section->len);
    uint32_t version = get_u32(section->bytes + 8);
    if (version != CODEC_VERSION)
        return refuse(error, "section TICK: records of version %" PRIu32 ", this reads %d", version,
                      CODEC_VERSION);
    vm->first_ns = (int64_t)get_u64(section->bytes);
    vm->records = section->bytes + RECORDING_BYTES;
    vm->len = section->len - RECORDING_BYTES;
    return 0;
}

static int read_section(struct dump *dump, const struct section *section, struct dump_error *error)
{
    if (strcmp(section->tag, "HOST") == 0)
        return read_pairs(section, &dump->about, error);
    if (strcmp(section->tag, "SCHM") == 0)
        return read_schema(dump, section, error);
    if (strcmp(section->tag, "VMID") == 0)
        return read_vm(dump, section, error);
    if (strcmp(section->tag, "TICK") == 0)
        return read_recording(dump, section, error);
    if (strcmp(section->tag, "DONE") == 0)
        dump->truncated = false;
    return 0; /* of a later version, which can be read without */
}

/* Returns 1 and the section at *at, 0 where the bytes end too early, or -EBADMSG. */
static int next_section(const uint8_t **at, const uint8_t *end, struct section *ret_section,
                        struct dump_error *error)
{
    const uint8_t *head = *at;
    if (end - head < SECTION_BYTES)
        return 0;
    struct section section = {.bytes = head + SECTION_BYTES};
    memcpy(section.tag, head, 4);
    for (size_t i = 0; i < 4; i++) {
        if (section.tag[i] < ' ' || section.tag[i] > '~')
            return refuse(error, "what should be a section does not look like one");
    }
    uint64_t len = get_u64(head + 8);
    uint64_t left = (uint64_t)(end - section.bytes);
    if (len > left)
        return 0;
    section.len = (size_t)len;
    uint32_t crc = libdeflate_crc32(libdeflate_crc32(0, head, 4), head + 8, 8 + section.len);
    if (crc != get_u32(head + 4))
        return refuse(error, "section %s: its checksum is wrong", section.tag);
    uint64_t padded = len + (ALIGNMENT - len % ALIGNMENT) % ALIGNMENT;
    *at = padded > left ? end : section.bytes + padded;
    *ret_section = section;
    return 1;
}

static int read_begin(const uint8_t *bytes, size_t len, struct dump_error *error)
{
    uint32_t byte_order;
    if (len < BEGIN_BYTES || memcmp(bytes, magic, sizeof magic) != 0)
        return refuse(error, "this is no dump of kvmstatd");
    uint32_t version = get_u32(bytes + MAGIC_BYTES);
    if (version != DUMP_VERSION)
        return refuse(error, "a dump of version %" PRIu32 ", this reads %d", version, DUMP_VERSION);
    memcpy(&byte_order, bytes + MAGIC_BYTES + 4, sizeof byte_order);
    if (byte_order != BYTE_ORDER_MARK)
        return refuse(error, "a dump of a machine with another byte order");
    return 0;
}

int dump_read(const uint8_t *bytes, size_t len, struct dump *ret_dump, struct dump_error *ret_error)
{
    struct section section;
    int r = read_begin(bytes, len, ret_error);
    if (r < 0)
        return r;
    const uint8_t *at = bytes + BEGIN_BYTES, *end = bytes + len;
    CLEANUP_DUMP struct dump dump = {.truncated = true};
    while ((r = next_section(&at, end, &section, ret_error)) > 0 && dump.truncated) {
        r = read_section(&dump, &section, ret_error);
        if (r < 0)
            break;
    }
    if (r < 0)
        return r;
    *ret_dump = dump;
    dump = (struct dump){0};
    return 0;
}

void dump_free(struct dump *dump)
{
    for (size_t i = 0; i < CODEC_SCHEMAS_MAX; i++) {
        struct kvmstats_schema *schema;
        memcpy(&schema, &dump->schemas.decoded[i], sizeof schema); /* ours, though const there */
        kvmstats_schema_free(schema);
    }
    free(dump->vms);
    *dump = (struct dump){0};
}
