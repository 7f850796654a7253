/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stats fd as a source: its schema once, its data block as often as wanted, both by pread() at
 * absolute offsets (the file offset is shared with the VMM and never used). Nothing here blocks on
 * a guest: the kernel's read takes no lock.
 */
#pragma once

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

/* The tick's read: one data block into `block`. Returns the bytes read, or -1 with errno. */
static inline ssize_t statsfd_read(int fd, const struct schema *schema, void *block)
{
    return pread(fd, block, schema->data_bytes, schema->data_offset);
}
