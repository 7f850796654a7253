/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For test_decimal.py: reads lines "raw base exponent" and prints the decimal of each. A program,
 * because python can't load a library that is built with sanitizers.
 */
#include "kvmstats/kvmstats.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void)
{
    uint64_t raw;
    unsigned base;
    int exponent;
    /* On the heap and of just the promised size, for the address sanitizer. */
    char *decimal = malloc(KVMSTATS_DECIMAL_BYTES);
    while (decimal && scanf("%" SCNu64 " %u %d", &raw, &base, &exponent) == 3) {
        size_t n = kvmstats_format_scaled(decimal, raw, (uint8_t)base, (int16_t)exponent);
        printf("%s\n", n == strlen(decimal) ? decimal : "wrong length");
    }
    free(decimal);
    return feof(stdin) ? EXIT_SUCCESS : EXIT_FAILURE;
}
