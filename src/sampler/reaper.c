/* SPDX-License-Identifier: Apache-2.0 */
#include "reaper.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>

struct reaper {
    struct mailbox inbox;
    pthread_t thread;
    bool running; /* THREADS: whoever starts and stops */
    atomic_bool stopping;
};

static void release_all(struct reaper *reaper)
{
    struct letter *letter = mailbox_collect(&reaper->inbox);
    while (letter) {
        struct letter *next = letter->next;
        struct reapable *item = (struct reapable *)letter;
        item->release(item);
        letter = next;
    }
}

static void *reaper_main(void *arg)
{
    struct reaper *reaper = arg;
    (void)pthread_setname_np(pthread_self(), "kvmstatd-reaper");
    while (!atomic_load(&reaper->stopping)) {
        struct pollfd pollfd = {.fd = reaper->inbox.event_fd, .events = POLLIN};
        (void)poll(&pollfd, 1, -1);
        release_all(reaper);
    }
    return NULL;
}

int reaper_new(struct reaper **ret_reaper)
{
    CLEANUP_FREE struct reaper *reaper = calloc(1, sizeof *reaper);
    if (!reaper)
        return -ENOMEM;
    int r = mailbox_init(&reaper->inbox);
    if (r < 0)
        return r;
    *ret_reaper = steal_ptr(&reaper);
    return 0;
}

int reaper_start(struct reaper *reaper)
{
    atomic_store(&reaper->stopping, false);
    int r = pthread_create(&reaper->thread, NULL, reaper_main, reaper);
    reaper->running = r == 0;
    return -r;
}

void reaper_stop(struct reaper *reaper)
{
    if (reaper->running) {
        atomic_store(&reaper->stopping, true);
        mailbox_ring(&reaper->inbox);
        (void)pthread_join(reaper->thread, NULL);
        reaper->running = false;
    }
    release_all(reaper);
}

void reaper_free(struct reaper *reaper)
{
    if (!reaper)
        return;
    reaper_stop(reaper);
    mailbox_deinit(&reaper->inbox);
    free(reaper);
}

void reaper_post(struct reaper *reaper, struct reapable *item)
{
    mailbox_post(&reaper->inbox, &item->letter);
}
