/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A double is m * 2^-s. Times 10^k it is an integer part and a fraction, both exact in 128 bits for
 * all rates that occur; with the first k whose rounded integer is nearer to it than half a unit in
 * the last place of m, the decimal is found. That is a loop of some multiplications, where printf()
 * needs three attempts of 200 ns each, and scrapes have thousands of rates.
 */
#include "shortest.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "number.h"

/* Whatever it is: the fewest digits that printf() needs. */
static size_t format_any(char *buffer, double value)
{
    int len = 0;
    for (int digits = 15; digits <= 17; digits++) {
        len = snprintf(buffer, SHORTEST_BYTES, "%.*g", digits, value);
        if (strtod(buffer, NULL) == value)
            break;
    }
    return (size_t)len;
}

#ifdef __SIZEOF_INT128__
enum {
    MANTISSA_BITS = 53,
    PLACES_MAX = 18, /* after the point; 2^53 * 10^18 is below 2^113 */
    SHIFT_MAX = 70,  /* values from about 10^-5 on */
};

static size_t put_places(char *buffer, uint64_t decimal, unsigned places)
{
    char digits[NUMBER_U64_BYTES + NUMBER_OVERRUN];
    size_t n = (size_t)(number_put_u64(digits, decimal) - digits);
    char *to = buffer;
    if (n <= places) {
        to = mempcpy(to, "0.", places ? 2 : 1);
        for (size_t i = n; i < places; i++)
            *to++ = '0';
        to = mempcpy(to, digits, n);
    } else {
        to = mempcpy(to, digits, n - places);
        if (places)
            *to++ = '.';
        to = mempcpy(to, digits + n - places, places);
    }
    *to = '\0';
    return (size_t)(to - buffer);
}

/* Returns the length, or 0 where it is not for this way. */
static size_t format_fixed(char *buffer, double value)
{
    int exponent;
    uint64_t m = (uint64_t)ldexp(frexp(value, &exponent), MANTISSA_BITS);
    int shift = MANTISSA_BITS - exponent;
    if (shift < 0 || shift > SHIFT_MAX)
        return 0;
    unsigned __int128 scaled = m, unit = 1; /* both times 10^places */
    const unsigned __int128 one = (unsigned __int128)1 << shift, half = one >> 1;
    for (unsigned places = 0; places <= PLACES_MAX; places++) {
        unsigned __int128 rounded = (scaled + half) >> shift;
        unsigned __int128 back = rounded << shift;
        unsigned __int128 error = back > scaled ? back - scaled : scaled - back;
        /* Below a power of two, doubles are twice as close: a quarter is safe there. */
        if (error * (m == UINT64_C(1) << (MANTISSA_BITS - 1) ? 4 : 2) < unit || error == 0)
            return rounded > UINT64_MAX ? 0 : put_places(buffer, (uint64_t)rounded, places);
        scaled *= 10;
        unit *= 10;
    }
    return 0;
}
#else
static size_t format_fixed(char *buffer, double value)
{
    (void)buffer;
    (void)value;
    return 0;
}
#endif

size_t shortest_format(char buffer[SHORTEST_BYTES], double value)
{
    if (value == 0)
        return (size_t)(stpcpy(buffer, "0") - buffer);
    size_t len = format_fixed(buffer, value);
    return len ? len : format_any(buffer, value);
}
