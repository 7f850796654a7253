/* SPDX-License-Identifier: Apache-2.0 */
/* kvmstatctl's commands: a file each, a line in the table of main.c each. */
#pragma once

#include <stdint.h>

enum {
    EXIT_USAGE = 2, /* besides EXIT_SUCCESS and EXIT_FAILURE */
};

/* `argv[0]` is the command's name. Returns an exit status; what is wrong has been said. */
typedef int command_fn(int argc, char **argv);

int command_list(int argc, char **argv);
int command_top(int argc, char **argv);
int command_csv(int argc, char **argv);
int command_dump(int argc, char **argv);

/* Says what is wrong (`what` may be NULL: has been said) and where help is. Returns EXIT_USAGE. */
int command_usage(const char *command, const char *what, const char *argument);

/* What `dump` does for a VM instead of a file. */
struct client_options;
struct dump_vm_options {
    const char *vm;
    const char *stats; /* globs; NULL: all */
    int32_t vcpu;      /* < 0: all */
    int json;
    const struct client_options *client;
};
int dump_vm_now(const struct dump_vm_options *options);
