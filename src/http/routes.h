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
};

/* The route of a request's target without its query, or NULL. */
const struct route *routes_find(const char *target);

/* Whether the method may be used at all. */
bool routes_allow_method(const char *method);

/*
 * Answers. `route` is what routes_find() gave. `entered`: set when a place among web.max_requests
 * was taken, which the caller gives back by quota_leave() when the request is over.
 */
void routes_answer(struct site *site, const struct route *route, const struct request *request,
                   struct answer *ret_answer, bool *ret_entered);
