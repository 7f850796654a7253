/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A second opinion on which files are sound: the rules written down as plainly as possible, slow,
 * and with integers too wide to overflow. The decoder must agree with it on every file.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool oracle_accepts(const uint8_t *bytes, size_t len);
