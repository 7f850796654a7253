/* SPDX-License-Identifier: Apache-2.0 */
#include "http_test.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/time.h>

enum {
    PIECE_BYTES = 256 * 1024,
    SAFETY_S = 60, /* nothing is asserted about time; a hang must end */
};

/* --- the exposition ----------------------------------------------------------------------------
 */

const char *exposition_content_type(enum exposition_format format)
{
    return format == EXPOSITION_OPENMETRICS ? "application/openmetrics-text; version=1.0.0"
                                            : "text/plain; version=0.0.4";
}

enum exposition_format exposition_negotiate(const char *accept)
{
    return accept && strstr(accept, "openmetrics") ? EXPOSITION_OPENMETRICS : EXPOSITION_TEXT;
}

bool exposition_accepts_gzip(const char *accept_encoding)
{
    return accept_encoding && strstr(accept_encoding, "gzip");
}

int exposition_render(struct exposition *exposition, const struct view *view,
                      const struct roster *roster, enum exposition_format format,
                      const struct exposition_sink *sink)
{
    char *piece = malloc(PIECE_BYTES + 256);
    size_t len = 0;
    int r = 0;
    (void)view;
    (void)roster;
    (void)format;
    (void)nanosleep(&exposition->delay, NULL);
    /* One piece again and again: the tests are about what becomes of the bytes. */
    for (size_t i = 0; len < PIECE_BYTES && len < exposition->bytes; i++)
        len += (size_t)sprintf(piece + len, "%s{vcpu=\"%zu\"} %zu\n", exposition->word, i, i * i);
    for (size_t done = 0; r == 0 && done < exposition->bytes; done += len) {
        len = MIN_OF(len, exposition->bytes - done);
        r = sink->piece(sink->ctx, piece, len);
    }
    free(piece);
    return r < 0 ? r : exposition->error;
}

/* --- the server --------------------------------------------------------------------------------
 */

struct config *test_config(const char *address)
{
    char text[256];
    struct config *config = NULL;
    struct config_error error = {""};
    int len = snprintf(text, sizeof text, "web:\n  listen: [\"%s\"]\n",
                       address ? address : "127.0.0.1:0");
    ck_assert_msg(config_parse("test", text, (size_t)len, &config, &error) == 0, "%s",
                  error.message);
    return config;
}

void server_prepare(struct server *server, const char *address)
{
    *server = (struct server){.exposition = {.bytes = 1000, .word = "kvm_test"},
                              .config = test_config(address)};
    ck_assert_int_eq(store_new(&server->store), 0);
}

void server_start(struct server *server)
{
    struct config_error error = {""};
    ck_assert_msg(
        http_start(server->store, &server->exposition, server->config, &server->http, &error) == 0,
        "%s", error.message);
}

void server_stop(struct server *server)
{
    http_free(server->http);
    config_unref(server->config);
    store_free(server->store);
}

/* --- the client --------------------------------------------------------------------------------
 */

static int make_socket(int family, int receive_bytes)
{
    const struct timeval safety = {.tv_sec = SAFETY_S};
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &safety, sizeof safety), 0);
    ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &safety, sizeof safety), 0);
    if (receive_bytes)
        ck_assert_int_eq(
            setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes), 0);
    return fd;
}

