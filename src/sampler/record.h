/* SPDX-License-Identifier: Apache-2.0 */
/* From ticks and plans to the recorder. THREADS: sampler only. */
#pragma once

#include "derive.h"

/* A VM's tick. */
void record_tick(const struct tick_vm *tick);
/* Before a plan is adopted: of VMs whose targets are to be others, what these had last. */
void record_changes(const struct plan *plan);
/*
 * A VM is let go: what it had last is recorded and its memory is free for others; unless its VMM
 * has exited and `dumper` (NULL: none) wants to know how.
 */
void record_end(struct sampled_vm *vm, struct dumper *dumper);
