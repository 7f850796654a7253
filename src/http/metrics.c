/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /metrics. Frames are pinned while it renders and compresses, and let go before the first byte is
 * sent: a slow client holds bytes, never frames.
 */
#include "answer.h"
#include "view.h"

struct scrape {
    struct site *site;
    enum exposition_format format;
};

static int render(void *ctx, answer_piece_fn *piece, void *output)
{
    const struct scrape *scrape = ctx;
    struct site *site = scrape->site;
    CLEANUP_VIEW struct view view = {0};
    const struct exposition_sink sink = {.piece = piece, .ctx = output};
    int r = view_take(site->store, &view); /* may wait for other readers: the roster comes after */
    if (r < 0)
        return r;
    CLEANUP(cleanup_roster_unref) struct roster *roster = roster_get(&site->store->roster);
    (void)pthread_rwlock_rdlock(&site->exposition_lock);
    r = exposition_render(site->exposition, &view, roster, scrape->format, &sink);
    (void)pthread_rwlock_unlock(&site->exposition_lock);
    return r;
}

void metrics_answer(struct site *site, const struct request *request, struct answer *answer)
{
    struct scrape scrape = {site, exposition_negotiate(request->accept)};
    const char *type = exposition_content_type(scrape.format);
    int r = answer_pieces(site, request, type, render, &scrape, answer);
    if (r < 0)
        answer_error(answer, request->path, r);
}
