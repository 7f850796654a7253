/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For test_architectures.py: what becomes of whole statistics files, of whatever kernel.
 *
 *     exposition-blobs order                       "little" or "big": which files are ours to read
 *     exposition-blobs copy FILE                   decodes it, encodes that, writes it out
 *     exposition-blobs FORMAT HISTOGRAMS VM [VCPU]...
 *                                                  the exposition of a VM with these files; FORMAT:
 *                                                  text, openmetrics, protobuf; HISTOGRAMS: vcpu,
 *                                                  vm
 *
 * A file that is refused: exit status 1, and the reason on standard error.
 */
#include <errno.h>
#include <string.h>

#include "stage.h"

enum {
    FILE_BYTES_MAX = 1 << 20,
    VCPUS_MAX = 64,
};

struct blob {
    uint8_t *bytes;
    size_t len;
    struct kvmstats_schema *decoded;
};

static void give_up(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    exit(EXIT_FAILURE);
}

static struct blob blob_read(const char *path)
{
    struct blob blob = {.bytes = malloc(FILE_BYTES_MAX)};
    FILE *file = fopen(path, "re");
    if (!file || !blob.bytes)
        give_up(path, strerror(errno));
    blob.len = fread(blob.bytes, 1, FILE_BYTES_MAX, file);
    (void)fclose(file);

    struct kvmstats_error error;
    size_t extent;
    if (kvmstats_header_extent(blob.bytes, blob.len, &extent, &error) < 0 ||
        kvmstats_schema_decode(blob.bytes, blob.len, &blob.decoded, &error) < 0)
        give_up(path, error.message);
    if (extent > blob.len ||
        kvmstats_schema_data_offset(blob.decoded) + kvmstats_schema_data_bytes(blob.decoded) >
            blob.len)
        give_up(path, "it ends too early");
    return blob;
}

static const uint8_t *blob_data(const struct blob *blob)
{
    return blob->bytes + kvmstats_schema_data_offset(blob->decoded);
}

static int copy(const char *path)
{
    struct blob blob = blob_read(path);
    size_t n = kvmstats_schema_count(blob.decoded);
    CLEANUP_FREE struct kvmstats_desc *descs = calloc(n ? n : 1, sizeof *descs);
    CLEANUP_FREE uint8_t *bytes = malloc(FILE_BYTES_MAX);
    if (!descs || !bytes)
        give_up(path, strerror(errno));
    for (size_t i = 0; i < n; i++)
        descs[i] = *kvmstats_schema_desc(blob.decoded, i);
    const struct kvmstats_model model = {
        .flags = kvmstats_schema_flags(blob.decoded),
        .name_size = 48,
        .id_offset = KVMSTATS_HEADER_BYTES,
        .desc_offset = KVMSTATS_HEADER_BYTES + 48,
        .data_offset = kvmstats_schema_data_offset(blob.decoded),
        .id = kvmstats_schema_id(blob.decoded),
        .descs = descs,
        .num_desc = (uint32_t)n,
        .data = blob_data(&blob),
        .data_bytes = kvmstats_schema_data_bytes(blob.decoded),
    };
    size_t len = kvmstats_encode(&model, bytes, FILE_BYTES_MAX);
    kvmstats_schema_free(blob.decoded);
    free(blob.bytes);
    return fwrite(bytes, 1, len, stdout) == len && len > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static const struct schema *intern(struct stage *stage, enum scope scope, struct blob *blob)
{
    const struct schema *schema;
    if (schema_table_intern(&stage->store->schemas, scope, blob->decoded, &schema) < 0)
        give_up("schemas", "too many");
    blob->decoded = schema->decoded;
    return schema;
}

static void put(struct stage *stage, const struct blob *blob, int vcpu)
{
    const char *first = kvmstats_schema_desc(blob->decoded, 0)->name;
    const struct kvmstats_desc *desc = kvmstats_schema_find(blob->decoded, first);
    uint8_t *block = (uint8_t *)stage_cell(stage, 0, vcpu, first, 0) - desc->offset;
    memcpy(block, blob_data(blob), kvmstats_schema_data_bytes(blob->decoded));
}

static int render(enum exposition_format format, const char *histograms, int n, char **paths)
{
    static const struct vm_identity_spec spec = {
        .vm = "a", .vmm = "qemu", .source = "statsfd", .pid = 7};
    struct stage stage;
    struct blob blobs[1 + VCPUS_MAX];
    const struct schema *schemas[2] = {NULL, NULL};
    if (n < 1 || n > (int)ARRAY_LEN(blobs))
        give_up("files", "none, or too many");
    stage_init(&stage);
    stage.config->metrics.histograms =
        strcmp(histograms, "vcpu") == 0 ? CONFIG_HISTOGRAMS_VCPU : CONFIG_HISTOGRAMS_VM;
    for (int i = 0; i < n; i++) {
        blobs[i] = blob_read(paths[i]);
        schemas[i > 0] = intern(&stage, i > 0 ? SCOPE_VCPU : SCOPE_VM, &blobs[i]);
    }
    stage_vm_add(&stage, &spec, 0, schemas[0], schemas[1], (uint32_t)n - 1);
    stage_layout(&stage, 0);
    for (int i = 0; i < n; i++)
        put(&stage, &blobs[i], i - 1);

    struct exposition *exposition = stage_exposition(&stage);
    size_t len;
    CLEANUP_FREE char *bytes = stage_render_bytes(&stage, exposition, NULL, format, &len);
    (void)fwrite(bytes, 1, len, stdout);
    exposition_free(exposition);
    stage_deinit(&stage);
    for (int i = 0; i < n; i++)
        free(blobs[i].bytes);
    return EXIT_SUCCESS;
}

static enum exposition_format format_named(const char *name)
{
    if (strcmp(name, "protobuf") == 0)
        return EXPOSITION_PROTOBUF;
    return strcmp(name, "text") == 0 ? EXPOSITION_TEXT : EXPOSITION_OPENMETRICS;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "order") == 0)
        return puts(__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? "big" : "little") < 0;
    if (argc == 3 && strcmp(argv[1], "copy") == 0)
        return copy(argv[2]);
    if (argc >= 4)
        return render(format_named(argv[1]), argv[2], argc - 3, argv + 3);
    return 2;
}
