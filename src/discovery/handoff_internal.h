/* SPDX-License-Identifier: Apache-2.0 */
/* What handoff.c (connections) and handoff_talk.c (what is said on one) share. */
#pragma once

#include "handoff.h"
#include "handoff_closer.h"
#include "handoff_message.h"
#include "handoff_socket.h"

enum {
    /* Connections that have not said hello; each has HELLO_WITHIN_MS for it. */
    HANDOFF_WAITING_MAX = 64,
    HANDOFF_HELLO_WITHIN_MS = 5000,
    /* One is what a process needs; another may not have noticed its end yet. */
    HANDOFF_CONNECTIONS_PER_PROCESS = 16,
    /* How often a process may make us search its fds for what it gave: at first, and then. */
    HANDOFF_SEARCHES = 64,
    HANDOFF_SEARCH_EVERY_MS = 1000,
    HANDOFF_SEARCHED_MAX = 64, /* processes of which we know how often they have */
};

/* What a process has left of its searches: another connection is no new budget. */
struct handoff_searched {
    pid_t pid;
    unsigned left;
    int64_t since_ns; /* when the last one was earned */
};

struct connection {
    struct connection *next, **link; /* in handoff.connections, or in handoff.ended */
    struct handoff_peer peer;
    int fd; /* -1: ended, to be freed */
    bool welcomed;
    int64_t hello_until_ns;
};

struct handoff {
    struct broker *broker;
    struct selfstats *self;
    struct config *config; /* a reference */
    struct handoff_receiver receiver;
    struct handoff_closer *closer;     /* of what is refused, which may be any file, and hang */
    struct handoff_closer *kvm_closer; /* of KVM's files that were taken */
    struct handoff_users users;
    struct handoff_socket socket;
    int passed_fd; /* owned; a listening socket of systemd's; -1: none, ours is opened */
    pid_t pid;
    int epoll_fd; /* of the socket and the connections */
    int gate_fd;  /* an epoll of that one: what the outside waits for */
    bool started;

    struct connection *connections, *ended;
    size_t n_connections, n_waiting;
    struct handoff_searched searched[HANDOFF_SEARCHED_MAX];
    uint64_t last_id;
    int64_t open_ns;   /* when to try to listen again; INT64_MAX: not */
    int64_t resume_ns; /* when to go on after handoff_pause(); INT64_MAX: there is no pause */
    int open_error;    /* said */
    uint64_t n_rejected[HANDOFF_REJECTS];
};

/* Ends a connection; its memory stays until the dispatch is done. */
void connection_end(struct handoff *h, struct connection *c, bool revoked);
/*
 * Nothing can be received for now, and what is readable stays so: looks away for a while, since the
 * thread has other things to do.
 */
void handoff_pause(struct handoff *h);
/* It has said hello. */
void connection_welcome(struct handoff *h, struct connection *c);

/* --- handoff_talk.c --- */

/* Receives and answers one message. Returns whether there may be more. */
bool talk(struct handoff *h, struct connection *c);
/* Answers with a refusal, counts it, says it. The connection is the caller's to end. */
void talk_reject(struct handoff *h, const struct connection *c, uint32_t serial,
                 enum kvmstatd_handoff_reason reason);
