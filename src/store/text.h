/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes from outside made fit for labels, JSON and HTML. */
#pragma once

#include <stddef.h>

#include "cleanup.h"

enum {
    /* Names longer than this are cut: a label is for telling VMs apart, not for storage. */
    TEXT_BYTES_MAX = 1024,
    /* What tells two of one name apart: see text_with_suffix(). */
    TEXT_SUFFIX_BYTES_MAX = 32,
};

/*
 * A malloc'd, NUL-terminated, valid UTF-8 copy of the first `len` bytes, cut to TEXT_BYTES_MAX at a
 * character. Each invalid sequence (overlong, surrogate, NUL included) becomes U+FFFD, as Unicode
 * recommends: one for each maximal part of a well-formed sequence. NULL when memory runs out.
 */
char *text_to_utf8(const char *bytes, size_t len);

/*
 * A malloc'd, NUL-terminated `text` (valid UTF-8) with `suffix` behind it, at most TEXT_BYTES_MAX
 * in all: of a long text a character or more goes, of the suffix (at most TEXT_SUFFIX_BYTES_MAX)
 * none, so that what differs in it differs. NULL when memory runs out.
 */
char *text_with_suffix(const char *text, const char *suffix);

/*
 * Appends `text` (valid UTF-8) to `to` as the inside of a Prometheus label value: backslash, quote
 * and line feed escaped. `to` has room for 2 * strlen(text). Returns the new end; writes no NUL.
 */
char *text_escape_label(char *to, const char *text);
