/* SPDX-License-Identifier: Apache-2.0 */
#include "routes.h"

#include <string.h>
#include <strings.h>

static void healthy_answer(struct site *site, const struct request *request, struct answer *answer)
{
    (void)site;
    (void)request;
    answer_text(answer, 200, "kvmstatd is alive.\n");
}

/* Ready: there is something to scrape, or it is known that there is nothing. */
static void ready_answer(struct site *site, const struct request *request, struct answer *answer)
{
    (void)request;
    const struct selfstats *self = &site->store->self;
    if (!atomic_load_explicit(&self->looked_once, memory_order_acquire)) {
        answer_text(answer, 503, "Not ready: the first look for VMs is not done yet.\n");
        return;
    }
    CLEANUP(cleanup_roster_unref) struct roster *roster = roster_get(&site->store->roster);
    bool some_to_read = roster && roster->read > 0;
    if (some_to_read && atomic_load_explicit(&self->ticks, memory_order_relaxed) == 0) {
        answer_text(answer, 503, "Not ready: no VM has been sampled yet.\n");
        return;
    }
    answer_text(answer, 200, "kvmstatd is ready.\n");
}

static const struct route routes[] = {
    {"/metrics", metrics_answer, .counted = true, .takes_long = false},
    {"/", page_answer, .counted = true, .takes_long = false},
    {"/-/healthy", healthy_answer, .counted = false, .takes_long = false},
    {"/-/ready", ready_answer, .counted = false, .takes_long = false},
    {"/api/v1/vms", vms_answer, .counted = true, .takes_long = false},
    {"/api/v1/history", history_answer, .counted = true, .takes_long = true},
};

/* A whole URL, as to a proxy, is the same request: RFC 9112, 3.2.2 wants servers to take it. */
static const char *without_authority(const char *target)
{
    static const char *const schemes[] = {"http://", "https://"};
    for (size_t i = 0; i < ARRAY_LEN(schemes); i++) {
        size_t len = strlen(schemes[i]);
        if (strncasecmp(target, schemes[i], len) != 0)
            continue;
        const char *path = strchr(target + len, '/');
        return path ? path : "/";
    }
    return target;
}

const struct route *routes_find(const char *target)
{
    const char *path = without_authority(target);
    for (size_t i = 0; i < ARRAY_LEN(routes); i++) {
        if (strcmp(routes[i].path, path) == 0)
            return &routes[i];
    }
    return NULL;
}

bool routes_allow_method(const char *method)
{
    return strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;
}

bool routes_admit(struct site *site, const struct route *route, const struct request *request,
                  struct answer *ret_answer, struct entrant *entrant)
{
    *ret_answer = (struct answer){0};
    if (!routes_allow_method(request->method)) {
        answer_text(ret_answer, 405, "Only GET and HEAD.\n");
        ret_answer->allow = "GET, HEAD";
    } else if (!route) {
        answer_text(ret_answer, 404, "There is nothing here. The start page is at /\n");
    } else if (route->counted && !quota_enter(&site->quota, entrant, request->peer)) {
        answer_text(ret_answer, 503, "Too many requests at a time (web.max_requests).\n");
        ret_answer->retry_after_s = 1;
    } else {
        return true;
    }
    return false;
}
