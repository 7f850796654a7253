/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libmicrohttpd as it must be told: by itself it has no timeout, no limit for one peer, and logs to
 * standard error. Each address is a daemon of its own with a few threads, each thread an epoll; the
 * handlers run in those threads. A whole answer is made, then handed over as one buffer, which is
 * freed when it was sent or its reader has gone. (Never as an iovec: with version 0.9.75 a client
 * can make that abort the process.)
 */
#include "http.h"

#include <arpa/inet.h>
#include <limits.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "clock.h"
#include "listen.h"
#include "log.h"
#include "routes.h"
#include "watch.h"

enum {
    /* More than one, so that a probe need not wait for a scrape that is being rendered. */
    THREADS_PER_LISTENER = 2,
    /* Of one connection, bytes: request line and headers. More is a 431 or 414. */
    CONNECTION_MEMORY = 32 * 1024,
    /*
     * Connections of one listener: those that have a request in progress, and idle ones. One IP
     * address may have half of them, which still is twice web.max_requests.
     */
    CONNECTIONS_PER_REQUEST = 4,
    CONNECTIONS_MIN = 64,
    /* In multiples of web.timeout, which by itself is how long a connection may be idle. */
    REQUEST_TIMEOUTS = 2, /* from the connection, or the answer before, to the end of the headers */
    ANSWER_TIMEOUTS = 4,  /* from there until the answer has been taken */
    /* Complaints of libmicrohttpd, other than at debug level: one in so many seconds. */
    COMPLAIN_AGAIN_S = 60,
};

struct listener {
    struct listen_socket socket;
    struct MHD_Daemon *daemon; /* owned; owns socket.fd */
};

struct http {
    struct site site;
    struct config *config;
    struct watch watch;
    int64_t timeout_ns;
    _Atomic int64_t complain_again_ns;
    size_t n_listeners;
    struct listener listeners[];
};

/* A connection. */
struct client {
    struct watched watched;
};

/* A request in progress. What is kept for the log is cut where it is long. */
struct exchange {
    bool entered; /* holds one of web.max_requests */
    bool gzip;
    unsigned status; /* 0: not answered */
    uint64_t bytes;
    int64_t begin_ns;
    char method[16];
    char path[128];
};

static struct client *client_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

/* The body went out, or will not: libmicrohttpd needs it no more. */
static void on_body_done(void *cls)
{
    body_free(cls);
}

static struct MHD_Response *make_response(struct answer *answer)
{
    struct MHD_Response *response;
    if (!answer->body)
        return MHD_create_response_from_buffer_with_free_callback_cls(
            strlen(answer->text), (void *)(uintptr_t)answer->text, NULL, NULL);
    response = MHD_create_response_from_buffer_with_free_callback_cls(
        answer->body->buffer.len, answer->body->buffer.data, on_body_done, answer->body);
    if (response)
        answer->body = NULL;
    return response;
}