static int connect_inet(int family, uint16_t port, int receive_bytes)
{
    const struct sockaddr_in v4 = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    const struct sockaddr_in6 v6 = {
        .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = make_socket(family, receive_bytes);
    int r = family == AF_INET6 ? connect(fd, (const struct sockaddr *)&v6, sizeof v6)
                               : connect(fd, (const struct sockaddr *)&v4, sizeof v4);
    ck_assert_msg(r == 0, "connect: %s", strerrordesc_np(errno));
    return fd;
}

bool has_ipv6(void)
{
    const struct sockaddr_in6 where = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool has = fd >= 0 && bind(fd, (const struct sockaddr *)&where, sizeof where) == 0;
    (void)close(fd);
    return has;
}

int client_connect_inet(int family, uint16_t port)
{
    return connect_inet(family, port, 0);
}

int client_connect_unix(const char *path)
{
    struct sockaddr_un where = {.sun_family = AF_UNIX};
    int fd = make_socket(AF_UNIX, 0);
    (void)snprintf(where.sun_path, sizeof where.sun_path, "%s", path);
    ck_assert_msg(connect(fd, (const struct sockaddr *)&where, sizeof where) == 0, "%s: %s", path,
                  strerrordesc_np(errno));
    return fd;
}

int client_connect(const struct server *server, int receive_bytes)
{
    return connect_inet(AF_INET, http_port(server->http, 0), receive_bytes);
}

void client_send(int fd, const char *text)
{
    size_t len = strlen(text);
    /* A server that refuses may have closed already: what it said is what counts. */
    (void)!send(fd, text, len, MSG_NOSIGNAL);
}

struct reply client_read(int fd, bool head_only)
{
    struct reply reply = {0};
    size_t len = 0, room = 64 * 1024;
    char *head = malloc(room + 1);
    char *end = NULL;
    while (!end) {
        ck_assert_uint_lt(len, room);
        ssize_t n = recv(fd, head + len, 1, 0); /* a byte at a time: the body stays in the socket */
        ck_assert_msg(n == 1, "no reply, after %zu bytes", len);
        head[++len] = '\0';
        end = len >= 4 && memcmp(head + len - 4, "\r\n\r\n", 4) == 0 ? head + len : NULL;
    }
    ck_assert_int_eq(sscanf(head, "HTTP/1.%*d %u", &reply.status), 1);
    reply.head = head;
    char *length = reply_header(&reply, "Content-Length");
    ck_assert_ptr_nonnull(length);
    reply.body_len = head_only ? 0 : strtoull(length, NULL, 10);
    free(length);
    reply.body = malloc(reply.body_len + 1);
    for (size_t got = 0; got < reply.body_len;) {
        ssize_t n = recv(fd, reply.body + got, reply.body_len - got, 0);
        ck_assert_msg(n > 0, "the body ends after %zu of %zu bytes", got, reply.body_len);
        got += (size_t)n;
    }
    reply.body[reply.body_len] = '\0';
    return reply;
}

void reply_free(struct reply *reply)
{
    free(reply->head);
    free(reply->body);
}

char *reply_header(const struct reply *reply, const char *name)
{
    size_t name_len = strlen(name);
    for (const char *line = strchr(reply->head, '\n'); line; line = strchr(line, '\n')) {
        line++;
        if (strncasecmp(line, name, name_len) == 0 && line[name_len] == ':') {
            line += name_len + 1;
            line += strspn(line, " ");
            return strndup(line, strcspn(line, "\r\n"));
        }
    }
    return NULL;
}

struct reply client_ask(const struct server *server, const char *request_line, const char *headers)
{
    char *text;
    int fd = client_connect(server, 0);
    ck_assert_int_gt(
        asprintf(&text, "%s\r\nHost: localhost\r\n%s\r\n", request_line, headers ? headers : ""),
        0);
    client_send(fd, text);
    free(text);
    struct reply reply = client_read(fd, strncmp(request_line, "HEAD ", 5) == 0);
    (void)close(fd);
    return reply;
}

size_t client_drain(int fd)
{
    char bytes[64 * 1024];
    size_t total = 0;
    ssize_t n;
    while ((n = recv(fd, bytes, sizeof bytes, 0)) > 0)
        total += (size_t)n;
    /* A reset is an end too; the safety timeout is not. */
    ck_assert_msg(n == 0 || errno == ECONNRESET, "not closed: %s", strerrordesc_np(errno));
    return total;
}

unsigned client_status(const struct server *server, const char *request_line, const char *headers)
{
    struct reply reply = client_ask(server, request_line, headers);
    unsigned status = reply.status;
    reply_free(&reply);
    return status;
}

void reply_expect_header(const struct reply *reply, const char *name, const char *expected)
{
    char *value = reply_header(reply, name);
    ck_assert_msg(expected ? value && strcmp(value, expected) == 0 : !value, "%s is %s", name,
                  value ? value : "absent");
    free(value);
}
