/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many VMs, each a process of its own with its own argv, as on a real host.
 */
#pragma once

#include "options.h"

/*
 * Starts options->vms processes of this program, prints `ready N` once all run, and stays until
 * told to stop by SIGTERM or SIGINT (it ends them and waits for them) or until the last of them has
 * ended. SIGUSR1 is passed on to all. `program` is argv[0]. Returns the exit status.
 *
 * The caller has blocked SIGTERM, SIGINT, SIGUSR1 and SIGCHLD.
 */
int launcher_run(const struct options *options, const char *program);

/* In a process that a launcher started: tells it that the VM runs, and returns 1; else 0. */
int launcher_tell_ready(void);
