/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A growing byte buffer for whole responses (up to hundreds of MB). It lives in its own mapping and
 * grows by mremap: no copy, no old and new half side by side, and what is freed goes back to the
 * kernel at once. Errors stick: write on, ask once at the end.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "cleanup.h"

struct buffer {
    char *data; /* owned mapping or NULL */
    size_t len;
    size_t capacity;
    int error; /* 0, or the -errno of the growth that failed; then len no longer moves */
};

#define BUFFER_INIT \
    (struct buffer) \
    {               \
        0           \
    }

void buffer_free(struct buffer *b);
#define CLEANUP_BUFFER CLEANUP(buffer_free)

/* Makes room for `more` bytes after len. Returns 0 or -errno (which also sticks in b->error). */
int buffer_grow(struct buffer *b, size_t more);

/* Room for `more` bytes: a pointer to write to, then advance len; NULL on error. */
static inline char *buffer_reserve(struct buffer *b, size_t more)
{
    if (b->capacity - b->len < more && buffer_grow(b, more) < 0)
        return NULL;
    return b->data + b->len;
}

static inline void buffer_put(struct buffer *b, const void *bytes, size_t len)
{
    char *to = len ? buffer_reserve(b, len) : NULL; /* nothing needs no room */
    if (to) {
        memcpy(to, bytes, len);
        b->len += len;
    }
}

static inline void buffer_puts(struct buffer *b, const char *text)
{
    buffer_put(b, text, strlen(text));
}

void buffer_printf(struct buffer *b, const char *format, ...) PRINTF_LIKE(2, 3);
