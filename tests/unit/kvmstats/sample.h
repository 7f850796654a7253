/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small sound stats file, laid out by hand: it must not come from the library's own encoder, nor
 * from its own idea of the format.
 */
#pragma once

#include <stdint.h>

struct sample_desc {
    uint32_t flags;
    int16_t exponent;
    uint16_t size;
    uint32_t offset;
    uint32_t bucket_size;
    char name[16];
};

struct sample {
    uint32_t flags;
    uint32_t name_size;
    uint32_t num_desc;
    uint32_t id_offset;
    uint32_t desc_offset;
    uint32_t data_offset;
    char id[16];
    struct sample_desc descs[4];
    uint64_t data[8];
};

_Static_assert(sizeof(struct sample_desc) == 32, "no padding");
_Static_assert(sizeof(struct sample) == 24 + 16 + 4 * 32 + 8 * 8, "no padding");

enum {
    SAMPLE_EXTENT = 24 + 16 + 4 * 32,
    /* A descriptor's flags, as api.rst gives them. */
    SAMPLE_CUMULATIVE = 0x000,
    SAMPLE_INSTANT = 0x001,
    SAMPLE_LINEAR_HIST = 0x003,
    SAMPLE_LOG_HIST = 0x004,
    SAMPLE_BYTES = 0x010,
    SAMPLE_SECONDS = 0x020,
    SAMPLE_CYCLES = 0x030,
    SAMPLE_BOOLEAN = 0x040,
    SAMPLE_POW2 = 0x100,
};

static inline struct sample sample_file(void)
{
    return (struct sample){
        .name_size = 16,
        .num_desc = 4,
        .id_offset = 24,
        .desc_offset = 40,
        .data_offset = 168,
        .id = "kvm-77/vcpu-3",
        .descs =
            {
                {SAMPLE_CUMULATIVE, 0, 1, 0, 0, "exits"},
                {SAMPLE_CUMULATIVE | SAMPLE_SECONDS, -9, 1, 8, 0, "wait_ns"},
                {SAMPLE_LOG_HIST | SAMPLE_SECONDS, -9, 4, 16, 0, "wait_hist"},
                {SAMPLE_LINEAR_HIST | SAMPLE_BYTES | SAMPLE_POW2, 10, 2, 48, 10, "sizes"},
            },
        .data = {42, 1500000000, 1, 2, 3, 4, 50, UINT64_MAX},
    };
}
