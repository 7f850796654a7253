/* SPDX-License-Identifier: Apache-2.0 */
/* Files as a whole. */
#pragma once

#include "config.h"

/*
 * The whole of a file that has less than `max` bytes, which is to be free()d. `regular`: of nothing
 * else, and without waiting for whoever opens the other end of a pipe. Returns 0, -EISDIR, -EINVAL
 * (it is no regular file, and was to be one), -EFBIG, -ENOMEM or another -errno.
 */
MUST_USE int file_slurp(const char *path, bool regular, size_t max, char **ret_text,
                        size_t *ret_len);

/*
 * The same of a configuration, with *ret_error filled. Never reads beyond CONFIG_FILE_MAX_BYTES,
 * and one byte more to see that there is more. `example`: what a file of this kind is called, for
 * the message about a folder.
 */
MUST_USE int file_read(const char *path, bool regular, const char *example, char **ret_text,
                       size_t *ret_len, struct config_error *ret_error);

/* Fills the error for a file that is too large. Returns -EINVAL. */
int file_refuse_size(const char *name, struct config_error *ret_error);