static bool add_headers(struct MHD_Response *response, const struct answer *answer)
{
    char seconds[16];
    (void)snprintf(seconds, sizeof seconds, "%u", answer->retry_after_s);
    const struct {
        const char *name, *value; /* NULL: not this time */
    } headers[] = {
        {MHD_HTTP_HEADER_CONTENT_TYPE, answer->content_type},
        {MHD_HTTP_HEADER_CONTENT_ENCODING, answer->gzip ? "gzip" : NULL},
        {MHD_HTTP_HEADER_VARY, answer->negotiated ? "Accept, Accept-Encoding" : NULL},
        {MHD_HTTP_HEADER_ALLOW, answer->allow},
        {MHD_HTTP_HEADER_RETRY_AFTER, answer->retry_after_s ? seconds : NULL},
        {MHD_HTTP_HEADER_CACHE_CONTROL, "no-store"},
        {"X-Content-Type-Options", "nosniff"},
        {"Content-Security-Policy",
         answer->html ? "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
                      : NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(headers); i++) {
        if (headers[i].value &&
            MHD_add_response_header(response, headers[i].name, headers[i].value) != MHD_YES)
            return false;
    }
    return true;
}

/* Hands over the answer and consumes it. MHD_NO closes the connection. */
static enum MHD_Result send_answer(struct MHD_Connection *connection, struct exchange *exchange,
                                   struct answer *answer)
{
    enum MHD_Result sent = MHD_NO;
    exchange->status = answer->status;
    exchange->gzip = answer->gzip;
    exchange->bytes = answer->body ? answer->body->buffer.len : strlen(answer->text);
    struct MHD_Response *response = make_response(answer);
    if (response) {
        if (add_headers(response, answer))
            sent = MHD_queue_response(connection, answer->status, response);
        MHD_destroy_response(response);
    }
    body_free(answer->body);
    return sent;
}

static const char *header(struct MHD_Connection *connection, const char *name)
{
    return MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
}

static bool has_body(struct MHD_Connection *connection)
{
    const char *length = header(connection, MHD_HTTP_HEADER_CONTENT_LENGTH);
    return header(connection, MHD_HTTP_HEADER_TRANSFER_ENCODING) ||
           (length && strspn(length, "0") != strlen(length));
}

static struct exchange *exchange_new(const char *method, const char *path)
{
    struct exchange *exchange = calloc(1, sizeof *exchange);
    if (exchange) {
        exchange->begin_ns = clock_now_ns();
        (void)snprintf(exchange->method, sizeof exchange->method, "%s", method);
        (void)snprintf(exchange->path, sizeof exchange->path, "%s", path);
    }
    return exchange;
}

/*
 * Called once when the headers are there and once more when the request is whole. Requests here
 * have no body: one that announces a body is answered at the first call, and libmicrohttpd then
 * reads nothing of it and closes the connection.
 */
static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_bytes, void **exchange_at)
{
    struct http *http = cls;
    struct exchange *exchange = *exchange_at;
    struct client *client = client_of(connection);
    struct answer answer = {0};
    (void)version;
    (void)upload;
    (void)upload_bytes;
    if (!client)
        return MHD_NO; /* there was no memory to watch it */

    if (!exchange) {
        *exchange_at = exchange = exchange_new(method, url);
        if (!exchange)
            return MHD_NO;
        watch_move(&http->watch, &client->watched,
                   exchange->begin_ns + ANSWER_TIMEOUTS * http->timeout_ns);
        if (!has_body(connection))
            return MHD_YES;
        if (routes_allow_method(method)) {
            answer_text(&answer, 413, "Requests here have no body.\n");
            return send_answer(connection, exchange, &answer);
        }
    }
    const struct request request = {
        .method = method,
        .path = url,
        .accept = header(connection, MHD_HTTP_HEADER_ACCEPT),
        .accept_encoding = header(connection, MHD_HTTP_HEADER_ACCEPT_ENCODING),
    };
    routes_answer(&http->site, routes_find(url), &request, &answer, &exchange->entered);
    return send_answer(connection, exchange, &answer);
}

static void name_peer(struct MHD_Connection *connection, char *ret_name, size_t size)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    const struct sockaddr *peer = info ? info->client_addr : NULL;
    (void)snprintf(ret_name, size, "a Unix socket");
    if (peer && peer->sa_family == AF_INET)
        (void)inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)peer)->sin_addr,
                        ret_name, (socklen_t)size);
    else if (peer && peer->sa_family == AF_INET6)
        (void)inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)(const void *)peer)->sin6_addr,
                        ret_name, (socklen_t)size);
}

static void log_exchange(struct MHD_Connection *connection, const struct exchange *exchange,
                         int64_t now_ns, bool whole)
{
    char peer[INET6_ADDRSTRLEN];
    if (log_get_level() < LOG_LEVEL_DEBUG)
        return;
    name_peer(connection, peer, sizeof peer);
    log_debug("http", "%s %s from %s: %u, %llu bytes%s, %s after %lld ms", exchange->method,
              exchange->path, peer, exchange->status, (unsigned long long)exchange->bytes,
              exchange->gzip ? " of gzip" : "", whole ? "sent" : "given up",
              (long long)((now_ns - exchange->begin_ns) / NSEC_PER_MSEC));
}

static void on_request_done(void *cls, struct MHD_Connection *connection, void **exchange_at,
                            enum MHD_RequestTerminationCode reason)
{
    struct http *http = cls;
    struct exchange *exchange = *exchange_at;
    struct client *client = client_of(connection);
    int64_t now_ns = clock_now_ns();
    if (client)
        watch_move(&http->watch, &client->watched, now_ns + REQUEST_TIMEOUTS * http->timeout_ns);
    if (!exchange)
        return;
    log_exchange(connection, exchange, now_ns, reason == MHD_REQUEST_TERMINATED_COMPLETED_OK);
    if (exchange->entered)
        quota_leave(&http->site.quota);
    free(exchange);
    *exchange_at = NULL;
}

