/* SPDX-License-Identifier: Apache-2.0 */
/* A whole server on the loopback interface and its clients: many, slow, and gone; its start and
 * end. */
#include "http_test.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "clock.h"

enum {
    LARGE = 24 << 20, /* bytes: more than the sockets between us take */
    SMALL_BUFFER = 64 * 1024,
    PATIENCE = 6000, /* tries, 10 ms apart */
};

static struct server server;

static void prepare(void)
{
    server_prepare(&server, NULL);
}

static void stop(void)
{
    server_stop(&server);
}

static void nap(void)
{
    const struct timespec t = {.tv_nsec = 10 * NSEC_PER_MSEC};
    (void)nanosleep(&t, NULL);
}

/* Asks until the status is that: for what happens a moment later in another thread. */
static void await_status(const char *request_line, unsigned status)
{
    for (int i = 0; i < PATIENCE; i++) {
        if (client_status(&server, request_line, NULL) == status)
            return;
        nap();
    }
    ck_abort_msg("%s never answers %u", request_line, status);
}

/* A connection whose large answer has begun and is not being read; -1: none was given. */
static int try_slow_reader(void)
{
    char beginning[13] = "";
    int fd = client_connect(&server, SMALL_BUFFER);
    client_send(fd, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    ssize_t n = recv(fd, beginning, sizeof beginning - 1, MSG_WAITALL);
    if (n == sizeof beginning - 1 && strcmp(beginning, "HTTP/1.1 200") == 0)
        return fd;
    (void)close(fd);
    return -1;
}

/* The place of a request before may be given back a moment after its answer has come: then again.
 */
static int start_slow_reader(void)
{
    for (int i = 0; i < PATIENCE; i++) {
        int fd = try_slow_reader();
        if (fd >= 0)
            return fd;
        nap();
    }
    ck_abort_msg("no answer begins");
}

START_TEST(fifty_scrapes_at_a_time)
{
    int fds[50];
    server.exposition.bytes = 1 << 20;
    server.config->web.max_requests = 60;
    server_start(&server);
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        fds[i] = client_connect(&server, 0);
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        client_send(fds[i], i % 2 ? "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
                                  : "GET /metrics HTTP/1.1\r\nHost: x\r\n"
                                    "Accept-Encoding: gzip\r\n\r\n");
    struct reply plain = {0}, packed = {0};
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        struct reply reply = client_read(fds[i], false), *like = i % 2 ? &plain : &packed;
        ck_assert_uint_eq(reply.status, 200);
        if (!like->head) {
            *like = reply;
        } else {
            ck_assert_uint_eq(reply.body_len, like->body_len);
            ck_assert_mem_eq(reply.body, like->body, reply.body_len);
            reply_free(&reply);
        }
        (void)close(fds[i]);
    }
    ck_assert_uint_eq(plain.body_len, 1 << 20);
    reply_free(&plain);
    reply_free(&packed);
}
END_TEST

START_TEST(slow_readers_cost_nobody_else_anything)
{
    int slow[12];
    server.exposition.bytes = LARGE;
    server_start(&server);
    for (size_t i = 0; i < ARRAY_LEN(slow); i++)
        slow[i] = start_slow_reader();
    for (int i = 0; i < 3; i++) {
        struct reply reply = client_ask(&server, "GET /metrics HTTP/1.1", NULL);
        ck_assert_uint_eq(reply.status, 200);
        ck_assert_uint_eq(reply.body_len, LARGE);
        reply_free(&reply);
    }
    ck_assert_uint_eq(client_status(&server, "GET /api/v1/vms HTTP/1.1", NULL), 200);
    /* They hold no frame: every reader that may be can be. */
    for (int i = 0; i < FRAME_READERS_MAX; i++)
        ck_assert_int_eq(sem_trywait(&server.store->readers), 0);
    for (int i = 0; i < FRAME_READERS_MAX; i++)
        ck_assert_int_eq(sem_post(&server.store->readers), 0);
    /* And get it all when they do read. */
    ck_assert_uint_ge(client_drain(slow[0]), LARGE);
    for (size_t i = 0; i < ARRAY_LEN(slow); i++)
        (void)close(slow[i]);
}
END_TEST

