/* SPDX-License-Identifier: Apache-2.0 */
/* kvmstatd_* and process_*: what the daemon says about itself. */
#pragma once

#include "exposition.h"
#include "own.h"

/* `process_start_wall_ns`: 0 when unknown. Errors stick in the writer. */
void selfmetrics_put(struct own *own, const struct store *store, const struct roster *roster,
                     const struct exposition_process *process, int64_t process_start_wall_ns,
                     int64_t render_begin_ns);
/* When this process was started, since the epoch; 0 when /proc doesn't say. */
int64_t selfmetrics_start_wall_ns(void);
