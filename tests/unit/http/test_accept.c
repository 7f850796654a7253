/* SPDX-License-Identifier: Apache-2.0 */
/* The thread that takes connections, where nobody comes to serve them. */
#include "http_test.h"

#include <string.h>

#include "accept.h"

static struct acceptor acceptor;
static int taken[ACCEPT_AHEAD_MAX * 2];
static atomic_size_t n_taken;

static void on_admit(void *ctx, int fd, const struct sockaddr *peer, socklen_t len)
{
    (void)ctx;
    (void)peer;
    (void)len;
    ck_assert_uint_lt(n_taken, ARRAY_LEN(taken));
    taken[n_taken] = fd;
    n_taken++;
}

static void on_short_of(void *ctx, int error)
{
    (void)ctx;
    ck_abort_msg("%s", strerror(-error));
}

static void start(void)
{
    const struct acceptor_ops ops = {.admit = on_admit, .short_of = on_short_of};
    n_taken = 0;
    ck_assert_int_eq(acceptor_start(&acceptor, &ops), 0);
}

static void stop(void)
{
    acceptor_stop(&acceptor);
    for (size_t i = 0; i < n_taken; i++)
        (void)close(taken[i]);
    acceptor_deinit(&acceptor);
}

/* A reload looks for listeners, opens and closes them. */
START_TEST(a_reload_does_not_wait_for_those_that_serve)
{
    const struct listen_how how = {0};
    struct config_error error;
    int fds[ACCEPT_AHEAD_MAX + 1];
    ck_assert_int_eq(acceptor_add(&acceptor, "127.0.0.1:0", &how, &error), 0);
    acceptor_open(&acceptor);
    struct listener *listener = acceptor_find(&acceptor, "127.0.0.1:0");
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        fds[i] = client_connect_inet(AF_INET, listener->socket.port);
    while (n_taken < ACCEPT_AHEAD_MAX)
        (void)usleep(1000);
    ck_assert_ptr_eq(acceptor_find(&acceptor, "127.0.0.1:0"), listener);
    ck_assert_int_eq(acceptor_add(&acceptor, "127.0.0.2:0", &how, &error), 0);
    acceptor_open(&acceptor);
    ck_assert_uint_eq(n_taken, ACCEPT_AHEAD_MAX); /* the last one has no place yet */
    acceptor_arrived(&acceptor, taken[3]);
    while (n_taken == ACCEPT_AHEAD_MAX)
        (void)usleep(1000);
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        (void)close(fds[i]);
}
END_TEST

Suite *suite_accept(void)
{
    Suite *suite = suite_create("accept");
    TCase *tests = tcase_create("accept");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, start, stop);
    tcase_add_test(tests, a_reload_does_not_wait_for_those_that_serve);
    suite_add_tcase(suite, tests);
    return suite;
}