START_TEST(more_than_max_requests_are_refused)
{
    server.exposition.bytes = LARGE;
    server.config->web.max_requests = 2;
    server_start(&server);
    int a = start_slow_reader(), b = start_slow_reader();
    struct reply reply = client_ask(&server, "GET /metrics HTTP/1.1", NULL);
    ck_assert_uint_eq(reply.status, 503);
    reply_expect_header(&reply, "Retry-After", "1");
    ck_assert_ptr_nonnull(strstr(reply.body, "max_requests"));
    reply_free(&reply);
    ck_assert_uint_eq(client_status(&server, "HEAD / HTTP/1.1", NULL), 503);
    ck_assert_uint_eq(client_status(&server, "GET /-/healthy HTTP/1.1", NULL), 200);
    ck_assert_uint_eq(client_status(&server, "GET /nothing HTTP/1.1", NULL), 404);
    (void)close(a);
    await_status("GET / HTTP/1.1", 200);
    (void)close(b);
}
END_TEST

START_TEST(clients_that_go_in_the_middle_leave_nothing)
{
    server.exposition.bytes = LARGE;
    server.config->web.max_requests = 3;
    server_start(&server);
    for (int i = 0; i < 20; i++) {
        int fd;
        switch (i % 4) {
        case 0: /* in the middle of the answer */
            fd = start_slow_reader();
            break;
        case 1: /* with a reset */
            fd = start_slow_reader();
            const struct linger reset = {.l_onoff = 1};
            ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset), 0);
            break;
        case 2: /* in the middle of the headers */
            fd = client_connect(&server, 0);
            client_send(fd, "GET /metrics HTTP/1.1\r\nHos");
            break;
        default: /* before the answer */
            fd = client_connect(&server, 0);
            client_send(fd, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
            break;
        }
        (void)close(fd);
    }
    /* All three places are free again in the end. */
    int slow[3];
    for (size_t i = 0; i < ARRAY_LEN(slow); i++) {
        slow[i] = start_slow_reader();
    }
    ck_assert_uint_eq(client_status(&server, "HEAD / HTTP/1.1", NULL), 503);
    for (size_t i = 0; i < ARRAY_LEN(slow); i++)
        (void)close(slow[i]);
}
END_TEST

/* The status of HEAD /; 0 where this test has had no CPU for so long that it was taken for idle. */
static unsigned try_status(void)
{
    static const char request[] = "HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    char beginning[16] = "";
    unsigned status = 0;
    int fd = client_connect(&server, 0);
    (void)send(fd, request, sizeof request - 1, MSG_NOSIGNAL);
    if (recv(fd, beginning, 12, MSG_WAITALL) == 12)
        ck_assert_int_eq(sscanf(beginning, "HTTP/1.1 %3u", &status), 1);
    (void)close(fd);
    return status;
}

/* One byte now and then, of a request or of an answer, keeps nobody's place for ever. */
START_TEST(those_that_only_drip_are_cut)
{
    char *bytes = malloc(SMALL_BUFFER);
    server.exposition.bytes = 100 << 20;
    server.config->web.timeout_ns = NSEC_PER_SEC;
    server.config->web.max_requests = 1;
    server_start(&server);
    /* On a machine that is very busy the deadline may come before the answer does: again. */
    int reader = -1;
    for (int i = 0; i < 20 && reader < 0; i++) {
        reader = try_slow_reader();
        if (reader >= 0 && try_status() != 503) {
            (void)close(reader);
            reader = -1;
        }
    }
    ck_assert_int_ge(reader, 0);
    int writer = client_connect(&server, 0), idle = client_connect(&server, 0);
    bool writer_ended = false, place_free = false;
    client_send(writer, "GET /metrics HTTP/1.1\r\nHost: x\r\nX-Drip: ");
    for (int i = 0; i < PATIENCE && !(writer_ended && place_free); i++) {
        writer_ended = writer_ended || send(writer, "x", 1, MSG_NOSIGNAL) < 0;
        /* Enough for the server to send more before it takes the connection for an idle one. */
        (void)!recv(reader, bytes, SMALL_BUFFER, 0);
        place_free = place_free || try_status() == 200;
        nap();
    }
    ck_assert(writer_ended);
    ck_assert(place_free);
    ck_assert_uint_eq(client_drain(idle), 0);
    free(bytes);
    (void)close(reader);
    (void)close(writer);
    (void)close(idle);
}
END_TEST

/* Of 64 connections, then: whoever comes is served, and who has waited longest goes. */
START_TEST(idle_connections_give_way)
{
    int fds[64];
    server.config->web.max_requests = 1;
    server_start(&server);
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        fds[i] = client_connect(&server, 0);
        if (i % 2)
            client_send(fds[i], "GET /-/healthy HTT");
    }
    for (int i = 0; i < 10; i++) {
        int fd = client_connect(&server, 0);
        client_send(fd, "GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n");
        struct reply reply = client_read(fd, false);
        ck_assert_uint_eq(reply.status, 200);
        reply_free(&reply);
        (void)close(fd);
        ck_assert_uint_eq(i < 1 ? client_drain(fds[i]) : 0, 0);
    }
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        (void)close(fds[i]);
}
END_TEST

