/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why a stack that is reversed on collection: posting is one compare-and-swap and collecting one
 * exchange, so neither side can hold up the other, and the sampler may post from its tick path.
 */
#include "mailbox.h"

#include <stdint.h>
#include <sys/eventfd.h>

int mailbox_init(struct mailbox *box)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0)
        return -errno;
    atomic_init(&box->head, NULL);
    box->event_fd = fd;
    return 0;
}

void mailbox_deinit(struct mailbox *box)
{
    box->event_fd = fd_close(box->event_fd);
}

void mailbox_ring(struct mailbox *box)
{
    uint64_t one = 1;
    /* EAGAIN means that 2^64 - 2 wake-ups are pending: the reader is awake already. */
    ssize_t n = write(box->event_fd, &one, sizeof one);
    (void)n;
}

void mailbox_post(struct mailbox *box, struct letter *letter)
{
    struct letter *head = atomic_load_explicit(&box->head, memory_order_relaxed);
    do {
        letter->next = head;
    } while (!atomic_compare_exchange_weak_explicit(&box->head, &head, letter, memory_order_release,
                                                    memory_order_relaxed));
    mailbox_ring(box);
}

struct letter *mailbox_collect(struct mailbox *box)
{
    uint64_t count;
    ssize_t n = read(box->event_fd, &count, sizeof count);
    (void)n; /* EAGAIN: nobody rang since the last time */

    struct letter *newest = atomic_exchange_explicit(&box->head, NULL, memory_order_acquire);
    struct letter *oldest_first = NULL;
    while (newest) {
        struct letter *next = newest->next;
        newest->next = oldest_first;
        oldest_first = newest;
        newest = next;
    }
    return oldest_first;
}
