/* SPDX-License-Identifier: Apache-2.0 */
#include "writer.h"

#include <stdarg.h>
#include <stdio.h>

static int writer_set_capacity(struct writer *w, size_t capacity)
{
    char *base = malloc(capacity + WRITER_OVERRUN);
    if (!base)
        return -ENOMEM;
    free(w->base);
    w->base = w->at = base;
    w->limit = base + capacity;
    w->capacity = capacity;
    return 0;
}

int writer_init(struct writer *w, const struct exposition_sink *sink)
{
    *w = (struct writer){.sink = sink};
    return writer_set_capacity(w, WRITER_PIECE_BYTES);
}

void writer_deinit(struct writer *w)
{
    free(w->base);
    w->base = NULL;
}

static void writer_flush(struct writer *w)
{
    if (w->error == 0 && w->at > w->base)
        w->error = w->sink->piece(w->sink->ctx, w->base, (size_t)(w->at - w->base));
    w->at = w->base;
}

int writer_finish(struct writer *w)
{
    writer_flush(w);
    return w->error;
}

bool writer_make_room(struct writer *w, size_t len)
{
    writer_flush(w);
    if (w->error == 0 && len > w->capacity)
        w->error = writer_set_capacity(w, len);
    if (w->error < 0) {
        w->limit = w->at; /* so that every further line comes here and is refused */
        return false;
    }
    return true;
}

void writer_put(struct writer *w, const char *bytes, size_t len)
{
    if (len && writer_room(w, len)) {
        memcpy(w->at, bytes, len);
        w->at += len;
    }
}

void writer_put_long(struct writer *w, const char *bytes, size_t len)
{
    while (len && writer_room(w, 1)) {
        size_t part = MIN_OF(len, (size_t)(w->limit - w->at));
        w->at = mempcpy(w->at, bytes, part);
        bytes += part;
        len -= part;
    }
}

void writer_printf(struct writer *w, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (len < 0 || !writer_room(w, (size_t)len + 1))
        return;
    va_start(args, format);
    (void)vsnprintf(w->at, (size_t)len + 1, format, args);
    va_end(args);
    w->at += len;
}
