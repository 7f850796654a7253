/* SPDX-License-Identifier: Apache-2.0 */
/* The directory that dumps go to: a file is there whole or not at all, and the oldest ones go. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "cleanup.h"

/* A file being written, with no name yet. */
struct dump_output {
    int dir_fd;
    int fd;
    char temporary[32]; /* its name where the file system has no unnamed files; "" else */
};

/*
 * Whether dump_output_open() would, as things stand. Nothing is made. Returns 0 or the -errno it
 * would fail with.
 */
MUST_USE int dump_directory_check(const char *directory);
/*
 * Opens the directory, which is made where only its last part is missing, and a file in it.
 * Returns 0 or -errno.
 */
MUST_USE int dump_output_open(const char *directory, struct dump_output *ret_output);
MUST_USE int dump_output_write(struct dump_output *output, const void *bytes, size_t len);
/* On disk, and then known by `name`. Returns 0 or -errno; it is to be closed in either case. */
MUST_USE int dump_output_commit(struct dump_output *output, const char *name);
/* What was not committed has never been there. */
void dump_output_close(struct dump_output *output);
#define CLEANUP_DUMP_OUTPUT CLEANUP(dump_output_close)

/*
 * Removes the oldest of our files (by name) until no more than these remain. `newest` is what was
 * written last and stays, whatever dates others have in their names: clocks are set back.
 */
void dump_directory_prune(int dir_fd, const char *newest, size_t files_max, uint64_t bytes_max);

/* kvmstatd-<time>-<why>-<vm>.kvmdump: names sort by time, and hold nothing but [A-Za-z0-9._@-]. */
void dump_file_name(int64_t wall_ns, const char *why, const char *vm, char *ret_name, size_t size);
