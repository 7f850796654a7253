/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stats fd as a source: its schema once, its data block as often as wanted, both by pread() at
 * absolute offsets (the file offset is shared with the VMM and never used). Nothing here blocks on
 * a guest: the kernel's read takes no lock.
 */
#pragma once

#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include "cleanup.h"
#include "schema_table.h"

/* Why a stats fd was refused: one sentence. */
struct statsfd_error {
    char message[320];
};

/*
 * Reads and decodes header, id and descriptors of `fd` (borrowed) and interns the schema.
 * `ret_id` (may be NULL) gets the id string, cut to `id_size`.
 * Returns 0; -EBADMSG (the file is malformed or reads short), -ENOSPC (too many schemas) or another
 * -errno, each with *ret_error filled.
 */
MUST_USE int statsfd_open(int fd, enum scope scope, struct schema_table *table,
                          const struct schema **ret_schema, char *ret_id, size_t id_size,
                          struct statsfd_error *ret_error);

/*
 * pread() as the bare system call. glibc's is a point of thread cancellation, which nobody here
 * uses and which costs some 40 ns a call in a process with threads: a tenth of what a read takes.
 * Where an offset does not fit one register, glibc's it is.
 */
static inline ssize_t statsfd_pread(int fd, void *to, size_t len, off_t offset)
{
#ifdef __LP64__
    return syscall(SYS_pread64, fd, to, len, offset);
#else
    return pread(fd, to, len, offset);
#endif
}
