/* SPDX-License-Identifier: Apache-2.0 */
/* A command line taken apart. */
#pragma once

#include <stddef.h>

#include "cleanup.h"

/* items[0] … items[n - 1], each NUL-terminated; items[0] is how the program was called. */
struct arguments {
    char *bytes; /* owned */
    char **items;
    size_t n;
};
/* Copies `bytes` (as /proc/PID/cmdline has it, or any bytes). Returns 0 or -ENOMEM. */
MUST_USE int arguments_split(const char *bytes, size_t len, struct arguments *ret_arguments);
void arguments_free(struct arguments *arguments);
#define CLEANUP_ARGUMENTS CLEANUP(arguments_free)

/*
 * The value of the last of the first `n_wanted` options of `options`, borrowed; NULL where none of
 * them has one. For command lines of "--option VALUE", "--option=VALUE" and "-o VALUE", whose
 * options end at "--".
 *
 * `options` (with their dashes, NULL-terminated) also holds those whose value is free text, so that
 * a value that looks like an option is not taken for one.
 */
const char *arguments_value(const struct arguments *arguments, const char *const *options,
                            size_t n_wanted);
