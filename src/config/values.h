/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Single values as a person writes them: durations, sizes, numbers, paths, globs, users. Pure: text
 * in, value or reason out. A reason says what is wrong and what would be right, without the place.
 * Internal to the configuration.
 */
#pragma once

#include "config.h"

/*
 * A number and its unit. A fraction is taken when it is exact in the smallest unit ("1.5s",
 * "0.5KiB") and refused when it is not ("0.3ns"), for nothing is rounded behind a person's back.
 * `example`: a right value, for the message. Returns 0, -EINVAL, or -ERANGE when beyond int64_t.
 */
MUST_USE int value_duration(const char *text, const char *example, int64_t *ret_ns,
                            struct config_error *ret_reason);
/* "64MiB": B, KiB, MiB, GiB or TiB. A bare 0 needs no unit. */
MUST_USE int value_size(const char *text, const char *example, int64_t *ret_bytes,
                        struct config_error *ret_reason);
/* Decimal digits alone. "010" is refused: YAML 1.1 would read it as 8, a person as 10. */
MUST_USE int value_count(const char *text, const char *example, int64_t *ret_count,
                         struct config_error *ret_reason);

/* Checks of texts that are taken as they stand. Each returns 0 or -EINVAL. */
MUST_USE int check_directory(const char *text, struct config_error *ret_reason);
MUST_USE int check_socket(const char *text, struct config_error *ret_reason);
MUST_USE int check_optional_file(const char *text, struct config_error *ret_reason);
/* A glob on names that are never empty, and one on names that may be ("" then means "has none"). */
MUST_USE int check_stat_glob(const char *text, struct config_error *ret_reason);
MUST_USE int check_glob(const char *text, struct config_error *ret_reason);
MUST_USE int check_user(const char *text, struct config_error *ret_reason);
MUST_USE int check_listen(const char *text, struct config_error *ret_reason);
