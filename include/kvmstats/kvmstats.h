/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libkvmstats: a decoder of the binary statistics that Linux KVM gives through the file descriptor
 * of KVM_GET_STATS_FD (Linux 5.14 and later; the format: Documentation/virt/kvm/api.rst, 4.133).
 *
 * The library is pure: bytes in, schema and values out. It opens and reads nothing, keeps no global
 * state and never aborts on what it is given. All integers in a stats file have the byte order of
 * the machine that wrote it, which must be the machine that decodes it.
 *
 * A stats file has four blocks, in any order: a header, an id string, descriptors (one for each
 * statistic) and data. All but the data never change while the file exists. To use it:
 *
 *     struct kvmstats_error error;
 *     struct kvmstats_schema *schema = NULL;
 *     size_t need;
 *     pread(fd, bytes, KVMSTATS_HEADER_BYTES, 0);
 *     kvmstats_header_extent(bytes, KVMSTATS_HEADER_BYTES, &need, &error);
 *     pread(fd, bytes, need, 0);                      // header, id and descriptors
 *     kvmstats_schema_decode(bytes, need, &schema, &error);
 *     pread(fd, data, kvmstats_schema_data_bytes(schema), kvmstats_schema_data_offset(schema));
 *     const struct kvmstats_desc *exits = kvmstats_schema_find(schema, "exits");
 *     uint64_t value = kvmstats_value(exits, data, 0);
 */
#ifndef KVMSTATS_KVMSTATS_H
#define KVMSTATS_KVMSTATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of this header; the shared library's soname carries the major number. */
#define KVMSTATS_VERSION_MAJOR 1
#define KVMSTATS_VERSION_MINOR 0

/* Size in bytes of the header block (struct kvm_stats_header). */
#define KVMSTATS_HEADER_BYTES 24

/*
 * Limits. The kernel's own files are far below them (name_size 48, some 50 descriptors, 4 KiB in
 * all); they bound what a broken or hostile file can make a reader allocate.
 */
#define KVMSTATS_MAX_NAME_SIZE   4096u
#define KVMSTATS_MAX_DESCRIPTORS 65536u
#define KVMSTATS_MAX_FILE_BYTES  (16u << 20)
/* |exponent| above this is refused: the exact decimal would have hundreds of digits. */
#define KVMSTATS_MAX_EXPONENT 256

/* Bits 0-3 of a descriptor's flags. A newer kernel may have more: see kvmstats_desc.known. */
enum kvmstats_type {
    KVMSTATS_TYPE_CUMULATIVE = 0,
    KVMSTATS_TYPE_INSTANT = 1,
    KVMSTATS_TYPE_PEAK = 2,
    KVMSTATS_TYPE_LINEAR_HIST = 3,
    KVMSTATS_TYPE_LOG_HIST = 4,
};

/* Bits 4-7. */
enum kvmstats_unit {
    KVMSTATS_UNIT_NONE = 0,
    KVMSTATS_UNIT_BYTES = 1,
    KVMSTATS_UNIT_SECONDS = 2,
    KVMSTATS_UNIT_CYCLES = 3,
    KVMSTATS_UNIT_BOOLEAN = 4,
};

/* Bits 8-11. */
enum kvmstats_base {
    KVMSTATS_BASE_POW10 = 0,
    KVMSTATS_BASE_POW2 = 1,
};

/*
 * One statistic. `size` values of 64 bits start `offset` bytes into the data block. A value means
 * raw * base^exponent of its unit; for a histogram that scale belongs to the bucket bounds, and the
 * values are counts.
 */
struct kvmstats_desc {
    const char *name; /* NUL-terminated, as the kernel gave it; owned by the schema */
    uint32_t flags;   /* as the kernel gave them */
    uint8_t type;     /* enum kvmstats_type, or a number this library has never heard of */
    uint8_t unit;     /* enum kvmstats_unit, or unknown */
    uint8_t base;     /* enum kvmstats_base, or unknown */
    bool known;       /* type, unit and base are all known; otherwise take values as raw gauges */
    int16_t exponent;
    uint16_t size;        /* number of values, at least 1 */
    uint32_t offset;      /* bytes from the start of the data block */
    uint32_t bucket_size; /* LINEAR_HIST only: width of a bucket, at least 1 */
};

/*
 * Why a file was refused: the field, its value, and a sentence for a person. Where bytes are
 * missing the field is "header", "id" or "descriptors", and the value the length of what is there.
 */
struct kvmstats_error {
    char field[64];    /* e.g. "desc_offset", "descriptor 3: size" */
    uint64_t value;    /* the offending value (signed ones converted) */
    char message[256]; /* one line, NUL-terminated, printable ASCII only */
};

/* A decoded header, id and descriptors. Immutable; any number of threads may use it. */
struct kvmstats_schema;

/*
 * From the header alone: how many bytes from offset 0 hold header, id and descriptors.
 * `bytes`/`len`: what was read at offset 0, at least KVMSTATS_HEADER_BYTES.
 * Returns 0, or -EBADMSG with *ret_error filled (ret_error may be NULL).
 */
int kvmstats_header_extent(const void *bytes, size_t len, size_t *ret_extent,
                           struct kvmstats_error *ret_error);

