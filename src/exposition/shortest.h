/* SPDX-License-Identifier: Apache-2.0 */
/* Rates are no integers: doubles to decimals. */
#pragma once

#include <stddef.h>

enum {
    SHORTEST_BYTES = 32, /* the longest result, with its NUL */
};

/*
 * The shortest decimal that reads back as the same double, for one that is finite and not negative:
 * fixed point where that is short ("0", "1250.5"), else with an exponent ("2e-07"). Returns the
 * length without the NUL.
 */
size_t shortest_format(char buffer[SHORTEST_BYTES], double value);
