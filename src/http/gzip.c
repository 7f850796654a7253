/* SPDX-License-Identifier: Apache-2.0 */
#include "gzip.h"

#include <libdeflate.h>

enum {
    GZIP_LEVEL = 1,
};

struct gzip {
    struct gzip *next; /* in gzip_pool.idle */
    struct libdeflate_compressor *compressor;
};

static void gzip_free(struct gzip *gzip)
{
    libdeflate_free_compressor(gzip->compressor);
    free(gzip);
}

static struct gzip *gzip_new(void)
{
    struct gzip *gzip = calloc(1, sizeof *gzip);
    if (!gzip)
        return NULL;
    gzip->compressor = libdeflate_alloc_compressor(GZIP_LEVEL);
    if (!gzip->compressor) {
        free(gzip);
        return NULL;
    }
    return gzip;
}

void gzip_pool_init(struct gzip_pool *pool)
{
    (void)pthread_mutex_init(&pool->lock, NULL);
    pool->idle = NULL;
}

void gzip_pool_deinit(struct gzip_pool *pool)
{
    while (pool->idle) {
        struct gzip *gzip = pool->idle;
        pool->idle = gzip->next;
        gzip_free(gzip);
    }
    (void)pthread_mutex_destroy(&pool->lock);
}

struct gzip *gzip_take(struct gzip_pool *pool)
{
    (void)pthread_mutex_lock(&pool->lock);
    struct gzip *gzip = pool->idle;
    if (gzip)
        pool->idle = gzip->next;
    (void)pthread_mutex_unlock(&pool->lock);
    return gzip ? gzip : gzip_new();
}

void gzip_give(struct gzip_pool *pool, struct gzip *gzip)
{
    if (!gzip)
        return;
    (void)pthread_mutex_lock(&pool->lock);
    gzip->next = pool->idle;
    pool->idle = gzip;
    (void)pthread_mutex_unlock(&pool->lock);
}

int gzip_append(struct gzip *gzip, struct buffer *to, const void *bytes, size_t len)
{
    size_t bound = libdeflate_gzip_compress_bound(gzip->compressor, len);
    char *out = buffer_reserve(to, bound);
    if (!out)
        return to->error;
    to->len += libdeflate_gzip_compress(gzip->compressor, bytes, len, out, bound);
    return 0;
}
