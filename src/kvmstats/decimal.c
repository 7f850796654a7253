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

/* Writes digits * 10^-places, without zeros at the end of a fraction. */
static size_t write_fraction(char *out, const char *digits, size_t n, size_t places)
{
    char *p = out;
    while (n > 0 && places > 0 && digits[n - 1] == '0') {
        n--;
        places--;
    }
    size_t whole = n > places ? n - places : 0;
    if (whole == 0)
        *p++ = '0';
    memcpy(p, digits, whole);
    p += whole;
    if (places > 0) {
        *p++ = '.';
        if (whole == 0) {
            memset(p, '0', places - n);
            p += places - n;
        }
        memcpy(p, digits + whole, n - whole);
        p += n - whole;
    }
    *p = '\0';
    return (size_t)(p - out);
}

size_t kvmstats_format_scaled(char buffer[KVMSTATS_DECIMAL_BYTES], uint64_t raw, uint8_t base,
                              int16_t exponent)
{
    char digits[DIGITS];
    char *const end = digits + sizeof digits, *begin;
    bool beyond = exponent > KVMSTATS_MAX_EXPONENT || exponent < -KVMSTATS_MAX_EXPONENT;
    if (beyond || raw == 0 || (base != KVMSTATS_BASE_POW10 && base != KVMSTATS_BASE_POW2))
        exponent = 0;
    size_t places = exponent < 0 ? (size_t)-exponent : 0;
    size_t zeros = 0;

    if (exponent != 0 && base == KVMSTATS_BASE_POW2) {
        begin = product_digits_before(end, raw, exponent < 0 ? 5 : 2,
                                      (unsigned)(exponent < 0 ? -exponent : exponent));
    } else {
        begin = digits_before(end, raw);
        zeros = exponent > 0 ? (size_t)exponent : 0;
    }
    size_t n = (size_t)(end - begin);
    if (places)
        return write_fraction(buffer, begin, n, places);
    memcpy(buffer, begin, n);
    memset(buffer + n, '0', zeros);
    buffer[n + zeros] = '\0';
    return n + zeros;
}
