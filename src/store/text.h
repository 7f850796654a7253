/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes from outside made fit for labels, JSON and HTML. */
#pragma once

#include <stddef.h>

#include "cleanup.h"

enum {
    /* Names longer than this are cut: a label is for telling VMs apart, not for storage. */
    TEXT_BYTES_MAX = 1024,
};

/*
 * A malloc'd, NUL-terminated, valid UTF-8 copy of the first `len` bytes, cut to TEXT_BYTES_MAX at a
 * character. Each invalid sequence (overlong, surrogate, NUL included) becomes U+FFFD, as Unicode
 * recommends: one for each maximal part of a well-formed sequence. NULL when memory runs out.
 */
char *text_to_utf8(const char *bytes, size_t len);

/*
 * Appends `text` (valid UTF-8) to `to` as the inside of a Prometheus label value: backslash, quote
 * and line feed escaped. `to` has room for 2 * strlen(text). Returns the new end; writes no NUL.
 */
char *text_escape_label(char *to, const char *text);
