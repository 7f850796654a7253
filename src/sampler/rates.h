/* SPDX-License-Identifier: Apache-2.0 */
/* From two readings to rates, and into what the store keeps of them between two scrapes. */
#pragma once

#include "derive.h"

/* THREADS: sampler only. */
void rates_observe(const struct tick_vm *tick);
