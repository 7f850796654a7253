/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gzip, a piece at a time: each piece becomes a member of its own, and members one after another
 * are one gzip file (RFC 1952, 2.2). So an exposition of any size is compressed while it is
 * rendered, and the uncompressed bytes are never in memory together.
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

/* Appends `len` bytes as one member. Returns 0 or -errno (which also sticks in to->error). */
MUST_USE int gzip_append(struct gzip *gzip, struct buffer *to, const void *bytes, size_t len);
