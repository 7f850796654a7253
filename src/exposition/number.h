/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Integers to decimal ASCII, inlined into the render loops. Eight digits are made at once inside
 * one 64-bit word (each division by a constant is a multiplication that serves several digits), so
 * there is one store for eight digits and no loop over them. Every function may write up to
 * NUMBER_OVERRUN bytes past the end it returns.
 */
#pragma once

#include <endian.h>
#include <stdint.h>
#include <string.h>

enum {
    NUMBER_U64_BYTES = 20,  /* 18446744073709551615 */
    NUMBER_NANO_BYTES = 21, /* 18446744073.709551615 */
    NUMBER_OVERRUN = 8,
};

/* The decimal digits (0 … 9) of value < 10^8, most significant in the lowest byte. */
static inline uint64_t number_digits8(uint32_t value)
{
    /* Two lanes of four digits, then four lanes of two, then eight of one. The reciprocals are
     * exact in their ranges: x * 10486 >> 20 == x / 100 below 10^4, x * 103 >> 10 == x / 10 below
     * 100. */
    uint64_t fours = value / 10000 | (uint64_t)(value % 10000) << 32;
    uint64_t hundreds = (fours * 10486 >> 20) & UINT64_C(0x7f0000007f);
    uint64_t twos = hundreds | (fours - 100 * hundreds) << 16;
    uint64_t tens = (twos * 103 >> 10) & UINT64_C(0x000f000f000f000f);
    return tens | (twos - 10 * tens) << 8;
}

/* All eight digits of value < 10^8, leading zeros too. */
static inline char *number_put8(char *to, uint32_t value)
{
    uint64_t ascii = htole64(number_digits8(value) | UINT64_C(0x3030303030303030));
    memcpy(to, &ascii, sizeof ascii);
    return to + 8;
}

/* value < 10^8 without leading zeros. */
static inline char *number_put_head(char *to, uint32_t value)
{
    if (value < 10) {
        *to = (char)('0' + value);
        return to + 1;
    }
    uint64_t digits = number_digits8(value);
    unsigned zero_bits = (unsigned)__builtin_ctzll(digits) & ~7u;
    uint64_t ascii = htole64((digits | UINT64_C(0x3030303030303030)) >> zero_bits);
    memcpy(to, &ascii, sizeof ascii);
    return to + 8 - zero_bits / 8;
}

static inline char *number_put_u64(char *to, uint64_t value)
{
    const uint64_t e8 = 100000000;
    if (value < e8)
        return number_put_head(to, (uint32_t)value);
    if (value < e8 * e8) {
        to = number_put_head(to, (uint32_t)(value / e8));
    } else {
        to = number_put_head(to, (uint32_t)(value / (e8 * e8)));
        to = number_put8(to, (uint32_t)(value / e8 % e8));
    }
    return number_put8(to, (uint32_t)(value % e8));
}

/* value * 10^-9, exact, without superfluous zeros: as kvmstats_format_scaled() prints it. */
static inline char *number_put_nano(char *to, uint64_t value)
{
    uint32_t fraction = (uint32_t)(value % 1000000000);
    to = number_put_u64(to, value / 1000000000);
    if (fraction == 0)
        return to;
    *to++ = '.';
    *to++ = (char)('0' + fraction / 100000000);
    uint64_t digits = number_digits8(fraction % 100000000);
    if (digits == 0)
        return to;
    uint64_t ascii = htole64(digits | UINT64_C(0x3030303030303030));
    memcpy(to, &ascii, sizeof ascii);
    return to + 8 - (unsigned)__builtin_clzll(digits) / 8;
}
