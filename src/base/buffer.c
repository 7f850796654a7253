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

/* The mapping of `old_bytes`, or a first one, made as large as `bytes`. MAP_FAILED with errno. */
static void *map_again(void *old, size_t old_bytes, size_t bytes)
{
#ifndef __SANITIZE_THREAD__
    if (old)
        return mremap(old, old_bytes, bytes, MREMAP_MAYMOVE);
#endif
    void *data = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    /*
     * The thread sanitizer knows nothing of mremap(): an address that one thread's mapping moved
     * away from and another's moved to is a race to it. It gets a copy.
     */
    if (old && data != MAP_FAILED) {
        memcpy(data, old, old_bytes);
        (void)munmap(old, old_bytes);
    }
    return data;
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
    void *data = map_again(b->data, b->capacity, capacity);
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
