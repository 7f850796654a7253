/* SPDX-License-Identifier: Apache-2.0 */
#include "quota.h"

void quota_init(struct quota *quota, unsigned requests_max, uint64_t bytes_max)
{
    *quota = (struct quota){.requests_max = requests_max, .bytes_max = bytes_max};
    (void)pthread_mutex_init(&quota->lock, NULL);
    TAILQ_INIT(&quota->holdings);
    LIST_INIT(&quota->entrants);
}

void quota_deinit(struct quota *quota)
{
    (void)pthread_mutex_destroy(&quota->lock);
}

void quota_set_requests(struct quota *quota, unsigned requests_max)
{
    (void)pthread_mutex_lock(&quota->lock);
    quota->requests_max = requests_max;
    (void)pthread_mutex_unlock(&quota->lock);
}

static bool has_place(const struct quota *quota, const struct peer *peer)
{
    unsigned of_peer = 0;
    const struct entrant *entrant;
    LIST_FOREACH(entrant, &quota->entrants, link)
    {
        of_peer += peer_equal(&entrant->peer, peer);
    }
    return quota->requests < quota->requests_max &&
           of_peer < quota->requests_max - quota->requests_max / QUOTA_REQUESTS_PER_SPARE;
}

bool quota_enter(struct quota *quota, struct entrant *entrant, struct peer peer)
{
    (void)pthread_mutex_lock(&quota->lock);
    entrant->entered = has_place(quota, &peer);
    if (entrant->entered) {
        entrant->peer = peer;
        LIST_INSERT_HEAD(&quota->entrants, entrant, link);
        quota->requests++;
    }
    (void)pthread_mutex_unlock(&quota->lock);
    return entrant->entered;
}

void quota_leave(struct quota *quota, struct entrant *entrant)
{
    if (!entrant->entered)
        return;
    (void)pthread_mutex_lock(&quota->lock);
    LIST_REMOVE(entrant, link);
    entrant->entered = false;
    quota->requests--;
    (void)pthread_mutex_unlock(&quota->lock);
}

void holding_init(struct holding *holding, struct quota *quota)
{
    *holding = (struct holding){.quota = quota};
}

int holding_add(struct holding *holding, uint64_t bytes)
{
    struct quota *quota = holding->quota;
    int r = 0;
    if (bytes == 0)
        return 0;
    (void)pthread_mutex_lock(&quota->lock);
    const struct holding *oldest = TAILQ_FIRST(&quota->holdings);
    if (oldest && oldest != holding &&
        (quota->bytes >= quota->bytes_max || bytes > quota->bytes_max - quota->bytes)) {
        r = -ENOBUFS;
    } else {
        if (holding->bytes == 0)
            TAILQ_INSERT_TAIL(&quota->holdings, holding, link);
        holding->bytes += bytes;
        quota->bytes += bytes;
    }
    (void)pthread_mutex_unlock(&quota->lock);
    return r;
}

void holding_end(struct holding *holding)
{
    struct quota *quota = holding->quota;
    if (!quota || holding->bytes == 0)
        return;
    (void)pthread_mutex_lock(&quota->lock);
    TAILQ_REMOVE(&quota->holdings, holding, link);
    quota->bytes -= holding->bytes;
    holding->bytes = 0;
    (void)pthread_mutex_unlock(&quota->lock);
}
