/* SPDX-License-Identifier: Apache-2.0 */
/* What decode.c builds and schema.c shows. One allocation holds all of it, names and id included.
 */
#pragma once

#include "kvmstats/kvmstats.h"

struct kvmstats_schema {
    const char *id; /* behind the descriptors, in the same allocation, as are all names */
    uint32_t flags;
    uint32_t data_offset;
    size_t data_bytes;
    size_t count;
    struct kvmstats_desc descs[];
};

/* Where the kernel keeps type, unit and base in a descriptor's flags. */
enum {
    FLAGS_TYPE_SHIFT = 0,
    FLAGS_UNIT_SHIFT = 4,
    FLAGS_BASE_SHIFT = 8,
    FLAGS_NIBBLE = 0xf,
};
