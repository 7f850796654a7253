/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers in records and dump files: little-endian whatever the machine, and varints (seven bits a
 * byte, the lowest first, at most ten bytes). Readers never go past `end`.
 */
#pragma once

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    VARINT_BYTES_MAX = 10,
};

static inline uint8_t *put_varint(uint8_t *to, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        *to++ = (uint8_t)(value | 0x80);
    *to++ = (uint8_t)value;
    return to;
}

static inline bool get_varint(const uint8_t **at, const uint8_t *end, uint64_t *ret_value)
{
    uint64_t value = 0;
    const uint8_t *p = *at;
    for (unsigned shift = 0; shift < 64 && p < end; shift += 7) {
        uint8_t byte = *p++;
        if (shift == 63 && byte > 1)
            return false; /* more than 64 bits */
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *at = p;
            *ret_value = value;
            return true;
        }
    }
    return false;
}

/* Small numbers of either sign become small numbers. */
static inline uint64_t zigzag(uint64_t value)
{
    return value << 1 ^ (uint64_t) - (int64_t)(value >> 63);
}

static inline uint64_t unzigzag(uint64_t value)
{
    return value >> 1 ^ (uint64_t) - (int64_t)(value & 1);
}

static inline uint64_t get_u64(const void *from)
{
    uint64_t value;
    memcpy(&value, from, sizeof value);
    return le64toh(value);
}

static inline uint32_t get_u32(const void *from)
{
    uint32_t value;
    memcpy(&value, from, sizeof value);
    return le32toh(value);
}

static inline uint8_t *put_u64(uint8_t *to, uint64_t value)
{
    value = htole64(value);
    return (uint8_t *)mempcpy(to, &value, sizeof value);
}

static inline uint8_t *put_u32(uint8_t *to, uint32_t value)
{
    value = htole32(value);
    return (uint8_t *)mempcpy(to, &value, sizeof value);
}
