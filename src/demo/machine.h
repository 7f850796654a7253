/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One virtual machine, in this process, with one thread a vCPU: created, run, and counted.
 */
#pragma once

#include "options.h"

struct machine;

/*
 * Makes the VM and its vCPUs and returns once every guest CPU runs and all fds asked for are open.
 * Whatever goes wrong, then or later, ends the process (fail.h). The machine lives as long as the
 * process does.
 */
struct machine *machine_start(const struct options *options);

/* Prints what its vCPUs have counted, one line each. THREADS: any. */
void machine_print_counts(const struct machine *machine);
