/* SPDX-License-Identifier: Apache-2.0 */
#include "kvmstats/kvmstats.h"

#include "sample.h"
#include "suites.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* From memory that ends where the file ends, so that the address sanitizer sees one byte more. */
static int decode_copy(const void *bytes, size_t len, struct kvmstats_schema **ret_schema,
                       struct kvmstats_error *ret_error)
{
    char *copy = malloc(len ? len : 1);
    ck_assert_ptr_nonnull(copy);
    memcpy(copy, bytes, len);
    int r = kvmstats_schema_decode(copy, len, ret_schema, ret_error);
    free(copy);
    return r;
}

static struct kvmstats_schema *decode_sample(const struct sample *file)
{
    struct kvmstats_error error = {.message = ""};
    struct kvmstats_schema *schema = NULL;
    int r = decode_copy(file, sizeof *file, &schema, &error);
    ck_assert_msg(r == 0, "%s", error.message);
    ck_assert_ptr_nonnull(schema);
    return schema;
}

static void refuse_bytes(const void *bytes, size_t len, const char *field, uint64_t value,
                         const char *message)
{
    struct kvmstats_schema *untouched = (void *)0x1, *schema = untouched;
    struct kvmstats_error error = {.value = 99};
    ck_assert_int_eq(decode_copy(bytes, len, &schema, &error), -EBADMSG);
    ck_assert_ptr_eq(schema, untouched);
    ck_assert_str_eq(error.field, field);
    ck_assert_msg(error.value == value, "%s: value %llu", error.message,
                  (unsigned long long)error.value);
    ck_assert_msg(strstr(error.message, message), "\"%s\" is not in \"%s\"", message,
                  error.message);
    for (const char *p = error.message; *p; p++)
        ck_assert_msg(*p >= 0x20 && *p <= 0x7e, "not printable: %s", error.message);
    ck_assert_int_eq(decode_copy(bytes, len, &schema, NULL), -EBADMSG);
}

START_TEST(every_field_is_decoded)
{
    struct sample file = sample_file();
    file.flags = 0x80000001;
    struct kvmstats_schema *schema = decode_sample(&file);
    ck_assert_str_eq(kvmstats_schema_id(schema), "kvm-77/vcpu-3");
    ck_assert_uint_eq(kvmstats_schema_flags(schema), 0x80000001);
    ck_assert_uint_eq(kvmstats_schema_data_offset(schema), 168);
    ck_assert_uint_eq(kvmstats_schema_data_bytes(schema), 64);
    ck_assert_uint_eq(kvmstats_schema_count(schema), 4);
    ck_assert_ptr_null(kvmstats_schema_desc(schema, 4));

    const struct kvmstats_desc *desc = kvmstats_schema_desc(schema, 3);
    ck_assert_str_eq(desc->name, "sizes");
    ck_assert_uint_eq(desc->flags, 0x113);
    ck_assert_uint_eq(desc->type, KVMSTATS_TYPE_LINEAR_HIST);
    ck_assert_uint_eq(desc->unit, KVMSTATS_UNIT_BYTES);
    ck_assert_uint_eq(desc->base, KVMSTATS_BASE_POW2);
    ck_assert(desc->known);
    ck_assert(kvmstats_is_histogram(desc));
    ck_assert_int_eq(desc->exponent, 10);
    ck_assert_uint_eq(desc->size, 2);
    ck_assert_uint_eq(desc->offset, 48);
    ck_assert_uint_eq(desc->bucket_size, 10);
    ck_assert_uint_eq(kvmstats_value(desc, file.data, 1), UINT64_MAX);

    desc = kvmstats_schema_find(schema, "wait_ns");
    ck_assert_ptr_eq(desc, kvmstats_schema_desc(schema, 1));
    ck_assert_int_eq(desc->exponent, -9);
    ck_assert(!kvmstats_is_histogram(desc));
    ck_assert_uint_eq(kvmstats_value(desc, file.data, 0), 1500000000);
    ck_assert_ptr_null(kvmstats_schema_find(schema, "wait"));
    ck_assert_ptr_null(kvmstats_schema_find(schema, ""));
    kvmstats_schema_free(schema);
    kvmstats_schema_free(NULL);
}
END_TEST

