/* SPDX-License-Identifier: Apache-2.0 */
/* A limit of requests over time: a bucket that gets a token every interval and holds `burst`. */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "cleanup.h"

/* THREADS: any. */
struct rate {
    pthread_mutex_t lock;
    int64_t full_ns; /* when the bucket would be full again */
};

void rate_init(struct rate *rate);
void rate_deinit(struct rate *rate);
/* Takes a token. An interval of 0 is no limit; with a burst of 0 there never is one to take. */
MUST_USE bool rate_take(struct rate *rate, int64_t interval_ns, uint32_t burst, int64_t now_ns);
