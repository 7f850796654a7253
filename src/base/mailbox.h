/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A lock-free mailbox: any thread posts, one thread collects. The letter is embedded in the
 * message, so posting allocates nothing and cannot fail; the eventfd wakes the reader's epoll.
 */
#pragma once

#include <stdatomic.h>

#include "cleanup.h"

struct letter {
    struct letter *next;
};

struct mailbox {
    _Atomic(struct letter *) head; /* newest first */
    int event_fd;                  /* owned; readable while there may be letters */
};

/* Returns 0 or -errno. */
MUST_USE int mailbox_init(struct mailbox *box);
/* Letters still inside are the caller's: collect them first. */
void mailbox_deinit(struct mailbox *box);

/* THREADS: any. The message belongs to the reader from here on. */
void mailbox_post(struct mailbox *box, struct letter *letter);
/* THREADS: the reader only. Clears the eventfd and returns all letters, oldest first, or NULL. */
struct letter *mailbox_collect(struct mailbox *box);
/* Wakes the reader without a letter. THREADS: any. */
void mailbox_ring(struct mailbox *box);
