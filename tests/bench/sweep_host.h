/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host for a benchmark: demo VMs of its own, and the daemon's own parts from discovery to
 * sampler, put together as the daemon does but driven from one thread. What fails ends the program.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "broker.h"
#include "planner.h"
#include "sampler.h"
#include "store.h"

struct host_options {
    unsigned vms, vcpus, fds; /* VMs, vCPUs of each, other fds of each VMM */
};

struct host {
    pid_t vms_pid; /* of what started the VMs */
    pid_t *pids;   /* of the VMs */
    uint32_t n_pids;
    struct store *store;
    struct sampler *sampler;
    struct planner *planner;
    struct broker *broker;
};

/* Returns when all targets of the VMs have been read once. */
void host_start(const struct host_options *options, struct host *ret_host);
/* Ends the VMs. The parts stay as they are: the program is about to exit. */
void host_stop(struct host *host);
