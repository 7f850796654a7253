/* SPDX-License-Identifier: Apache-2.0 */
#include "buffer.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>

enum {
    FIRST_BYTES = 64 * 1024,
};

void buffer_free(struct buffer *b)
{
    if (b->data)
        (void)munmap(b->data, b->capacity);
    *b = BUFFER_INIT;
}

int buffer_grow(struct buffer *b, size_t more)
{
    size_t wanted;
    if (b->error)
        return b->error;
    if (__builtin_add_overflow(b->len, more, &wanted))
        return b->error = -ENOMEM;

    size_t capacity = b->capacity ? b->capacity : FIRST_BYTES;
    while (capacity < wanted) {
        if (__builtin_mul_overflow(capacity, (size_t)2, &capacity))
            return b->error = -ENOMEM;
    }
    /* Pages nobody wrote to cost nothing, so doubling the mapping does not double the memory. */
    void *data =
        b->data ? mremap(b->data, b->capacity, capacity, MREMAP_MAYMOVE)
                : mmap(NULL, capacity, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED)
        return b->error = -errno;
    b->data = data;
    b->capacity = capacity;
    return 0;
}

void buffer_printf(struct buffer *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int wanted = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (wanted < 0) {
        b->error = -EINVAL;
        return;
    }
    char *to = buffer_reserve(b, (size_t)wanted + 1);
    if (!to)
        return;
    va_start(args, format);
    (void)vsnprintf(to, (size_t)wanted + 1, format, args);
    va_end(args);
    b->len += (size_t)wanted;
}
