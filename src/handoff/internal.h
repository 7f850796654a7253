/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of this folder share: what has been given, and the connection over which it is
 * told.
 *
 * One lock guards all handles. It is held for microseconds: whatever is called under it does not
 * wait. It is taken with all signals blocked, so that a signal handler never finds it taken by the
 * thread it has interrupted; that makes giving back async-signal-safe.
 */
#pragma once

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/un.h>

#include "cleanup.h"
#include "kvmstats/handoff-protocol.h"
#include "kvmstats/handoff.h"

enum {
    VM_SCOPE = -1, /* item.vcpu of a VM itself */
};

enum item_state {
    ITEM_UNSENT,
    ITEM_SENT,
    ITEM_ACCEPTED,
    ITEM_REFUSED,
    ITEM_PUT_OFF,  /* refused for a limit: to be given again later */
    ITEM_HOPELESS, /* it is no KVM statistics file: no daemon will ever take it */
};

/* A VM or a vCPU that was given, until the daemon has been told that it was taken back. */
struct item {
    struct item *next;
    uint64_t vm;
    int64_t vcpu;
    int stats_fd, vm_fd; /* owned; -1: none */
    bool gone;           /* taken back; its fds are closed */
    enum item_state state;
    uint64_t connection; /* on which it was sent last; 0: on none */
    uint32_t serial;     /* of that message */
    uint16_t name_bytes, uuid_bytes;
    char hints[]; /* name and uuid, one after the other */
};

enum {
    NOTES = 64,
    NOTE_EMPTY = 0,
    NOTE_BEING_WRITTEN,
    NOTE_WRITTEN,
};

/* "This is gone", from one who could not have the lock. */
struct note {
    atomic_uint state;
    uint64_t vm;
    int64_t vcpu;
};

struct kvmstatd_handoff {
    struct kvmstatd_handoff *next; /* of all handles */
    pid_t pid;                     /* who may use it */
    bool orphaned;                 /* in a forked child: nothing is left of it but its memory */
    struct sockaddr_un address;
    int wake_fd; /* eventfd */
    sem_t ready; /* the thread has begun */

    /* In the order of giving: a VM before its vCPUs, what was taken back before what came after. */
    struct item *first, **last;
    uint64_t last_vm;
    struct note notes[NOTES]; /* not guarded */

    bool closing;
    int64_t closing_until_ns;

    /* The connection; only the thread changes it. */
    int socket_fd; /* -1: none */
    bool welcomed;
    uint64_t connection; /* counts them */
    uint64_t all_given;  /* on which it was said that all was given */
    uint32_t n_welcomed;
    uint32_t serial;
    uint32_t last_reason;
    int64_t backoff_ns, connect_ns; /* when to try next */
    int64_t put_off_until_ns;       /* INT64_MAX: nothing is put off */
};

/* The thread's, in link.c; all with the lock held. */

/* Tries to connect, if it is time. Never waits. */
void link_connect(struct kvmstatd_handoff *h);
/* What the helper thread runs. It frees the handle when that is closed. */
void *link_main(void *handle);

/* --- the lock --- */

/* What is kept away while the lock is held: signals and cancellation. */
struct guard {
    sigset_t signals;
    int cancel_state;
};
void guard_begin(struct guard *ret_guard);
void guard_end(const struct guard *guard);
void handoff_lock(struct guard *ret_guard);
void handoff_unlock(const struct guard *guard);
/* The same for the helper thread, where both are kept away for its whole life. */
void handoff_lock_in_thread(void);
void handoff_unlock_in_thread(void);

/* --- for link.c, from handoff.c --- */

void item_close_fds(struct item *item);
/* Does what the notes say. */
void handoff_take_notes(struct kvmstatd_handoff *h);
/* Frees the handle and all that it still has. */
void handoff_destroy(struct kvmstatd_handoff *h);
