/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of src/http share: an exposition that renders what a test wants (it stands in for
 * src/exposition at link time), a configuration, and a client that can also behave badly.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "answer.h"
#include "http.h"
#include "testing.h"

/* Takes `delay`, renders `bytes` bytes of numbered lines, then fails with `error` if that is not 0.
 */
struct exposition {
    struct timespec delay;
    size_t bytes;
    int error;
    const char *word; /* every line begins with it */
};

Suite *suite_accept(void);
Suite *suite_auth(void);
Suite *suite_gzip(void);
Suite *suite_http(void);
Suite *suite_limits(void);
Suite *suite_listen(void);
Suite *suite_policy(void);
Suite *suite_requests(void);
Suite *suite_routes(void);

/* Defaults with one address, "127.0.0.1:0" if NULL. Aborts the test on failure. */
struct config *test_config(const char *address);

/* A server with its store. `fd` in clients below is always a blocking socket with a safety timeout.
 */
struct server {
    struct store *store;
    struct exposition exposition;
    struct config *config;
    struct http *http;
};
/* Listens on a free port of 127.0.0.1, or on `address`. Change server->config before
 * server_start(). */
void server_prepare(struct server *server, const char *address);
void server_start(struct server *server);
void server_stop(struct server *server);

/* Whether this machine has the IPv6 loopback address. */
bool has_ipv6(void);
int client_connect_inet(int family, uint16_t port);
int client_connect_unix(const char *path);
/* To a server on 127.0.0.1. `receive_bytes`: SO_RCVBUF, 0 leaves it. */
int client_connect(const struct server *server, int receive_bytes);
void client_send(int fd, const char *text);

struct reply {
    unsigned status;
    char *head; /* status line and headers, NUL-terminated */
    char *body;
    size_t body_len;
};
/* One whole reply by Content-Length (`head_only`: to a HEAD). Aborts the test when there is none.
 */
struct reply client_read(int fd, bool head_only);
void reply_free(struct reply *reply);
/* The value of a header, to be free()d, or NULL. */
char *reply_header(const struct reply *reply, const char *name);
/* `expected` NULL: there is no such header. Aborts the test otherwise. */
void reply_expect_header(const struct reply *reply, const char *name, const char *expected);
/* A request on a connection of its own: "GET /path HTTP/1.1", then `headers` (whole lines). */
struct reply client_ask(const struct server *server, const char *request_line, const char *headers);
/* The same for those who want nothing but the status. */
unsigned client_status(const struct server *server, const char *request_line, const char *headers);
/* Reads until the peer closes; returns how many bytes came. */
size_t client_drain(int fd);
