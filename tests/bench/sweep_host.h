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
    unsigned more_fds;        /* that this program will have open besides */
    const char *load, *rate;  /* as the demo VM has them; NULL: idle, its default */
    /* Configuration of the daemon's parts (YAML); NULL: plain sampling, nothing derived from it. */
    const char *config;
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

/* What fails ends the program. */
void host_must(int r, const char *what);
void *host_memory(size_t bytes); /* zeros, for as long as the program runs */

/* Returns when all targets of the VMs have been read once. */
void host_start(const struct host_options *options, struct host *ret_host);
/* A second daemon over the VMs of `first`, which it does not stop. */
void host_again(const struct host *first, const char *config, struct host *ret_host);
/* Only the parts, over nothing yet; what is planned then is read at host_begin(). */
void host_parts(const char *config, struct host *ret_host);
void host_begin(struct host *host);
/* Ends the VMs. The parts stay as they are: the program is about to exit. */
void host_stop(struct host *host);
