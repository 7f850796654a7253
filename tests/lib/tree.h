/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A recorded /proc: a temporary directory that stands in for "/" by the prefix parameter of
 * proc_open(). Whatever fails here fails the running test.
 */
#pragma once

#include <stddef.h>
#include <sys/types.h>

struct tree {
    char root[64];
};

/* A tree whose proc/stat says that the machine booted at `boot_s` since the epoch. */
void tree_make(struct tree *tree, long long boot_s);
void tree_remove(struct tree *tree);
/* Writes proc/PID/NAME, directories included. */
void tree_file(const struct tree *tree, pid_t pid, const char *name, const void *bytes, size_t len);
/* Makes proc/PID/NAME a link to `target`. */
void tree_link(const struct tree *tree, pid_t pid, const char *name, const char *target);
void tree_directory(const struct tree *tree, pid_t pid, const char *name);
