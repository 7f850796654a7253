/* SPDX-License-Identifier: Apache-2.0 */
/* From YAML to values that have their defaults already. Internal to the configuration. */
#pragma once

#include "config.h"
#include "schema.h"

/*
 * Sets what the text sets in `config`, and validates it. Returns 0, -EINVAL with *ret_error filled,
 * or -ENOMEM; after an error `config` is good for nothing but schema_clear().
 */
MUST_USE int parse_yaml(const char *name, const char *text, size_t len, struct config *config,
                        struct config_error *ret_error);

/*
 * The same for another kind of file: `table` says what may stand in it, `base` is the struct it is
 * kept in. KEY_RULES is for configurations alone.
 */
MUST_USE int parse_table(const char *name, const char *text, size_t len,
                         const struct key_table *table, void *base, struct config_error *ret_error);
