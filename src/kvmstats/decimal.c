/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exact decimals. Every value raw * base^exponent has a finite decimal expansion, because
 * 2^-k = 5^k * 10^-k: it is a whole number of some digits with a decimal point somewhere in them.
 * So there are two steps: the digits of a whole number, and where its point goes. Only POW2 with
 * large exponents needs more than 64 bits for the first; its whole number is kept in limbs of nine
 * decimal digits, so that no conversion follows.
 */
#include "kvmstats/kvmstats.h"

#include <assert.h>
#include <string.h>

enum {
    RAW_DIGITS = 20, /* of 2^64 - 1 */
    LIMB_DIGITS = 9,
    LIMB_BASE = 1000000000,
    /* The largest whole number is (2^64 - 1) * 5^256, of 199 digits. */
    LIMBS = 23,
    DIGITS = LIMBS * LIMB_DIGITS,
};

/* The longest result: 10^256 times a raw value, or "0." and 256 digits (and room for more raw). */
static_assert(RAW_DIGITS + KVMSTATS_MAX_EXPONENT + sizeof "0." <= KVMSTATS_DECIMAL_BYTES,
              "KVMSTATS_DECIMAL_BYTES holds every result");
/* 5^10 < 10^7: ten more factors make at most seven more digits. */
static_assert(DIGITS >= RAW_DIGITS + (KVMSTATS_MAX_EXPONENT + 9) / 10 * 7, "every product fits");

/* Two digits at a time: half the divisions. */
static const char pairs[] = "00010203040506070809"
                            "10111213141516171819"
                            "20212223242526272829"
                            "30313233343536373839"
                            "40414243444546474849"
                            "50515253545556575859"
                            "60616263646566676869"
                            "70717273747576777879"
                            "80818283848586878889"
                            "90919293949596979899";

/* Writes the digits of `value` so that they end before `end`; returns where they begin. */
static char *digits_before(char *end, uint64_t value)
{
    while (value >= 100) {
        end -= 2;
        memcpy(end, pairs + value % 100 * 2, 2);
        value /= 100;
    }
    if (value >= 10) {
        end -= 2;
        memcpy(end, pairs + value * 2, 2);
    } else {
        *--end = (char)('0' + value);
    }
    return end;
}

/* The digits of value * factor^times before `end`; factor is 2 or 5. Returns where they begin. */
static char *product_digits_before(char *end, uint64_t value, uint64_t factor, unsigned times)
{
    uint32_t limbs[LIMBS] = {
        (uint32_t)(value % LIMB_BASE),
        (uint32_t)(value / LIMB_BASE % LIMB_BASE),
        (uint32_t)(value / LIMB_BASE / LIMB_BASE),
    };
    size_t n = 3;
    while (times > 0) {
        /* Up to twelve factors at once: 5^12 < 2^32, so that limb * step + carry fits 64 bits. */
        uint64_t step = 1, carry = 0;
        for (unsigned i = 0; i < 12 && times > 0; i++, times--)
            step *= factor;
        for (size_t i = 0; i < n; i++) {
            uint64_t limb = limbs[i] * step + carry;
            limbs[i] = (uint32_t)(limb % LIMB_BASE);
            carry = limb / LIMB_BASE;
        }
        if (carry) {
            assert(n < LIMBS && carry < LIMB_BASE);
            limbs[n++] = (uint32_t)carry;
        }
    }
    while (n > 1 && limbs[n - 1] == 0)
        n--;
    for (size_t i = 0; i + 1 < n; i++) {
        char *begin = digits_before(end, limbs[i]);
        end -= LIMB_DIGITS;
        memset(end, '0', (size_t)(begin - end));
    }
    return digits_before(end, limbs[n - 1]);
}

static size_t count_digits(uint64_t value)
{
    static const uint64_t powers[RAW_DIGITS] = {
        0, /* so that 0 has one digit */
        UINT64_C(10),
        UINT64_C(100),
        UINT64_C(1000),
        UINT64_C(10000),
        UINT64_C(100000),
        UINT64_C(1000000),
        UINT64_C(10000000),
        UINT64_C(100000000),
        UINT64_C(1000000000),
        UINT64_C(10000000000),
        UINT64_C(100000000000),
        UINT64_C(1000000000000),
        UINT64_C(10000000000000),
        UINT64_C(100000000000000),
        UINT64_C(1000000000000000),
        UINT64_C(10000000000000000),
        UINT64_C(100000000000000000),
        UINT64_C(1000000000000000000),
        UINT64_C(10000000000000000000),
    };
    /* 1233 / 4096 is a little more than log10(2): right, or one too few. */
    size_t bits = 64 - (size_t)__builtin_clzll(value | 1);
    size_t guess = bits * 1233 >> 12;
    return guess + (value >= powers[guess]);
}

/*
 * Where n digits go in the buffer when the last `places` of them are a fraction: behind "0." and
 * zeros; or behind one byte, into which write_point() moves the whole part; or right at the start.
 */
static char *digits_position(char *buffer, size_t n, size_t places)
{
    if (places == 0)
        return buffer;
    return places >= n ? buffer + 2 + (places - n) : buffer + 1;
}

/* Makes a fraction of them, without zeros at its end. Returns the length. */
static size_t write_point(char *buffer, size_t n, size_t places)
{
    size_t len;
    if (places >= n) {
        buffer[0] = '0';
        buffer[1] = '.';
        memset(buffer + 2, '0', places - n);
        len = 2 + places;
    } else {
        memmove(buffer, buffer + 1, n - places);
        buffer[n - places] = '.';
        len = n + 1;
    }
    while (buffer[len - 1] == '0')
        len--;
    return buffer[len - 1] == '.' ? len - 1 : len;
}

size_t kvmstats_format_scaled(char buffer[KVMSTATS_DECIMAL_BYTES], uint64_t raw, uint8_t base,
                              int16_t exponent)
{
    bool beyond = exponent > KVMSTATS_MAX_EXPONENT || exponent < -KVMSTATS_MAX_EXPONENT;
    if (beyond || raw == 0 || (base != KVMSTATS_BASE_POW10 && base != KVMSTATS_BASE_POW2))
        exponent = 0;
    size_t places = exponent < 0 ? (size_t)-exponent : 0;
    size_t n;

    if (exponent != 0 && base == KVMSTATS_BASE_POW2) {
        char digits[DIGITS], *end = digits + sizeof digits;
        const char *begin = exponent < 0 ? product_digits_before(end, raw, 5, (unsigned)-exponent)
                                         : product_digits_before(end, raw, 2, (unsigned)exponent);
        n = (size_t)(end - begin);
        memcpy(digits_position(buffer, n, places), begin, n);
    } else {
        n = count_digits(raw);
        (void)digits_before(digits_position(buffer, n, places) + n, raw);
        if (exponent > 0) {
            memset(buffer + n, '0', (size_t)exponent);
            n += (size_t)exponent;
        }
    }
    if (places > 0)
        n = write_point(buffer, n, places);
    buffer[n] = '\0';
    return n;
}
