/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gzip, a piece at a time and at libdeflate's speed, which compresses whole buffers only: each
 * piece is compressed by itself and joined to those before (splice.h). So an exposition of any size
 * is compressed while it is rendered, the uncompressed bytes are never in memory together, and the
 * result is one member as every client expects it.
 */
#pragma once

#include <pthread.h>
#include <stddef.h>

#include "buffer.h"

struct gzip;

/* Compressors that are not in use: they are large, and a scrape comes every few seconds. */
struct gzip_pool {
    pthread_mutex_t lock;
    struct gzip *idle;
};

void gzip_pool_init(struct gzip_pool *pool);
void gzip_pool_deinit(struct gzip_pool *pool);

/* A compressor, used before or new; NULL when memory runs out. THREADS: any. */
struct gzip *gzip_take(struct gzip_pool *pool);
/* Accepts NULL. */
void gzip_give(struct gzip_pool *pool, struct gzip *gzip);

/*
 * A file is: begin, any number of pieces, end; all to the same buffer. Each returns 0 or -errno
 * (running out of memory also sticks in to->error).
 */
MUST_USE int gzip_begin(struct gzip *gzip, struct buffer *to);
MUST_USE int gzip_append(struct gzip *gzip, struct buffer *to, const void *bytes, size_t len);
MUST_USE int gzip_end(struct gzip *gzip, struct buffer *to);