static void on_connection(void *cls, struct MHD_Connection *connection, void **client_at,
                          enum MHD_ConnectionNotificationCode what)
{
    static _Thread_local bool named;
    struct http *http = cls;
    struct client *client = *client_at;
    if (!named) { /* libmicrohttpd calls its threads MHD-worker */
        (void)pthread_setname_np(pthread_self(), "kvmstatd-http");
        named = true;
    }
    switch (what) {
    case MHD_CONNECTION_NOTIFY_STARTED: {
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
        client = info ? calloc(1, sizeof *client) : NULL;
        if (client)
            watch_add(&http->watch, &client->watched, info->connect_fd,
                      clock_now_ns() + REQUEST_TIMEOUTS * http->timeout_ns);
        *client_at = client;
        break;
    }
    case MHD_CONNECTION_NOTIFY_CLOSED:
        /* Before libmicrohttpd closes the socket. */
        if (client)
            watch_remove(&http->watch, &client->watched);
        free(client);
        *client_at = NULL;
        break;
    }
}

/*
 * What libmicrohttpd says is about single peers (a malformed request, a reset), which is of
 * interest at debug level only; except for what keeps others from being served.
 */
static void on_complaint(void *cls, const char *format, va_list args)
    __attribute__((format(printf, 2, 0)));
static void on_complaint(void *cls, const char *format, va_list args)
{
    static const char *const serious[] = {
        "Error accepting connection",
        "Hit process or system resource limit",
        "Server reached connection limit",
        "Call to epoll_",
    };
    struct http *http = cls;
    enum log_level level = LOG_LEVEL_DEBUG;
    char line[512];
    for (size_t i = 0; i < ARRAY_LEN(serious); i++) {
        int64_t now_ns = clock_now_ns();
        int64_t due_ns = atomic_load_explicit(&http->complain_again_ns, memory_order_relaxed);
        if (strncmp(format, serious[i], strlen(serious[i])) == 0 && now_ns >= due_ns &&
            atomic_compare_exchange_strong(&http->complain_again_ns, &due_ns,
                                           now_ns + COMPLAIN_AGAIN_S * NSEC_PER_SEC))
            level = LOG_LEVEL_WARN;
    }
    if (level > log_get_level())
        return;
    (void)vsnprintf(line, sizeof line, format, args);
    line[strcspn(line, "\n")] = '\0';
    log_line(level, "http", "%.200s", line); /* some quote a whole page */
}

static void on_panic(void *cls, const char *file, unsigned line, const char *reason)
{
    (void)cls;
    log_error("http", "libmicrohttpd gives up at %s:%u: %s", file, line, reason ? reason : "");
    abort();
}

/* The socket is libmicrohttpd's whatever comes of it: most of its failures close it. */
static struct MHD_Daemon *start_daemon(struct http *http, int fd)
{
    unsigned connections = CONNECTIONS_MIN;
    unsigned timeout_s = (unsigned)MIN_OF((http->timeout_ns + NSEC_PER_SEC - 1) / NSEC_PER_SEC,
                                          (int64_t)UINT_MAX / 1000);
    if (http->config->web.max_requests < UINT_MAX / CONNECTIONS_PER_REQUEST)
        connections = MAX_OF(http->config->web.max_requests * CONNECTIONS_PER_REQUEST, connections);
    return MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ITC | MHD_USE_ERROR_LOG, 0, NULL, NULL, on_request,
        http, MHD_OPTION_EXTERNAL_LOGGER, on_complaint, http, MHD_OPTION_LISTEN_SOCKET, fd,
        MHD_OPTION_THREAD_POOL_SIZE, (unsigned)THREADS_PER_LISTENER, MHD_OPTION_CONNECTION_TIMEOUT,
        MAX_OF(timeout_s, 1U), MHD_OPTION_CONNECTION_LIMIT, connections,
        MHD_OPTION_PER_IP_CONNECTION_LIMIT, connections / 2, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)CONNECTION_MEMORY, MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_NOTIFY_COMPLETED,
        on_request_done, http, MHD_OPTION_NOTIFY_CONNECTION, on_connection, http, MHD_OPTION_END);
}