START_TEST(extent_is_known_from_the_header_alone)
{
    struct sample file = sample_file();
    size_t extent = 0;
    ck_assert_int_eq(kvmstats_header_extent(&file, 24, &extent, NULL), 0);
    ck_assert_uint_eq(extent, SAMPLE_EXTENT);
    /* The id behind everything. */
    file.id_offset = 1000;
    ck_assert_int_eq(kvmstats_header_extent(&file, 24, &extent, NULL), 0);
    ck_assert_uint_eq(extent, 1016);
    /* The data in front: it is jumped over, wherever it ends. */
    file.data_offset = 24;
    file.id_offset = 100;
    file.desc_offset = 200;
    ck_assert_int_eq(kvmstats_header_extent(&file, 24, &extent, NULL), 0);
    ck_assert_uint_eq(extent, 200 + 4 * 32);
    /* Nothing but the id. */
    file.num_desc = 0;
    ck_assert_int_eq(kvmstats_header_extent(&file, 24, &extent, NULL), 0);
    ck_assert_uint_eq(extent, 116);

    struct kvmstats_error error;
    ck_assert_int_eq(kvmstats_header_extent(&file, 23, &extent, &error), -EBADMSG);
    ck_assert_str_eq(error.field, "header");
    ck_assert_uint_eq(error.value, 23);
    file.name_size = UINT32_MAX;
    ck_assert_int_eq(kvmstats_header_extent(&file, 24, &extent, &error), -EBADMSG);
    ck_assert_str_eq(error.field, "name_size");
    ck_assert_uint_eq(extent, 116);
}
END_TEST

START_TEST(zero_descriptors_are_legal)
{
    struct sample file = sample_file();
    file.num_desc = 0;
    file.desc_offset = 0;
    file.data_offset = UINT32_MAX;
    struct kvmstats_schema *schema = decode_sample(&file);
    ck_assert_uint_eq(kvmstats_schema_count(schema), 0);
    ck_assert_uint_eq(kvmstats_schema_data_bytes(schema), 0);
    ck_assert_ptr_null(kvmstats_schema_desc(schema, 0));
    ck_assert_ptr_null(kvmstats_schema_find(schema, "exits"));
    kvmstats_schema_free(schema);
}
END_TEST

