/* SPDX-License-Identifier: Apache-2.0 */
/* What happened between two scrapes, from what the view's VMs keep of it. */
#pragma once

#include "burst_families.h"
#include "view.h"

/* All families that have something to show. Errors stick in the writer. */
void bursts_put(struct own *own, const struct burst_families *families, const struct view *view);
