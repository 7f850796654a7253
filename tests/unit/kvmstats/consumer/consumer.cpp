// SPDX-License-Identifier: Apache-2.0
// A C++11 program that uses the header and the shared library as a stranger would. The same file is
// compiled as strict C11 by way of consumer.c, and against the installed library by install.py.
#include <kvmstats/kvmstats.h>

#include <stdio.h>
#include <string.h>

static int tests, failures;

static void expect(bool good, const char *what)
{
    tests++;
    failures += !good;
    printf("%s %d - %s\n", good ? "ok" : "not ok", tests, what);
}

static size_t make_file(char *file, size_t capacity)
{
    static const uint64_t data[] = {42, 1023};
    struct kvmstats_desc descs[2];
    struct kvmstats_model model;
    memset(descs, 0, sizeof descs);
    memset(&model, 0, sizeof model);
    descs[0].name = "exits";
    descs[0].size = 1;
    descs[1].name = "wait_ns";
    descs[1].flags = KVMSTATS_UNIT_SECONDS << 4;
    descs[1].exponent = -9;
    descs[1].size = 1;
    descs[1].offset = 8;
    model.name_size = 16;
    model.id_offset = KVMSTATS_HEADER_BYTES;
    model.desc_offset = KVMSTATS_HEADER_BYTES + 16;
    model.data_offset = KVMSTATS_HEADER_BYTES + 16 + 2 * 32;
    model.id = "kvm-1";
    model.descs = descs;
    model.num_desc = 2;
    model.data = data;
    model.data_bytes = sizeof data;
    return kvmstats_encode(&model, file, capacity);
}

int main(void)
{
    char file[256], decimal[KVMSTATS_DECIMAL_BYTES];
    struct kvmstats_schema *schema = NULL;
    struct kvmstats_error error;
    size_t extent = 0;
    const struct kvmstats_desc *wait;

    size_t len = make_file(file, sizeof file);
    expect(len > 0, "encode");
    expect(kvmstats_header_extent(file, len, &extent, &error) == 0 && extent < len, "extent");
    expect(kvmstats_schema_decode(file, extent, &schema, &error) == 0, "decode");
    wait = kvmstats_schema_find(schema, "wait_ns");
    expect(wait && !kvmstats_is_histogram(wait), "find");
    kvmstats_format_scaled(decimal,
                           kvmstats_value(wait, file + kvmstats_schema_data_offset(schema), 0),
                           wait->base, wait->exponent);
    expect(strcmp(decimal, "0.000001023") == 0, "value");
    kvmstats_schema_free(schema);
    expect(kvmstats_schema_decode(file, extent - 1, &schema, &error) < 0 && error.message[0],
           "refusal");
    printf("1..%d\n", tests);
    return failures != 0;
}
