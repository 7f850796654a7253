/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reaper: a thread that does what the tick path may not: close the last fd of a VM (the kernel
 * then tears the VM down in our thread) and free memory.
 */
#pragma once

#include "reapable.h"

struct reaper;

MUST_USE int reaper_new(struct reaper **ret_reaper);
MUST_USE int reaper_start(struct reaper *reaper);
/* Releases all that was posted, then joins. Idempotent. */
void reaper_stop(struct reaper *reaper);
void reaper_free(struct reaper *reaper);
DEFINE_CLEANUP(struct reaper *, reaper_free)

/* THREADS: any. Never blocks, never fails. */
void reaper_post(struct reaper *reaper, struct reapable *item);
