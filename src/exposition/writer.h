/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of one rendering on their way to the sink. Lines are put into one reused piece; whoever
 * writes a line first asks for room for all of it, so a piece of text always ends at a line end.
 * After the first error no room is given any more, and the error is asked for once, at the end.
 */
#pragma once

#include "exposition.h"

enum {
    WRITER_PIECE_BYTES = 256 * 1024,
    /* What writer_copy() and number_put_*() may write past their end. */
    WRITER_OVERRUN = 16,
};

/* Bytes that are followed by WRITER_OVERRUN more that may be read: writer_copy() does. */
struct snippet {
    const char *bytes;
    uint32_t len;
};

struct writer {
    char *at;    /* the next byte goes here */
    char *limit; /* lines end before this */
    char *base;  /* owned */
    size_t capacity;
    const struct exposition_sink *sink;
    int error; /* 0 or the first -errno */
};

/* Returns 0 or -ENOMEM. `sink` is borrowed. */
MUST_USE int writer_init(struct writer *w, const struct exposition_sink *sink);
void writer_deinit(struct writer *w);
#define CLEANUP_WRITER CLEANUP(writer_deinit)
/* Hands the last piece on. Returns 0 or the first -errno. */
MUST_USE int writer_finish(struct writer *w);

/* The slow half of writer_room(). */
bool writer_make_room(struct writer *w, size_t len);

/* Room for a line of up to `len` bytes at w->at; false after an error. */
static inline bool writer_room(struct writer *w, size_t len)
{
    return __builtin_expect((size_t)(w->limit - w->at) >= len, 1) || writer_make_room(w, len);
}

/*
 * memcpy() for texts of a few dozen bytes: in steps of 16, so that no call and no switch over the
 * length is needed. Reads and writes up to WRITER_OVERRUN - 1 bytes past the end.
 */
static inline char *writer_copy(char *to, const char *from, size_t len)
{
    char *end = to + len;
    do {
        memcpy(to, from, 16);
        to += 16;
        from += 16;
    } while (to < end);
    return end;
}

/* Bytes that may be cut anywhere, however many: no text. */
void writer_put_long(struct writer *w, const char *bytes, size_t len);
/* One or more whole lines. */
void writer_put(struct writer *w, const char *bytes, size_t len);
void writer_printf(struct writer *w, const char *format, ...) PRINTF_LIKE(2, 3);
