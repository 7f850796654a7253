/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Capabilities. They are a thread's, and a new thread has those of the one that makes it: so the
 * thread that acts on other processes is made first, then all are dropped, and the others are made
 * after that. What is dropped is dropped for good: not even permitted any more.
 */
#pragma once

#include <stdint.h>

#include "config.h"

/* Sets of capabilities are bits: UINT64_C(1) << CAP_X. Those of the three that the sources of a
 * configuration take. */
uint64_t privileges_of_sources(const struct config *config);
/*
 * Those of them that threads take which look at other users' processes in /proc: the scheduler's at
 * their threads, the dumper's at how they ended.
 */
uint64_t privileges_of_lookers(const struct config *config);
/* Those that the sampling thread takes on this kernel for running BPF programs; mostly none. */
uint64_t privileges_of_sampler(const struct config *config);

/*
 * The calling thread keeps `wanted` of what it has, nobody it makes gets more, and no program that
 * is executed would. Besides, CAP_NET_BIND_SERVICE is always kept, and of root CAP_DAC_OVERRIDE.
 * Returns 0 or -errno.
 */
MUST_USE int privileges_keep(uint64_t wanted);

/* Of `wanted`, what the calling thread has not. */
uint64_t privileges_missing(uint64_t wanted);
/* "CAP_BPF, CAP_PERFMON" */
void privileges_name(uint64_t set, char *ret_text, size_t size);
