/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whose VM is it: name and uuid as its stack gives them. One file a stack; a stack recognises its
 * VMM by the executable's name and reads the command line. Only processes that hold KVM files are
 * asked.
 *
 * A VMM may write anything into its own command line: all strings hold any bytes, and all reading
 * is bounded.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "cleanup.h"
#include "proc.h"

/* Owned strings of any bytes, never NULL after identity_read(), "" when unknown. */
struct identity {
    char *name;
    char *uuid;
    char *vmm; /* the stack's name ("qemu"), else the executable's */
    char *machine;
    char *unit;
};
void identity_free(struct identity *identity);
#define CLEANUP_IDENTITY CLEANUP(identity_free)

/*
 * What is unknown stays ""; a process that has vanished is no error either. Returns 0 or -ENOMEM.
 */
MUST_USE int identity_read(const struct proc *proc, pid_t pid, struct identity *ret_identity);

/* A command line taken apart: items[0] … items[n - 1], each NUL-terminated. */
struct arguments {
    char *bytes; /* owned */
    char **items;
    size_t n;
};
/* Copies `bytes` (as /proc/PID/cmdline has it, or any bytes). Returns 0 or -ENOMEM. */
MUST_USE int arguments_split(const char *bytes, size_t len, struct arguments *ret_arguments);
void arguments_free(struct arguments *arguments);
#define CLEANUP_ARGUMENTS CLEANUP(arguments_free)

struct identity_stack {
    const char *vmm;
    /* `executable`: a file's name without its directory. */
    bool (*recognises)(const char *executable);
    /* Fills name and uuid where they are given. Returns 0 or -ENOMEM. */
    int (*read_arguments)(const struct arguments *arguments, struct identity *identity);
};
extern const struct identity_stack identity_qemu;
extern const struct identity_stack identity_demo;

/* Replaces *field by a copy of the first `len` bytes of `bytes`. Returns 0 or -ENOMEM. */
MUST_USE int identity_set(char **field, const char *bytes, size_t len);
