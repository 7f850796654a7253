/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line of kvmstatd-demo-vm, read from argv and written back to an argv: a launcher of
 * many VMs starts itself once per VM, with the same options but the VM's own name.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct load;

/* Longest --name: a `vm NAME PID` line then fits into PIPE_BUF and is written atomically. */
#define OPTIONS_NAME_MAX 255

struct options {
    const char *name; /* NULL: unnamed; from argv, lives as long as the process */
    const struct load *load;
    bool keep_stats_fds;
    uint64_t vcpus;
    uint64_t vms;
    uint64_t fds;    /* other fds to hold open */
    uint64_t rate;   /* rounds per second and vCPU, 0: as fast as it goes */
    uint64_t rounds; /* after so many each vCPU halts for good; 0: never */
    uint64_t burst_ms, burst_every_ms, burst_exits; /* of each vCPU, with the load of that name */
};

enum options_result {
    OPTIONS_RUN,
    OPTIONS_DONE,  /* --help, --version: printed, exit 0 */
    OPTIONS_USAGE, /* wrong: said on standard error, exit 2 */
};

enum options_result options_parse(int argc, char **argv, struct options *ret_options);

/* Enough for every option with its argument, argv[0] and the closing NULL. */
#define OPTIONS_ARGV_MAX 32

struct options_argv {
    char *argv[OPTIONS_ARGV_MAX];
    char numbers[OPTIONS_ARGV_MAX][24]; /* argv points into here */
};

/* The command line that leads to `options` again. `ret` must stay where it is: it points into
 * itself. */
void options_to_argv(const struct options *options, const char *program, struct options_argv *ret);