static int listener_start(struct http *http, struct listener *listener, const char *text,
                          struct config_error *ret_error)
{
    struct listen_address address;
    int r = config_parse_listen(text, &address, ret_error);
    if (r == 0)
        r = listen_open(&address, text, &listener->socket, ret_error);
    if (r < 0)
        return r;

    errno = 0;
    listener->daemon = start_daemon(http, steal_fd(&listener->socket.fd));
    r = listener->daemon ? 0 : errno ? -errno : -EIO;
    if (r < 0)
        (void)snprintf(ret_error->message, sizeof ret_error->message,
                       "web.listen: %.200s: the HTTP server does not start: %s", text,
                       strerrordesc_np(-r));
    return r;
}

static void site_init(struct site *site, struct store *store, struct exposition *exposition,
                      const struct config *config)
{
    pthread_rwlockattr_t attr;
    *site = (struct site){.store = store, .exposition = exposition, .version = KVMSTATD_VERSION};
    quota_init(&site->quota, config->web.max_requests, (uint64_t)QUOTA_ANSWERS_MIB << 20);
    gzip_pool_init(&site->gzip);
    /* Scrapes that overlap all the time must not hold up a reload for ever. */
    (void)pthread_rwlockattr_init(&attr);
    (void)pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    (void)pthread_rwlock_init(&site->exposition_lock, &attr);
    (void)pthread_rwlockattr_destroy(&attr);
}

static void site_deinit(struct site *site)
{
    (void)pthread_rwlock_destroy(&site->exposition_lock);
    gzip_pool_deinit(&site->gzip);
    quota_deinit(&site->quota);
}

static int start_all(struct http *http, struct config_error *ret_error)
{
    const struct string_list *listen = &http->config->web.listen;
    int r = watch_start(&http->watch);
    if (r < 0) {
        (void)snprintf(ret_error->message, sizeof ret_error->message,
                       "web: a thread does not start: %s", strerrordesc_np(-r));
        return r;
    }
    for (size_t i = 0; r == 0 && i < listen->n; i++) {
        struct listener *listener = &http->listeners[http->n_listeners++];
        *listener = (struct listener){.socket = LISTEN_SOCKET_INIT};
        r = listener_start(http, listener, listen->items[i], ret_error);
    }
    return r;
}

int http_start(struct store *store, struct exposition *exposition, struct config *config,
               struct http **ret_http, struct config_error *ret_error)
{
    size_t n = config->web.listen.n;
    if (config->web.config_file[0]) {
        (void)snprintf(ret_error->message, sizeof ret_error->message,
                       "web.config_file: %.200s: this version has neither TLS nor basic auth; "
                       "leave it empty",
                       config->web.config_file);
        return -EINVAL;
    }
    struct http *made = calloc(1, sizeof *made + n * sizeof made->listeners[0]);
    if (!made) {
        (void)snprintf(ret_error->message, sizeof ret_error->message, "web: out of memory");
        return -ENOMEM;
    }
    MHD_set_panic_func(on_panic, NULL);
    site_init(&made->site, store, exposition, config);
    made->config = config_ref(config);
    made->timeout_ns = MAX_OF(config->web.timeout_ns, NSEC_PER_SEC);
    CLEANUP(cleanup_http_free) struct http *http = made;
    /* The threads inherit this: signals are the main thread's. */
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int r = start_all(http, ret_error);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r < 0)
        return r;
    *ret_http = steal_ptr(&http);
    return 0;
}

void http_free(struct http *http)
{
    if (!http)
        return;
    for (size_t i = 0; i < http->n_listeners; i++) {
        struct listener *listener = &http->listeners[i];
        listen_close(&listener->socket);
        if (listener->daemon)
            MHD_stop_daemon(listener->daemon);
    }
    watch_stop(&http->watch);
    site_deinit(&http->site);
    config_unref(http->config);
    free(http);
}

void http_use_exposition(struct http *http, struct exposition *exposition)
{
    (void)pthread_rwlock_wrlock(&http->site.exposition_lock);
    http->site.exposition = exposition;
    (void)pthread_rwlock_unlock(&http->site.exposition_lock);
}

uint16_t http_port(const struct http *http, size_t i)
{
    return i < http->n_listeners ? http->listeners[i].socket.port : 0;
}
