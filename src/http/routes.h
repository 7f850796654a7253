/* SPDX-License-Identifier: Apache-2.0 */
/* From a request to its answer. */
#pragma once

#include "answer.h"

struct route {
    const char *path;
    void (*answer)(struct site *site, const struct request *request, struct answer *answer);
    /*
     * Counts among web.max_requests. What is answered by a sentence does not: a probe must not fail
     * because others read slowly.
     */
    bool counted;
    bool takes_long; /* up to seconds: not on a thread that others wait for */
};

/* The route of a request's target without its query, or NULL. */
const struct route *routes_find(const char *target);

/* Whether the method may be used at all. */
bool routes_allow_method(const char *method);

/*
 * Whether the request may be answered by its route, which is what routes_find() gave; *ret_answer
 * otherwise is the answer. Where it may, quota_leave() is owed when the request is over.
 */
MUST_USE bool routes_admit(struct site *site, const struct route *route,
                           const struct request *request, struct answer *ret_answer,
                           struct entrant *entrant);
