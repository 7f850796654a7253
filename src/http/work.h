/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What would take a thread that serves connections too long is done by a thread of its own, one job
 * after another, with few waiting and few of one peer. Who asked has his connection suspended
 * meanwhile, and no other connection waits.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/queue.h>

#include "cleanup.h"
#include "watch.h"

/* Owned by who submits it; not to be touched until it is run. */
struct work_job {
    /*
     * Does it, and tells its owner, who may be rid of it before this returns. `refused`: there is
     * no place for it, or no time any more: it is told so at once, on any thread.
     */
    void (*run)(struct work_job *job, bool refused);
    struct peer peer;
    TAILQ_ENTRY(work_job) link;
};
TAILQ_HEAD(work_jobs, work_job);

/* THREADS: any. */
struct work {
    const char *name; /* of the thread */
    int nice;
    size_t jobs_max;      /* that wait or are done */
    size_t per_peer_max;  /* of one peer that wait */
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t wake;
    struct work_jobs jobs;
    size_t n_jobs;
    bool running, stopping;
    pthread_t thread;
};

/* The thread starts, with the signal mask of whoever comes, when there first is something to do. */
void work_init(struct work *work, const char *name, int nice, size_t jobs_max, size_t per_peer_max);
void work_submit(struct work *work, struct work_job *job);
/* Refuses all that wait and all that come; none is left when it returns. */
void work_stop(struct work *work);
void work_deinit(struct work *work);
