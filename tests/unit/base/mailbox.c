/* SPDX-License-Identifier: Apache-2.0 */
#include "mailbox.h"

#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "suites.h"

struct message {
    struct letter letter;
    unsigned writer, number;
};

static const struct message *message_of(const struct letter *letter)
{
    return (const struct message *)(const void *)((const char *)letter -
                                                  offsetof(struct message, letter));
}

static bool is_readable(const struct mailbox *box)
{
    struct pollfd p = {.fd = box->event_fd, .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

START_TEST(order)
{
    struct mailbox box;
    struct message messages[3] = {{.number = 0}, {.number = 1}, {.number = 2}};
    ck_assert_int_eq(mailbox_init(&box), 0);
    ck_assert(!is_readable(&box));
    ck_assert_ptr_null(mailbox_collect(&box));

    for (size_t i = 0; i < ARRAY_LEN(messages); i++)
        mailbox_post(&box, &messages[i].letter);
    ck_assert(is_readable(&box));
    unsigned n = 0;
    for (const struct letter *l = mailbox_collect(&box); l; l = l->next)
        ck_assert_uint_eq(message_of(l)->number, n++);
    ck_assert_uint_eq(n, 3);
    ck_assert(!is_readable(&box));
    ck_assert_ptr_null(mailbox_collect(&box));

    mailbox_post(&box, &messages[0].letter); /* a letter may be posted again */
    ck_assert_ptr_eq(mailbox_collect(&box), &messages[0].letter);
    ck_assert_ptr_null(messages[0].letter.next);
    mailbox_deinit(&box);
    ck_assert_int_eq(box.event_fd, -1);
}
END_TEST

START_TEST(ringing)
{
    struct mailbox box;
    ck_assert_int_eq(mailbox_init(&box), 0);
    mailbox_ring(&box);
    mailbox_ring(&box);
    ck_assert(is_readable(&box));
    ck_assert_ptr_null(mailbox_collect(&box));
    ck_assert(!is_readable(&box));
    mailbox_deinit(&box);
}
END_TEST

enum {
    WRITERS = 4,
    MESSAGES = 20000,
};

struct writer {
    struct mailbox *box;
    struct message *messages;
    unsigned number;
};

static void *post_all(void *arg)
{
    struct writer *writer = arg;
    for (unsigned i = 0; i < MESSAGES; i++) {
        writer->messages[i].writer = writer->number;
        writer->messages[i].number = i;
        mailbox_post(writer->box, &writer->messages[i].letter);
    }
    return NULL;
}

/*
 * Every letter of every writer arrives once, each writer's in its order, and the reader, who waits
 * for nothing but the eventfd, is woken for all of them: a lost wake-up would be a lost test.
 */
START_TEST(threads)
{
    struct mailbox box;
    struct writer writers[WRITERS];
    pthread_t ids[WRITERS];
    unsigned next[WRITERS] = {0};
    size_t n = 0;
    ck_assert_int_eq(mailbox_init(&box), 0);
    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){&box, calloc(MESSAGES, sizeof(struct message)), i};
        ck_assert_ptr_nonnull(writers[i].messages);
        ck_assert_int_eq(pthread_create(&ids[i], NULL, post_all, &writers[i]), 0);
    }
    while (n < (size_t)WRITERS * MESSAGES) {
        struct pollfd p = {.fd = box.event_fd, .events = POLLIN};
        ck_assert_int_eq(poll(&p, 1, 30000), 1);
        for (const struct letter *l = mailbox_collect(&box); l; l = l->next, n++) {
            const struct message *m = message_of(l);
            ck_assert_uint_eq(m->number, next[m->writer]++);
        }
    }
    for (unsigned i = 0; i < WRITERS; i++) {
        ck_assert_int_eq(pthread_join(ids[i], NULL), 0);
        ck_assert_uint_eq(next[i], MESSAGES);
        free(writers[i].messages);
    }
    ck_assert_ptr_null(mailbox_collect(&box));
    mailbox_deinit(&box);
}
END_TEST

Suite *suite_mailbox(void)
{
    Suite *suite = suite_create("mailbox");
    TCase *tc = tcase_create("mailbox");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, order);
    tcase_add_test(tc, ringing);
    tcase_add_test(tc, threads);
    suite_add_tcase(suite, tc);
    return suite;
}
