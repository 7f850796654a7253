/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a route answers, and what it is answered from. Handlers know nothing of libmicrohttpd: they
 * get a request, fill an answer, and may be called by any number of threads at a time.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "buffer.h"
#include "exposition.h"
#include "gzip.h"
#include "quota.h"
#include "store.h"

/* What handlers work with. */
struct site {
    struct store *store;              /* borrowed */
    pthread_rwlock_t exposition_lock; /* read-held while rendering */
    struct exposition *exposition;    /* borrowed; guarded by exposition_lock */
    struct quota quota;
    atomic_bool stopping; /* what takes long is called off */
    struct gzip_pool gzip;
    const char *version;
};

/* Strings are borrowed while the request lasts; headers that were not sent are NULL. */
struct request {
    struct peer peer;
    const char *method, *path;
    const char *accept, *accept_encoding;
    /* Of what stands behind the ?; NULL: not given. The function may be NULL: there is nothing. */
    const char *(*argument)(void *ctx, const char *name);
    void *ctx;
};

static inline const char *request_argument(const struct request *request, const char *name)
{
    return request->argument ? request->argument(request->ctx, name) : NULL;
}

/* The bytes of an answer and their place in the quota. On the heap: it outlives its request. */
struct body {
    struct buffer buffer;
    struct holding holding;
};

/* Returns 0 or -ENOMEM. */
MUST_USE int body_new(struct quota *quota, struct body **ret_body);
/* Counts what was written since the last call. Returns 0, -ENOBUFS, or the buffer's error. */
MUST_USE int body_account(struct body *body);
void body_free(struct body *body);
DEFINE_CLEANUP(struct body *, body_free)

struct answer {
    unsigned status;
    const char *content_type; /* static */
    const char *text;         /* the whole answer, static; used when there is no body */
    struct body *body;        /* owned */
    const char *allow;        /* methods, with a 405 */
    unsigned retry_after_s;   /* with a 503; 0: not said */
    char recording[64];       /* X-Kvmstatd-Recording, "": not said */
    bool negotiated;          /* depends on Accept and Accept-Encoding */
    bool gzip;                /* the body is compressed */
    bool html;                /* a page: what it may load is nothing */
};

/* A sentence as text/plain. */
void answer_text(struct answer *answer, unsigned status, const char *text);
/* Consumes `body`. */
void answer_body(struct answer *answer, const char *content_type, struct body *body);
/* That it failed: -ENOBUFS is a 503, all else a 500. Says it in the log, not more than once a
 * minute. */
void answer_error(struct answer *answer, const char *path, int error);

/* Takes the pieces of an answer, as exposition_sink.piece. */
typedef int answer_piece_fn(void *output, const char *bytes, size_t len);
/*
 * An answer that is made piece by piece, compressed where the client takes that. `write` hands all
 * of it to `piece` with `output`, and returns 0 or -errno. Returns 0, or what has failed.
 */
typedef int answer_write_fn(void *ctx, answer_piece_fn *piece, void *output);
MUST_USE int answer_pieces(struct site *site, const struct request *request,
                           const char *content_type, answer_write_fn *write, void *ctx,
                           struct answer *answer);

/* The handlers, by file. */
void history_answer(struct site *site, const struct request *request, struct answer *answer);
void metrics_answer(struct site *site, const struct request *request, struct answer *answer);
void page_answer(struct site *site, const struct request *request, struct answer *answer);
void vms_answer(struct site *site, const struct request *request, struct answer *answer);
