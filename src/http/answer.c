/* SPDX-License-Identifier: Apache-2.0 */
#include "answer.h"

#include <stdatomic.h>

#include "clock.h"
#include "log.h"

enum {
    SAY_AGAIN_S = 60,
    RETRY_AFTER_S = 5, /* an answer that is taken at all is taken in that time */
};

int body_new(struct quota *quota, struct body **ret_body)
{
    struct body *body = calloc(1, sizeof *body);
    if (!body)
        return -ENOMEM;
    body->buffer = BUFFER_INIT;
    holding_init(&body->holding, quota);
    *ret_body = body;
    return 0;
}

int body_account(struct body *body)
{
    if (body->buffer.error)
        return body->buffer.error;
    return holding_add(&body->holding, body->buffer.len - body->holding.bytes);
}

void body_free(struct body *body)
{
    if (!body)
        return;
    buffer_free(&body->buffer);
    holding_end(&body->holding);
    free(body);
}

void answer_text(struct answer *answer, unsigned status, const char *text)
{
    answer->status = status;
    answer->content_type = "text/plain; charset=utf-8";
    answer->text = text;
}

void answer_body(struct answer *answer, const char *content_type, struct body *body)
{
    answer->status = 200;
    answer->content_type = content_type;
    answer->body = body;
}

struct output {
    struct body *body;
    struct gzip *gzip; /* NULL: as it is */
};

static int take_piece(void *ctx, const char *bytes, size_t len)
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

static int write_pieces(struct output *output, answer_write_fn *write, void *ctx)
{
    struct buffer *to = &output->body->buffer;
    int r = output->gzip ? gzip_begin(output->gzip, to) : 0;
    if (r == 0)
        r = write(ctx, take_piece, output);
    if (r == 0 && output->gzip)
        r = gzip_end(output->gzip, to);
    return r < 0 ? r : body_account(output->body);
}

int answer_pieces(struct site *site, const struct request *request, const char *content_type,
                  answer_write_fn *write, void *ctx, struct answer *answer)
{
    CLEANUP(cleanup_body_free) struct body *body = NULL;
    bool gzip = exposition_accepts_gzip(request->accept_encoding);
    int r = body_new(&site->quota, &body);
    if (r < 0)
        return r;
    struct output output = {body, gzip ? gzip_take(&site->gzip) : NULL};
    r = gzip && !output.gzip ? -ENOMEM : write_pieces(&output, write, ctx);
    gzip_give(&site->gzip, output.gzip);
    if (r < 0)
        return r;
    answer_body(answer, content_type, steal_ptr(&body));
    answer->gzip = gzip;
    answer->negotiated = true;
    return 0;
}

void answer_error(struct answer *answer, const char *path, int error)
{
    static _Atomic int64_t say_again_ns;
    int64_t now_ns = clock_now_ns();
    int64_t due_ns = atomic_load_explicit(&say_again_ns, memory_order_relaxed);
    bool say = now_ns >= due_ns && atomic_compare_exchange_strong_explicit(
                                       &say_again_ns, &due_ns, now_ns + SAY_AGAIN_S * NSEC_PER_SEC,
                                       memory_order_relaxed, memory_order_relaxed);

    if (error == -ENOBUFS) {
        answer_text(answer, 503, "Too many answers are waiting to be read. Try again later.\n");
        answer->retry_after_s = RETRY_AFTER_S;
        if (say)
            log_warn("http", "%s: refused: answers that clients have not read yet hold %d MiB",
                     path, QUOTA_ANSWERS_MIB);
        return;
    }
    answer_text(answer, 500, "The answer could not be made. The log says why.\n");
    if (say)
        log_error("http", "%s: no answer: %s", path, strerrordesc_np(-error));
}
