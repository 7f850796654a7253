/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stats file as the kernel lays it out (struct kvm_stats_header and struct kvm_stats_desc of
 * linux/kvm.h). Written down here so that the library builds without the kernel's headers and on
 * any of its versions. Always copied in and out: nothing in a file has to be aligned.
 */
#pragma once

#include <assert.h>
#include <stdint.h>

struct wire_header {
    uint32_t flags;
    uint32_t name_size;
    uint32_t num_desc;
    uint32_t id_offset;
    uint32_t desc_offset;
    uint32_t data_offset;
};

/* Followed by name_size bytes of name. */
struct wire_desc {
    uint32_t flags;
    int16_t exponent;
    uint16_t size;
    uint32_t offset;
    uint32_t bucket_size;
};

static_assert(sizeof(struct wire_header) == 24, "the kernel's header has 24 bytes");
static_assert(sizeof(struct wire_desc) == 16, "a name stands 16 bytes into its descriptor");

/*
 * A half-open range of a stats file. Offsets and sizes are 32-bit fields, and no block is more than
 * 2^32 times 2^16 bytes: in 64 bits no sum or product of them can overflow.
 */
struct span {
    uint64_t start;
    uint64_t end;
};

static inline int span_is_empty(struct span s)
{
    return s.start == s.end;
}

/* An empty span overlaps nothing, wherever it stands. */
static inline int spans_overlap(struct span a, struct span b)
{
    return !span_is_empty(a) && !span_is_empty(b) && a.start < b.end && b.start < a.end;
}

static inline uint64_t desc_stride(uint32_t name_size)
{
    return sizeof(struct wire_desc) + (uint64_t)name_size;
}

static inline struct span id_span(const struct wire_header *header)
{
    uint64_t start = header->id_offset;
    return (struct span){start, start + header->name_size};
}

static inline struct span desc_span(const struct wire_header *header)
{
    uint64_t start = header->desc_offset;
    return (struct span){start, start + header->num_desc * desc_stride(header->name_size)};
}