/*
 * Decodes header, id and descriptors. `bytes` is the file from offset 0; nothing of it is kept.
 * Checks every rule a reader relies on (the kernel's selftest kvm_binary_stats_test.c states them),
 * with overflow-safe arithmetic: blocks past the header and not overlapping, id and names
 * terminated, the id beginning with "kvm", names not empty, size not 0, linear histograms with a
 * bucket_size, exponents and units that go together, statistics that do not overlap, all sizes
 * within the limits above. Reserved flags and unknown types, units and bases are carried through
 * (an exponent is then any number, as nothing is known of its meaning). Names may repeat, nothing
 * need be aligned, and a file may have no descriptors at all. Whether the data are there is not
 * looked at. Returns 0, -EBADMSG with *ret_error filled (ret_error may be NULL), or -ENOMEM, which
 * leaves *ret_error as it was. Never allocates more than some three times `len`.
 */
int kvmstats_schema_decode(const void *bytes, size_t len, struct kvmstats_schema **ret_schema,
                           struct kvmstats_error *ret_error);
void kvmstats_schema_free(struct kvmstats_schema *schema);

/* "kvm-<tid>" or "kvm-<tid>/vcpu-<n>"; ids can repeat and are no key. */
const char *kvmstats_schema_id(const struct kvmstats_schema *schema);
uint32_t kvmstats_schema_flags(const struct kvmstats_schema *schema);
/* Where the data block starts in the file, and its length: the largest offset + 8 * size. */
uint32_t kvmstats_schema_data_offset(const struct kvmstats_schema *schema);
size_t kvmstats_schema_data_bytes(const struct kvmstats_schema *schema);
/* Number of statistics; may be 0. */
size_t kvmstats_schema_count(const struct kvmstats_schema *schema);
/* NULL when i is out of range. */
const struct kvmstats_desc *kvmstats_schema_desc(const struct kvmstats_schema *schema, size_t i);
/* The first descriptor of that name, or NULL. */
const struct kvmstats_desc *kvmstats_schema_find(const struct kvmstats_schema *schema,
                                                 const char *name);
/* True when both describe the same statistics at the same places (the id does not count). */
bool kvmstats_schema_equal(const struct kvmstats_schema *a, const struct kvmstats_schema *b);

/*
 * Value `i` of a statistic, from a data block of at least kvmstats_schema_data_bytes() bytes.
 * The caller has checked i < desc->size. Unaligned blocks are fine.
 */
static inline uint64_t kvmstats_value(const struct kvmstats_desc *desc, const void *data, size_t i)
{
    uint64_t value;
    __builtin_memcpy(&value, (const char *)data + desc->offset + i * sizeof value, sizeof value);
    return value;
}

static inline bool kvmstats_is_histogram(const struct kvmstats_desc *desc)
{
    return desc->known &&
           (desc->type == KVMSTATS_TYPE_LINEAR_HIST || desc->type == KVMSTATS_TYPE_LOG_HIST);
}

/*
 * The largest integer that bucket `i` counts, before scaling: LOG 0, 1, 3, 7 … 2^i - 1; LINEAR
 * (i + 1) * bucket_size - 1. Returns false for the last bucket, which is open-ended, and where the
 * bound does not fit in 64 bits (all further buckets are unreachable then, so the bound is
 * infinite).
 */
bool kvmstats_bucket_bound(const struct kvmstats_desc *desc, size_t i, uint64_t *ret_bound);
/* The bucket in which the kernel counts `value` (in raw units). */
size_t kvmstats_bucket_of(const struct kvmstats_desc *desc, uint64_t value);

/* A buffer of this size holds every result of kvmstats_format_scaled(), with its NUL. */
#define KVMSTATS_DECIMAL_BYTES 320

/*
 * raw * base^exponent as an exact decimal in ASCII: no exponent notation, no superfluous zeros
 * ("1.5", "0", "0.000001023"). Integer arithmetic only. Returns the length without the NUL.
 * base: enum kvmstats_base; an unknown base or an |exponent| over the limit prints the raw value.
 */
size_t kvmstats_format_scaled(char buffer[KVMSTATS_DECIMAL_BYTES], uint64_t raw, uint8_t base,
                              int16_t exponent);

/* Names for people: "cumulative", "seconds", "pow10"; NULL for what is unknown. */
const char *kvmstats_type_name(uint8_t type);
const char *kvmstats_unit_name(uint8_t unit);
const char *kvmstats_base_name(uint8_t base);

/*
 * The inverse of decoding, for tests and for recordings: writes a stats file with the blocks at the
 * given offsets, in whatever order that is, and zeros between them. Of a descriptor `flags` counts,
 * not what is derived from it. Without data (data_bytes 0) the file ends with the other blocks.
 * Returns the length of the file; or 0, with nothing written, when `capacity` is too small, blocks
 * overlap, or the id or a name is not shorter than name_size.
 */
struct kvmstats_model {
    uint32_t flags;
    uint32_t name_size;
    uint32_t id_offset;
    uint32_t desc_offset;
    uint32_t data_offset;
    const char *id;
    const struct kvmstats_desc *descs;
    uint32_t num_desc;
    const void *data;
    size_t data_bytes;
};
size_t kvmstats_encode(const struct kvmstats_model *model, void *buffer, size_t capacity);

#ifdef __cplusplus
}
#endif

#endif
