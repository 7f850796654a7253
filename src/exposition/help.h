/* SPDX-License-Identifier: Apache-2.0 */
/* What each statistic means to an operator, in our own words. */
#pragma once

#include <stddef.h>

#include "schema_table.h"

/* One sentence in plain ASCII, or NULL for a statistic that this build knows nothing of. Static. */
const char *help_find(enum scope scope, const char *name);

/* All of them, for the tests. */
struct help {
    enum scope scope;
    const char *name;
    const char *text;
};
/* NULL when i is out of range. */
const struct help *help_at(size_t i);
