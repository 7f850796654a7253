/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all requests together may take: how many are in progress, and how many bytes their answers
 * hold. A reader that is slow holds its place and its bytes until it is done or cut off (watch.h);
 * who comes when there is no more is told so at once, and nobody waits for anybody. A peer alone
 * never has all of the places.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "cleanup.h"
#include "watch.h"

enum {
    /*
     * Answers in memory, in MiB. 1,000 VMs with 4 vCPUs each and every series that can be had make
     * some 60 MiB uncompressed and 4 MiB compressed, so this is eight of the largest or any sane
     * number of ordinary ones, and a host that runs VMs can spare it for the moment.
     */
    QUOTA_ANSWERS_MIB = 512,
    /* Of so many places one is left to other peers than the one that has all the others. */
    QUOTA_REQUESTS_PER_SPARE = 8,
};

/* A request in progress. */
struct entrant {
    struct peer peer;
    bool entered;
    LIST_ENTRY(entrant) link;
};
LIST_HEAD(entrant_list, entrant);

struct holding;
TAILQ_HEAD(holding_list, holding);

/* THREADS: any. */
struct quota {
    pthread_mutex_t lock; /* guards all below; held for a look at the requests in progress */
    unsigned requests, requests_max;
    struct entrant_list entrants;
    uint64_t bytes, bytes_max;
    struct holding_list holdings; /* those with bytes, the oldest first */
};

/* The bytes of one answer. THREADS: one at a time. */
struct holding {
    struct quota *quota;
    uint64_t bytes;
    TAILQ_ENTRY(holding) link;
};

void quota_init(struct quota *quota, unsigned requests_max, uint64_t bytes_max);
void quota_deinit(struct quota *quota);

/* Another limit of requests; those in progress beyond it stay. */
void quota_set_requests(struct quota *quota, unsigned requests_max);

/* A place for one more request: true, and quota_leave() is owed; or false. */
MUST_USE bool quota_enter(struct quota *quota, struct entrant *entrant, struct peer peer);
/* Nothing, where it has not entered. */
void quota_leave(struct quota *quota, struct entrant *entrant);

void holding_init(struct holding *holding, struct quota *quota);
/*
 * Adds bytes. Returns 0, or -ENOBUFS and adds nothing when all answers together would be over the
 * limit. The oldest holding is never refused: one answer must be possible, however large.
 */
MUST_USE int holding_add(struct holding *holding, uint64_t bytes);
void holding_end(struct holding *holding);
