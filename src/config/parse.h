/* SPDX-License-Identifier: Apache-2.0 */
/* From YAML to a configuration that has its defaults already. Internal to the configuration. */
#pragma once

#include "config.h"

/*
 * Sets what the text sets in `config`, and validates it. Returns 0, -EINVAL with *ret_error filled,
 * or -ENOMEM; after an error `config` is good for nothing but schema_clear().
 */
MUST_USE int parse_yaml(const char *name, const char *text, size_t len, struct config *config,
                        struct config_error *ret_error);
