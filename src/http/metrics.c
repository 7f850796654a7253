/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /metrics. Frames are pinned while it renders and compresses, and let go before the first byte is
 * sent: a slow client holds bytes, never frames.
 */
#include "answer.h"
#include "view.h"

struct output {
    struct body *body;
    struct gzip *gzip; /* NULL: as it is */
};

static int on_piece(void *ctx, const char *bytes, size_t len)
{
    struct output *output = ctx;
    if (output->gzip) {
        int r = gzip_append(output->gzip, &output->body->buffer, bytes, len);
        if (r < 0)
            return r;
    } else {
        buffer_put(&output->body->buffer, bytes, len);
    }
    return body_account(output->body);
}

static int render(struct site *site, enum exposition_format format, struct output *output)
{
    CLEANUP_VIEW struct view view = {0};
    const struct exposition_sink sink = {.piece = on_piece, .ctx = output};
    int r = view_take(site->store, &view); /* may wait for other readers: the roster comes after */
    if (r < 0)
        return r;
    CLEANUP(cleanup_roster_unref) struct roster *roster = roster_get(&site->store->roster);
    (void)pthread_rwlock_rdlock(&site->exposition_lock);
    r = exposition_render(site->exposition, &view, roster, format, &sink);
    (void)pthread_rwlock_unlock(&site->exposition_lock);
    return r;
}

void metrics_answer(struct site *site, const struct request *request, struct answer *answer)
{
    enum exposition_format format = exposition_negotiate(request->accept);
    CLEANUP(cleanup_body_free) struct body *body = NULL;
    struct output output = {0};

    int r = body_new(&site->quota, &body);
    if (r == 0 && exposition_accepts_gzip(request->accept_encoding)) {
        output.gzip = gzip_take(&site->gzip);
        r = output.gzip ? gzip_begin(output.gzip, &body->buffer) : -ENOMEM;
    }
    if (r == 0) {
        output.body = body;
        r = render(site, format, &output);
    }
    if (r == 0 && output.gzip)
        r = gzip_end(output.gzip, &body->buffer);
    if (r == 0)
        r = body_account(body);
    answer->gzip = output.gzip && r == 0;
    gzip_give(&site->gzip, output.gzip);
    if (r < 0) {
        answer_error(answer, request->path, r);
        return;
    }
    answer_body(answer, exposition_content_type(format), steal_ptr(&body));
    answer->negotiated = true;
}
