/* SPDX-License-Identifier: Apache-2.0 */
#include "work.h"

#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static void *work_run(void *arg)
{
    struct work *work = arg;
    struct work_job *job;
    (void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), work->nice);
    (void)pthread_mutex_lock(&work->lock);
    for (;;) {
        while (!work->stopping && TAILQ_EMPTY(&work->jobs))
            (void)pthread_cond_wait(&work->wake, &work->lock);
        job = TAILQ_FIRST(&work->jobs);
        if (!job)
            break;
        TAILQ_REMOVE(&work->jobs, job, link);
        bool refused = work->stopping;
        (void)pthread_mutex_unlock(&work->lock);
        job->run(job, refused);
        (void)pthread_mutex_lock(&work->lock);
        work->n_jobs--;
    }
    (void)pthread_mutex_unlock(&work->lock);
    return NULL;
}

/* The caller holds the lock. */
static bool is_running(struct work *work)
{
    if (!work->running && !work->stopping) {
        work->running = pthread_create(&work->thread, NULL, work_run, work) == 0;
        if (work->running)
            (void)pthread_setname_np(work->thread, work->name);
    }
    return work->running;
}

/* The caller holds the lock. */
static bool has_place(const struct work *work, const struct peer *peer)
{
    const struct work_job *job;
    size_t of_peer = 0;
    TAILQ_FOREACH(job, &work->jobs, link)
    {
        of_peer += peer_equal(&job->peer, peer);
    }
    return !work->stopping && work->n_jobs < work->jobs_max && of_peer < work->per_peer_max;
}

void work_submit(struct work *work, struct work_job *job)
{
    (void)pthread_mutex_lock(&work->lock);
    bool taken = has_place(work, &job->peer) && is_running(work);
    if (taken) {
        work->n_jobs++;
        TAILQ_INSERT_TAIL(&work->jobs, job, link);
        (void)pthread_cond_signal(&work->wake);
    }
    (void)pthread_mutex_unlock(&work->lock);
    if (!taken)
        job->run(job, true);
}

void work_init(struct work *work, const char *name, int nice, size_t jobs_max, size_t per_peer_max)
{
    *work = (struct work){
        .name = name,
        .nice = nice,
        .jobs_max = jobs_max,
        .per_peer_max = per_peer_max,
    };
    (void)pthread_mutex_init(&work->lock, NULL);
    (void)pthread_cond_init(&work->wake, NULL);
    TAILQ_INIT(&work->jobs);
}

void work_stop(struct work *work)
{
    (void)pthread_mutex_lock(&work->lock);
    work->stopping = true;
    bool running = work->running;
    work->running = false;
    (void)pthread_cond_signal(&work->wake);
    (void)pthread_mutex_unlock(&work->lock);
    if (running)
        (void)pthread_join(work->thread, NULL);
}

void work_deinit(struct work *work)
{
    (void)pthread_cond_destroy(&work->wake);
    (void)pthread_mutex_destroy(&work->lock);
}