START_TEST(stopping_ends_every_kind_of_client)
{
    server.exposition.bytes = LARGE;
    server_start(&server);
    int idle = client_connect(&server, 0), half = client_connect(&server, 0);
    int slow = start_slow_reader(), done = client_connect(&server, 0);
    client_send(half, "GET /metrics HTTP/1.1\r\nHo");
    client_send(done, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    struct reply reply = client_read(done, false);
    reply_free(&reply);
    http_free(server.http);
    server.http = NULL;
    ck_assert_uint_eq(client_drain(idle), 0);
    ck_assert_uint_eq(client_drain(half), 0);
    ck_assert_uint_eq(client_drain(done), 0);
    ck_assert_uint_lt(client_drain(slow), LARGE);
    (void)close(idle);
    (void)close(half);
    (void)close(slow);
    (void)close(done);
}
END_TEST

enum {
    SENDERS = 24,
};

static void *send_nonsense(void *arg)
{
    const int *fds = arg;
    for (size_t i = 0; i < SENDERS; i++)
        (void)send(fds[i], "GET / HTTP/1.1\r\n: nonsense\r\n\r\n", 31, MSG_NOSIGNAL);
    return NULL;
}

/* What is refused while libmicrohttpd is being stopped crashes it (0.9.75). */
START_TEST(stopping_amid_nonsense)
{
    for (int round = 0; round < 200; round++) {
        int fds[SENDERS];
        pthread_t thread;
        server_start(&server);
        for (size_t i = 0; i < SENDERS; i++)
            fds[i] = client_connect(&server, 0);
        ck_assert_int_eq(pthread_create(&thread, NULL, send_nonsense, fds), 0);
        if (round % 4)
            (void)usleep((useconds_t)testing_random_below(300));
        http_free(server.http);
        server.http = NULL;
        (void)pthread_join(thread, NULL);
        for (size_t i = 0; i < SENDERS; i++)
            (void)close(fds[i]);
    }
}
END_TEST

START_TEST(starts_and_stops_leave_nothing)
{
    int before = open("/dev/null", O_RDONLY | O_CLOEXEC);
    (void)close(before);
    for (int i = 0; i < 20; i++) {
        server_start(&server);
        ck_assert_uint_eq(client_status(&server, "GET /metrics HTTP/1.1", NULL), 200);
        http_free(server.http);
        server.http = NULL;
    }
    int after = open("/dev/null", O_RDONLY | O_CLOEXEC);
    (void)close(after);
    ck_assert_int_eq(after, before); /* the lowest fd that is free */
}
END_TEST

START_TEST(a_failed_start_leaves_nothing)
{
    char folder[] = "/tmp/kvmstatd-http-XXXXXX", path[64];
    struct server second;
    struct config_error error = {""};
    struct stat st;
    ck_assert_ptr_nonnull(mkdtemp(folder));
    (void)snprintf(path, sizeof path, "unix:%s/s", folder);
    server_start(&server);
    int before = dup(0);

    /* The first address can be had, the second cannot. */
    server_prepare(&second, path);
    char **items = calloc(2, sizeof *items);
    items[0] = second.config->web.listen.items[0];
    ck_assert_int_gt(asprintf(&items[1], "127.0.0.1:%u", http_port(server.http, 0)), 0);
    free(second.config->web.listen.items);
    second.config->web.listen = (struct string_list){.n = 2, .items = items};
    ck_assert_int_eq(
        http_start(second.store, &second.exposition, second.config, &second.http, &error),
        -EADDRINUSE);
    ck_assert_msg(strstr(error.message, items[1]) && strstr(error.message, "in use"), "%s",
                  error.message);
    ck_assert_int_eq(lstat(path + strlen("unix:"), &st), -1);
    server_stop(&second);
    int after = dup(0);
    (void)close(before);
    ck_assert_int_eq(after, before + 1);
    (void)close(after);
    ck_assert_int_eq(rmdir(folder), 0);
}
END_TEST

START_TEST(a_web_config_file_that_is_wrong_does_not_start)
{
    struct config_error error = {""};
    free(server.config->web.config_file);
    server.config->web.config_file = strdup("/nowhere/web.yaml");
    ck_assert_int_eq(
        http_start(server.store, &server.exposition, server.config, &server.http, &error), -ENOENT);
    ck_assert_ptr_nonnull(strstr(error.message, "/nowhere/web.yaml"));
    ck_assert_int_eq(http_check(server.config, &error), -ENOENT);
}
END_TEST

START_TEST(unix_and_v6_listeners)
{
    char folder[] = "/tmp/kvmstatd-http-XXXXXX", path[64];
    const char *const ask = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    struct stat st;
    ck_assert_ptr_nonnull(mkdtemp(folder));
    (void)snprintf(path, sizeof path, "unix:%s/s", folder);
    server_stop(&server);
    server_prepare(&server, path);
    server_start(&server);
    ck_assert_uint_eq(http_port(server.http, 0), 0);
    ck_assert_uint_eq(http_port(server.http, 1), 0);
    for (int i = 0; i < 40; i++) { /* no limit for one address here */
        int fd = client_connect_unix(path + strlen("unix:"));
        client_send(fd, ask);
        struct reply reply = client_read(fd, false);
        ck_assert_uint_eq(reply.status, 200);
        reply_free(&reply);
        (void)close(fd);
    }
    http_free(server.http);
    server.http = NULL;
    ck_assert_int_eq(lstat(path + strlen("unix:"), &st), -1);
    ck_assert_int_eq(rmdir(folder), 0);

    server_stop(&server);
    server_prepare(&server, "[::1]:0");
    if (!has_ipv6())
        testing_skip("this machine has no IPv6 loopback address");
    server_start(&server);
    int fd = client_connect_inet(AF_INET6, http_port(server.http, 0));
    client_send(fd, ask);
    struct reply reply = client_read(fd, false);
    ck_assert_uint_eq(reply.status, 200);
    reply_free(&reply);
    (void)close(fd);
}
END_TEST

START_TEST(a_reload_changes_the_exposition)
{
    struct exposition next = {.bytes = 100, .word = "kvm_next"};
    server_start(&server);
    http_use_exposition(server.http, &next);
    memset(&server.exposition, 0xff, sizeof server.exposition); /* nobody uses it any more */
    struct reply reply = client_ask(&server, "GET /metrics HTTP/1.1", NULL);
    ck_assert_uint_eq(reply.body_len, 100);
    ck_assert_int_eq(strncmp(reply.body, "kvm_next", 8), 0);
    reply_free(&reply);
    http_free(server.http);
    server.http = NULL;
}
END_TEST

START_TEST(threads_take_no_signals)
{
    const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGCHLD, SIGPIPE, SIGUSR1, SIGALRM};
    int n_named = 0;
    server_start(&server);
    ck_assert_uint_eq(client_status(&server, "GET /metrics HTTP/1.1", NULL), 200);
    DIR *tasks = opendir("/proc/self/task");
    for (struct dirent *entry; (entry = readdir(tasks));) {
        char file[300], text[4096] = "";
        unsigned long long blocked;
        if (entry->d_name[0] == '.' || atoi(entry->d_name) == getpid())
            continue;
        (void)snprintf(file, sizeof file, "/proc/self/task/%s/status", entry->d_name);
        int fd = open(file, O_RDONLY | O_CLOEXEC);
        ck_assert_int_gt(read(fd, text, sizeof text - 1), 0);
        (void)close(fd);
        ck_assert_int_eq(sscanf(strstr(text, "SigBlk:"), "SigBlk: %llx", &blocked), 1);
        n_named += strstr(text, "Name:\tkvmstatd-http\n") != NULL;
        for (size_t i = 0; i < ARRAY_LEN(signals); i++)
            ck_assert_msg(blocked >> (signals[i] - 1) & 1, "signal %d in %s", signals[i], text);
    }
    (void)closedir(tasks);
    ck_assert_int_ge(n_named, 2); /* the one that served, and the watch */
}
END_TEST

Suite *suite_http(void)
{
    Suite *suite = suite_create("http");
    TCase *tests = tcase_create("http");
    tcase_set_timeout(tests, 110);
    tcase_add_checked_fixture(tests, prepare, stop);
    tcase_add_test(tests, fifty_scrapes_at_a_time);
    tcase_add_test(tests, slow_readers_cost_nobody_else_anything);
    tcase_add_test(tests, more_than_max_requests_are_refused);
    tcase_add_test(tests, clients_that_go_in_the_middle_leave_nothing);
    tcase_add_test(tests, those_that_only_drip_are_cut);
    tcase_add_test(tests, idle_connections_give_way);
    tcase_add_test(tests, stopping_ends_every_kind_of_client);
    tcase_add_test(tests, stopping_amid_nonsense);
    tcase_add_test(tests, starts_and_stops_leave_nothing);
    tcase_add_test(tests, a_failed_start_leaves_nothing);
    tcase_add_test(tests, a_web_config_file_that_is_wrong_does_not_start);
    tcase_add_test(tests, unix_and_v6_listeners);
    tcase_add_test(tests, a_reload_changes_the_exposition);
    tcase_add_test(tests, threads_take_no_signals);
    suite_add_tcase(suite, tests);
    return suite;
}