START_TEST(what_is_unknown_is_carried)
{
    static const struct {
        uint32_t flags;
        uint8_t type, unit, base;
        bool known;
    } cases[] = {
        {0x005, 5, 0, 0, false},    {0x00f, 15, 0, 0, false},    {0x050, 0, 5, 0, false},
        {0x0f3, 3, 15, 0, false},   {0x200, 0, 0, 2, false},     {0xf20, 0, 2, 15, false},
        {0xfff, 15, 15, 15, false}, {0xfffff000, 0, 0, 0, true}, {0x1000, 0, 0, 0, true},
        {0x144, 4, 4, 1, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sample file = sample_file();
        /* No rule binds exponent and unit where the meaning of either is unknown. */
        file.descs[0].exponent = cases[i].known ? 0 : (i % 2 ? INT16_MAX : INT16_MIN);
        file.descs[0].flags = cases[i].flags;
        file.descs[0].bucket_size = 7;
        struct kvmstats_schema *schema = decode_sample(&file);
        const struct kvmstats_desc *desc = kvmstats_schema_desc(schema, 0);
        ck_assert_uint_eq(desc->flags, cases[i].flags);
        ck_assert_uint_eq(desc->type, cases[i].type);
        ck_assert_uint_eq(desc->unit, cases[i].unit);
        ck_assert_uint_eq(desc->base, cases[i].base);
        ck_assert_msg(desc->known == cases[i].known, "flags %x", cases[i].flags);
        ck_assert_int_eq(desc->exponent, file.descs[0].exponent);
        ck_assert_uint_eq(desc->bucket_size, 7);
        ck_assert(kvmstats_is_histogram(desc) == (cases[i].known && cases[i].type >= 3));
        kvmstats_schema_free(schema);
    }
}
END_TEST

START_TEST(exponents_at_their_bounds_are_accepted)
{
    static const struct {
        uint32_t flags;
        int16_t exponent;
    } cases[] = {
        {0, 0},
        {0, 256},
        {SAMPLE_BYTES, 256},
        {SAMPLE_CYCLES, 256},
        {0x020, 0},
        {0x020, -256},
        {SAMPLE_SECONDS | 0x100, -256},
        {SAMPLE_BOOLEAN, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sample file = sample_file();
        file.descs[0].flags = cases[i].flags;
        file.descs[0].exponent = cases[i].exponent;
        kvmstats_schema_free(decode_sample(&file));
    }
}
END_TEST

START_TEST(blocks_need_no_alignment_and_no_order)
{
    /* data, then descriptors, then the id, all at odd offsets. */
    struct sample file = sample_file();
    char bytes[300] = {0};
    file.data_offset = 25;
    file.desc_offset = 91;
    file.id_offset = 221;
    memcpy(bytes, &file, 24);
    memcpy(bytes + 25, file.data, sizeof file.data);
    memcpy(bytes + 91, file.descs, sizeof file.descs);
    memcpy(bytes + 221, file.id, sizeof file.id);
    struct kvmstats_schema *schema = NULL;
    ck_assert_int_eq(decode_copy(bytes, 237, &schema, NULL), 0);
    ck_assert_str_eq(kvmstats_schema_id(schema), "kvm-77/vcpu-3");
    const struct kvmstats_desc *desc = kvmstats_schema_find(schema, "sizes");
    ck_assert_uint_eq(kvmstats_value(desc, bytes + 25, 0), 50);
    kvmstats_schema_free(schema);
    refuse_bytes(bytes, 236, "id", 236, "file ends at byte 236");
}
END_TEST

START_TEST(adjacent_statistics_do_not_overlap)
{
    /* In another order than that of their data, unaligned, with a hole. */
    struct sample file = sample_file();
    file.descs[0].offset = 57;
    file.descs[1].offset = 0;
    file.descs[2].offset = 25;
    file.descs[3].offset = 9;
    struct kvmstats_schema *schema = decode_sample(&file);
    ck_assert_uint_eq(kvmstats_schema_data_bytes(schema), 65);
    kvmstats_schema_free(schema);
}
END_TEST

START_TEST(names_may_repeat)
{
    struct sample file = sample_file();
    memcpy(file.descs[1].name, file.descs[0].name, sizeof file.descs[0].name);
    struct kvmstats_schema *schema = decode_sample(&file);
    ck_assert_ptr_eq(kvmstats_schema_find(schema, "exits"), kvmstats_schema_desc(schema, 0));
    ck_assert_str_eq(kvmstats_schema_desc(schema, 1)->name, "exits");
    kvmstats_schema_free(schema);
}
END_TEST

START_TEST(names_of_any_bytes_are_kept)
{
    struct sample file = sample_file();
    memcpy(file.descs[0].name, "\xff\n\"{}\x01 longest", 15);
    struct kvmstats_schema *schema = decode_sample(&file);
    ck_assert_str_eq(kvmstats_schema_desc(schema, 0)->name, file.descs[0].name);
    ck_assert_uint_eq(strlen(file.descs[0].name), 14);
    kvmstats_schema_free(schema);
}
END_TEST

#define AT(member)  offsetof(struct sample, member), sizeof(((struct sample *)0)->member)
#define NEG(number) ((uint64_t)(int64_t)(number))

static const struct refusal {
    size_t offset, bytes; /* of the field that is overwritten */
    uint64_t with;
    const char *field;
    uint64_t value;
    const char *message;
} refusals[] = {
    {AT(name_size), 0, "name_size", 0, "name_size is 0"},
    {AT(name_size), 4097, "name_size", 4097, "over the limit of 4096"},
    {AT(name_size), UINT32_MAX, "name_size", UINT32_MAX, "name_size is 4294967295"},
    {AT(num_desc), 65537, "num_desc", 65537, "over the limit of 65536"},
    {AT(num_desc), UINT32_MAX, "num_desc", UINT32_MAX, "num_desc is 4294967295"},
    {AT(id_offset), 0, "id_offset", 0, "overlap the header"},
    {AT(id_offset), 23, "id_offset", 23, "overlap the header"},
    {AT(id_offset), UINT32_MAX, "id_offset", UINT32_MAX, "would end at 4294967311"},
    {AT(id_offset), (16 << 20) - 15, "id_offset", (16 << 20) - 15, "past the limit"},
    {AT(id_offset), 41, "desc_offset", 40, "overlap the id (41 to 57)"},
    {AT(id_offset), 200, "id", 200, "does not begin with \"kvm\""},
    {AT(id_offset), 217, "id", sizeof(struct sample), "the id stands at 217 to 233"},
    {AT(id[2]), 'n', "id", 24, "\"kvn-77/vcpu-3\""},
    {AT(id[0]), 0, "id", 24, "does not begin"},
    {AT(id[2]), 0, "id", 24, "does not begin"},
    {AT(desc_offset), 0, "desc_offset", 0, "overlap the header"},
    {AT(desc_offset), 23, "desc_offset", 23, "overlap the header"},
    {AT(desc_offset), 39, "desc_offset", 39, "overlap the id (24 to 40)"},
    {AT(desc_offset), UINT32_MAX, "desc_offset", UINT32_MAX, "would end at 4294967423"},
    {AT(desc_offset), 0xffffff80, "desc_offset", 0xffffff80, "would end at 4294967296"},
    {AT(data_offset), 0, "data_offset", 0, "overlap the header"},
    {AT(data_offset), 23, "data_offset", 23, "overlap the header"},
    {AT(data_offset), 24, "data_offset", 24, "overlaps the id (24 to 40)"},
    {AT(data_offset), 40, "data_offset", 40, "overlaps the descriptors (40 to 168)"},
    {AT(data_offset), 167, "data_offset", 167, "overlaps the descriptors"},
    {AT(data_offset), UINT32_MAX, "data_offset", UINT32_MAX, "past the limit of 16777216"},
    {AT(data_offset), (16 << 20) - 56, "descriptor 3: offset", 48, "descriptor 3 (\"sizes\")"},
    {AT(descs[2].size), 0, "descriptor 2: size", 0, "descriptor 2 (\"wait_hist\"): size is 0"},
    {AT(descs[2].size), 5, "descriptor 3: offset", 48, "(\"wait_hist\") has its data at 16 to 56"},
    {AT(descs[2].size), 65535, "descriptor 3: offset", 48, "has its data at 16 to 524296"},
    {AT(descs[0].offset), 8, "descriptor 1: offset", 8, "descriptor 0 (\"exits\")"},
    {AT(descs[0].offset), 1, "descriptor 1: offset", 8, "descriptor 0 (\"exits\") has its data"},
    {AT(descs[0].offset), 63, "descriptor 0: offset", 63, "descriptor 3 (\"sizes\") has its data"},
    {AT(descs[0].offset), UINT32_MAX, "descriptor 0: offset", UINT32_MAX, "4294967471"},
    {AT(descs[0].offset), 0xfffffff8, "descriptor 0: offset", 0xfffffff8, "past the limit"},
    {AT(descs[3].bucket_size), 0, "descriptor 3: bucket_size", 0, "bucket_size is 0"},
    {AT(descs[0].exponent), NEG(-1), "descriptor 0: exponent", NEG(-1), "must not be negative"},
    {AT(descs[3].exponent), NEG(-1), "descriptor 3: exponent", NEG(-1), "must not be negative"},
    {AT(descs[0].exponent), 257, "descriptor 0: exponent", 257, "over the limit"},
    {AT(descs[0].exponent), INT16_MAX, "descriptor 0: exponent", INT16_MAX, "exponent is 32767"},
    {AT(descs[1].exponent), 1, "descriptor 1: exponent", 1, "must not be positive"},
    {AT(descs[1].exponent), NEG(-257), "descriptor 1: exponent", NEG(-257), "over the limit"},
    {AT(descs[1].exponent), NEG(INT16_MIN), "descriptor 1: exponent", NEG(INT16_MIN), "-32768"},
    {AT(descs[1].flags), SAMPLE_BOOLEAN, "descriptor 1: exponent", NEG(-9), "must be 0"},
    {AT(descs[1].flags), SAMPLE_CYCLES, "descriptor 1: exponent", NEG(-9), "must not be negative"},
    {AT(descs[1].name[0]), 0, "descriptor 1: name", 0, "descriptor 1 (\"\"): name is empty"},
    {AT(descs[1].name[0]), 0x0a, "", 0, ""},
};

static void overwrite(struct sample *file, const struct refusal *refusal)
{
    uint8_t u8 = (uint8_t)refusal->with;
    uint16_t u16 = (uint16_t)refusal->with;
    uint32_t u32 = (uint32_t)refusal->with;
    const void *from = refusal->bytes == 1   ? (const void *)&u8
                       : refusal->bytes == 2 ? (const void *)&u16
                                             : (const void *)&u32;
    memcpy((char *)file + refusal->offset, from, refusal->bytes);
}

START_TEST(each_broken_field_is_named_with_its_value)
{
    struct sample file = sample_file();
    const struct refusal *refusal = &refusals[_i];
    overwrite(&file, refusal);
    if (*refusal->field)
        refuse_bytes(&file, sizeof file, refusal->field, refusal->value, refusal->message);
    else
        kvmstats_schema_free(decode_sample(&file));
}
END_TEST

START_TEST(texts_must_be_terminated)
{
    struct sample file = sample_file();
    memset(file.id, 'k', sizeof file.id);
    refuse_bytes(&file, sizeof file, "id", 16, "(\"kkkkkkkkkkkkkkkk\"): not terminated");
    file = sample_file();
    memset(file.descs[2].name, 'n', sizeof file.descs[2].name);
    refuse_bytes(&file, sizeof file, "descriptor 2: name", 16, "not terminated in its 16 bytes");
    /* The last bytes of the file: nothing behind them may be looked at. */
    file = sample_file();
    memset(file.descs[3].name, 'n', sizeof file.descs[3].name);
    refuse_bytes(&file, SAMPLE_EXTENT, "descriptor 3: name", 16, "(\"nnnnnnnnnnnnnnnn\")");
}
END_TEST

START_TEST(names_in_messages_are_printable)
{
    struct sample file = sample_file();
    memcpy(file.descs[1].name, "a\nb\x1b\xff\x7f", 7);
    file.descs[1].size = 0;
    refuse_bytes(&file, sizeof file, "descriptor 1: size", 0, "descriptor 1 (\"a?b???\"): size");
}
END_TEST

START_TEST(long_names_do_not_hide_the_reason)
{
    struct {
        struct sample file;
        char rest[2 * (16 + 4096)];
    } big = {.file = sample_file()};
    char *desc = (char *)&big + 1000;
    char *id = (char *)&big + 5200;
    big.file.name_size = 4096;
    big.file.num_desc = 1;
    big.file.desc_offset = 1000;
    big.file.data_offset = 200;
    memcpy(desc, &(struct sample_desc){.size = 0}, 16);
    memset(desc + 16, 'x', 4095);
    big.file.id_offset = (uint32_t)(id - (char *)&big);
    memcpy(id, "kvm", 4);
    struct kvmstats_schema *schema = NULL;
    struct kvmstats_error error;
    /* Only as far as the id is there: the file is cut, the descriptor is not. */
    ck_assert_int_eq(decode_copy(&big, sizeof big, &schema, &error), -EBADMSG);
    ck_assert_str_eq(error.field, "id");
    big.file.name_size = 3000;
    ck_assert_int_eq(decode_copy(&big, sizeof big, &schema, &error), -EBADMSG);
    ck_assert_str_eq(error.field, "descriptor 0: name");
    desc[16 + 2999] = '\0';
    ck_assert_int_eq(decode_copy(&big, sizeof big, &schema, &error), -EBADMSG);
    ck_assert_str_eq(error.field, "descriptor 0: size");
    ck_assert_ptr_nonnull(strstr(error.message, "xxx\"): size is 0"));
}
END_TEST

START_TEST(what_is_cut_off_is_named)
{
    static const struct {
        size_t len;
        const char *field, *message;
    } cases[] = {
        {0, "header", "only 0 of its 24 bytes"},
        {23, "header", "only 23 of its 24 bytes"},
        {24, "id", "ends at byte 24"},
        {39, "id", "stands at 24 to 40"},
        {40, "descriptors", "descriptor 0 of 4 stands at 40 to 72"},
        {71, "descriptors", "ends at byte 71, descriptor 0"},
        {72, "descriptors", "descriptor 1 of 4"},
        {167, "descriptors", "descriptor 3 of 4 stands at 136 to 168"},
    };
    struct sample file = sample_file();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        refuse_bytes(&file, cases[i].len, cases[i].field, cases[i].len, cases[i].message);
    /* Cut off before the descriptors begin. */
    file.desc_offset = 1000;
    refuse_bytes(&file, 100, "descriptors", 100, "descriptor 0 of 4 stands at 1000 to 1032");
    file.desc_offset = 40;
    /* The data are not looked at. */
    struct kvmstats_schema *schema = NULL;
    ck_assert_int_eq(decode_copy(&file, SAMPLE_EXTENT, &schema, NULL), 0);
    kvmstats_schema_free(schema);
}
END_TEST

START_TEST(schemas_compare_by_what_a_reader_relies_on)
{
    struct sample file = sample_file();
    struct kvmstats_schema *schema = decode_sample(&file);
    ck_assert(kvmstats_schema_equal(schema, schema));

    struct sample other = sample_file();
    strcpy(other.id, "kvm-1/vcpu-0");
    other.data[0]++;
    struct kvmstats_schema *same = decode_sample(&other);
    ck_assert(kvmstats_schema_equal(schema, same));
    kvmstats_schema_free(same);

    static const struct refusal changes[] = {
        {AT(flags), 1, "", 0, ""},
        {AT(num_desc), 3, "", 0, ""},
        {AT(data_offset), 169, "", 0, ""},
        {AT(descs[0].flags), SAMPLE_INSTANT, "", 0, ""},
        {AT(descs[0].flags), 0x1000, "", 0, ""},
        {AT(descs[0].exponent), 1, "", 0, ""},
        {AT(descs[0].bucket_size), 1, "", 0, ""},
        {AT(descs[2].size), 3, "", 0, ""},
        {AT(descs[0].offset), 64, "", 0, ""},
        {AT(descs[0].name[0]), 'E', "", 0, ""},
        {AT(descs[0].name[5]), 'E', "", 0, ""},
    };
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        other = sample_file();
        overwrite(&other, &changes[i]);
        struct kvmstats_schema *differs = decode_sample(&other);
        ck_assert_msg(!kvmstats_schema_equal(schema, differs), "change %zu", i);
        ck_assert_msg(!kvmstats_schema_equal(differs, schema), "change %zu", i);
        kvmstats_schema_free(differs);
    }
    kvmstats_schema_free(schema);
}
END_TEST

/* The limits themselves are inside. */
START_TEST(the_largest_files_are_decoded)
{
    enum {
        N = 65536,
        STRIDE = 16 + 8
    };
    size_t len = 24 + 8 + (size_t)N * STRIDE;
    char *bytes = calloc(1, len);
    ck_assert_ptr_nonnull(bytes);
    uint32_t header[6] = {0, 8, N, 24, 32, (16u << 20) - 8u * N};
    memcpy(bytes, header, sizeof header);
    memcpy(bytes + 24, "kvm-1", 6);
    for (size_t i = 0; i < N; i++) {
        char *desc = bytes + 32 + i * STRIDE;
        uint16_t size = 1;
        uint32_t offset = (uint32_t)(N - 1 - i) * 8;
        memcpy(desc + 6, &size, sizeof size);
        memcpy(desc + 8, &offset, sizeof offset);
        snprintf(desc + 16, 8, "s%zu", i);
    }
    struct kvmstats_schema *schema = NULL;
    struct kvmstats_error error = {.message = ""};
    int r = kvmstats_schema_decode(bytes, len, &schema, &error);
    ck_assert_msg(r == 0, "%s", error.message);
    ck_assert_uint_eq(kvmstats_schema_count(schema), N);
    ck_assert_uint_eq(kvmstats_schema_data_bytes(schema), 8u * N);
    ck_assert_str_eq(kvmstats_schema_desc(schema, N - 1)->name, "s65535");
    kvmstats_schema_free(schema);

    header[5]++;
    memcpy(bytes, header, sizeof header);
    ck_assert_int_eq(kvmstats_schema_decode(bytes, len, &schema, &error), -EBADMSG);
    ck_assert_str_eq(error.field, "descriptor 0: offset");
    free(bytes);
}
END_TEST

Suite *decode_suite(void)
{
    Suite *suite = suite_create("decode");
    TCase *tcase = tcase_create("decode");
    tcase_add_test(tcase, every_field_is_decoded);
    tcase_add_test(tcase, extent_is_known_from_the_header_alone);
    tcase_add_test(tcase, zero_descriptors_are_legal);
    tcase_add_test(tcase, what_is_unknown_is_carried);
    tcase_add_test(tcase, exponents_at_their_bounds_are_accepted);
    tcase_add_test(tcase, blocks_need_no_alignment_and_no_order);
    tcase_add_test(tcase, adjacent_statistics_do_not_overlap);
    tcase_add_test(tcase, names_may_repeat);
    tcase_add_test(tcase, names_of_any_bytes_are_kept);
    tcase_add_loop_test(tcase, each_broken_field_is_named_with_its_value, 0,
                        sizeof refusals / sizeof refusals[0]);
    tcase_add_test(tcase, texts_must_be_terminated);
    tcase_add_test(tcase, names_in_messages_are_printable);
    tcase_add_test(tcase, long_names_do_not_hide_the_reason);
    tcase_add_test(tcase, what_is_cut_off_is_named);
    tcase_add_test(tcase, schemas_compare_by_what_a_reader_relies_on);
    tcase_add_test(tcase, the_largest_files_are_decoded);
    suite_add_tcase(suite, tcase);
    return suite;
}
