/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libmicrohttpd as it must be told: by itself it has no timeout and logs to standard error. It runs
 * twice, once for plain connections and once for TLS, each with a few threads, each thread an
 * epoll; so a flood of handshakes costs a reader on a Unix socket nothing but CPU time. Neither has
 * a listening socket: connections come from accept.c, and how many there may be is watch.c's.
 */
#include "http.h"

#include <gnutls/abstract.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "internal.h"
#include "log.h"

enum {
    /* More than one, so that a probe need not wait for a scrape that is being rendered. */
    THREADS_PER_DAEMON = 2,
    /*
     * Of one connection, bytes: request line and headers. More is a 431 or 414. Above 32 KiB
     * libmicrohttpd takes a mapping for each, which is all given back when the connection ends; at
     * 32 KiB it would be of the heap, which thousands of them leave in pieces.
     */
    CONNECTION_MEMORY = 36 * 1024,
    /* Connections: those that have a request in progress, and as many again that are idle. */
    CONNECTIONS_PER_REQUEST = 4,
    CONNECTIONS_MIN = 64,
    /* What libmicrohttpd may have: those that are cut, too, until its threads have got to them. */
    CONNECTIONS_OF_DAEMON = 1 << 20,
    /* Complaints, other than at debug level: one of a kind in so many seconds. */
    COMPLAIN_AGAIN_S = 60,
    /* For connections, at the end: an answer that is being made is made first. */
    END_WITHIN_MS = 2000,
    /* Histories that wait for the one that is made, which takes memory and up to some seconds. */
    HISTORIES_MAX = 24,
    HISTORIES_PER_PEER = 16,
    HISTORIES_NICE = 5,
    /*
     * For the names in web.listen. The C library's resolver gives a server 5 s, so the second one
     * gets its turn. The unit's WatchdogSec= is waiting meanwhile (see discovery/handoff.c).
     */
    LOOKUPS_MS = 8000,
};

static bool may_say(_Atomic int64_t *again_ns)
{
    int64_t now_ns = clock_now_ns(), due_ns = *again_ns;
    return now_ns >= due_ns && atomic_compare_exchange_strong(
                                   again_ns, &due_ns, now_ns + COMPLAIN_AGAIN_S * NSEC_PER_SEC);
}

/* --- connections --- */

static gnutls_session_t session_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_GNUTLS_SESSION);
    return info ? info->tls_session : NULL;
}

/* Within the handshake. libmicrohttpd has made its connection the session's pointer. */
static int on_verify(gnutls_session_t session)
{
    struct client *client = client_of(gnutls_session_get_ptr(session));
    if (!client || !client->policy || tls_verify(client->policy->tls, session) < 0)
        return GNUTLS_E_CERTIFICATE_ERROR;
    client->verified = true;
    return 0;
}

/* Before the handshake: the session gets what is in force now. */
static int prepare_session(struct http *http, struct client *client, gnutls_session_t session)
{
    client->policy = policy_source_get(&http->policies);
    if (!client->policy || !client->policy->tls)
        return -EIO; /* it was taken away between accept() and now */
    /* GnuTLS calls on_verify() only where a certificate was asked for. */
    client->verified = client->policy->config->tls.client_auth == WEB_CLIENT_NONE;
    gnutls_session_set_verify_function(session, on_verify);
    return tls_prepare(client->policy->tls, session);
}

static bool is_local(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    return info && info->client_addr && info->client_addr->sa_family == AF_UNIX;
}

bool client_may_go_on(struct client *client, struct MHD_Connection *connection,
                      struct policy *policy)
{
    gnutls_session_t session = session_of(connection);
    if (!policy || !policy->tls || policy == client->policy || policy == client->welcome)
        return true;
    if (!session)
        return is_local(connection);
    if (tls_verify_again(policy->tls, client->policy->tls, session) < 0)
        return false;
    policy_unref(client->welcome);
    client->welcome = policy_ref(policy);
    return true;
}

static struct client *client_new(struct http *http, struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *fd =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    const union MHD_ConnectionInfo *peer =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    int64_t timeout_ns = http->timeout_ns;
    unsigned timeout_s = (unsigned)((timeout_ns + NSEC_PER_SEC - 1) / NSEC_PER_SEC);
    struct client *client = calloc(1, sizeof *client);
    if (!fd)
        abort(); /* libmicrohttpd always knows */
    acceptor_arrived(&http->acceptor, fd->connect_fd);
    if (!client) {
        (void)shutdown(fd->connect_fd, SHUT_RDWR);
        return NULL;
    }
    gnutls_session_t session = session_of(connection);
    int r = session ? prepare_session(http, client, session) : 0;
    /* Those that have the timeout of the start are cheaper: their list is sorted. */
    if (timeout_s != http->started_timeout_s)
        (void)MHD_set_connection_option(connection, MHD_CONNECTION_OPTION_TIMEOUT, timeout_s);
    watch_add(&http->watch, &client->watched, fd->connect_fd,
              peer_of(peer ? peer->client_addr : NULL),
              clock_now_ns() + REQUEST_TIMEOUTS * timeout_ns);
    if (r < 0)
        watch_cut(&http->watch, &client->watched);
    return client;
}

static void client_free(struct http *http, struct client *client)
{
    if (!client)
        return;
    watch_remove(&http->watch, &client->watched);
    policy_unref(client->policy); /* its session is no more */
    policy_unref(client->welcome);
    free(client);
}

/* libmicrohttpd calls its threads MHD-worker, and knows nothing of who else wants the CPU. */
static void settle_thread(void)
{
    static _Thread_local bool settled;
    const struct sched_param none = {0};
    if (settled)
        return;
    settled = true;
    (void)pthread_setname_np(pthread_self(), "kvmstatd-http");
    /* A scrape is some milliseconds of work: it need not push anybody from a CPU when it wakes up.
     */
    (void)pthread_setschedparam(pthread_self(), SCHED_BATCH, &none);
}

static void on_connection(void *cls, struct MHD_Connection *connection, void **client_at,
                          enum MHD_ConnectionNotificationCode what)
{
    settle_thread();
    switch (what) {
    case MHD_CONNECTION_NOTIFY_STARTED:
        *client_at = client_new(cls, connection);
        break;
    case MHD_CONNECTION_NOTIFY_CLOSED:
        /* Before libmicrohttpd closes the socket, and after it has freed the session. */
        client_free(cls, *client_at);
        *client_at = NULL;
        break;
    }
}

/* On the accepting thread. */
static void on_admit(void *ctx, int fd, const struct sockaddr *peer, socklen_t len)
{
    struct http *http = ctx;
    struct MHD_Daemon *daemon = http->plain;
    CLEANUP(cleanup_policy_unref) struct policy *policy = policy_source_get(&http->policies);
    if (policy && policy->tls && peer->sa_family != AF_UNIX)
        daemon = http->tls;
    /* It consumes the fd in any case. */
    if (MHD_add_connection(daemon, fd, peer, len) != MHD_YES)
        acceptor_arrived(&http->acceptor, fd);
}

static void on_short_of(void *ctx, int error)
{
    struct http *http = ctx;
    if (may_say(&http->short_again_ns))
        log_warn("http", "cannot take a connection: %s; ending an idle one for it",
                 strerrordesc_np(-error));
    watch_make_room(&http->watch);
}

/* --- libmicrohttpd --- */

/*
 * What libmicrohttpd says is about single peers (a malformed request, a reset), which is of
 * interest at debug level only; except for what keeps others from being served.
 */
static void on_complaint(void *cls, const char *format, va_list args)
    __attribute__((format(printf, 2, 0)));
static void on_complaint(void *cls, const char *format, va_list args)
{
    static const char *const serious[] = {
        "Server reached connection limit",
        "Failed to start serving new connection",
        "Call to epoll_",
    };
    /* Unix sockets have no TCP options. It tries all the same, and nothing comes of it. */
    static const char *const idle[] = {"Setting %s option", "Failed to push the data"};
    struct http *http = cls;
    enum log_level level = LOG_LEVEL_DEBUG;
    char line[512];
    for (size_t i = 0; i < ARRAY_LEN(idle); i++) {
        if (strncmp(format, idle[i], strlen(idle[i])) == 0)
            return;
    }
    for (size_t i = 0; i < ARRAY_LEN(serious); i++) {
        if (strncmp(format, serious[i], strlen(serious[i])) == 0 &&
            may_say(&http->complain_again_ns))
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

/* Sessions have their own credentials from prepare_session() on: these are never asked for any. */
static int on_no_certificate(gnutls_session_t session, const struct gnutls_cert_retr_st *info,
                             gnutls_pcert_st **ret_certificates, unsigned *ret_n,
                             gnutls_ocsp_data_st **ret_ocsp, unsigned *ret_n_ocsp,
                             gnutls_privkey_t *ret_key, unsigned *ret_flags)
{
    (void)session;
    (void)info;
    (void)ret_certificates;
    (void)ret_n;
    (void)ret_ocsp;
    (void)ret_n_ocsp;
    (void)ret_key;
    (void)ret_flags;
    return -1;
}

static struct MHD_Daemon *start_daemon(struct http *http, bool tls)
{
    const unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_NO_LISTEN_SOCKET | MHD_USE_ITC |
                           MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
    struct MHD_OptionItem of_tls[] = {
        {MHD_OPTION_HTTPS_CERT_CALLBACK2, 0, (void *)(uintptr_t)on_no_certificate},
        {MHD_OPTION_END, 0, NULL},
    };
    return MHD_start_daemon(
        tls ? flags | MHD_USE_TLS : flags, 0, NULL, NULL, on_request, http,
        MHD_OPTION_EXTERNAL_LOGGER, on_complaint, http, MHD_OPTION_THREAD_POOL_SIZE,
        (unsigned)THREADS_PER_DAEMON, MHD_OPTION_CONNECTION_TIMEOUT, http->started_timeout_s,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_OF_DAEMON,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY, MHD_OPTION_STRICT_FOR_CLIENT,
        1, MHD_OPTION_NOTIFY_COMPLETED, on_request_done, http, MHD_OPTION_NOTIFY_CONNECTION,
        on_connection, http, MHD_OPTION_ARRAY, tls ? of_tls : &of_tls[1], MHD_OPTION_END);
}

static int need_daemon(struct http *http, bool tls, struct config_error *ret_error)
{
    errno = 0;
    struct MHD_Daemon *daemon = start_daemon(http, tls);
    int error = errno ? errno : EIO;
    if (!daemon) {
        (void)snprintf(ret_error->message, sizeof ret_error->message,
                       "web: the HTTP server does not start: %s", strerrordesc_np(error));
        return -error;
    }
    if (tls)
        http->tls = daemon;
    else
        http->plain = daemon;
    return 0;
}

/* --- starting, changing, stopping --- */

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

static size_t connections_max(const struct config *config)
{
    return MAX_OF((size_t)config->web.max_requests * CONNECTIONS_PER_REQUEST,
                  (size_t)CONNECTIONS_MIN);
}

static bool lists(const struct config *config, const char *text)
{
    for (size_t i = 0; i < config->web.listen.n; i++) {
        if (strcmp(config->web.listen.items[i], text) == 0)
            return true;
    }
    return false;
}

static bool is_unlisted(const void *config, const struct listener *listener)
{
    return !lists(config, listener->text);
}

static bool is_new(const void *none, const struct listener *listener)
{
    (void)none;
    return !listener->is_open;
}

/* It may come yet, or it is mistyped: then this is all there is to find it out by. */
static void warn_if_absent(const struct listener *listener)
{
    if (listener->socket.absent)
        log_warn("http", "web.listen: %s: this machine has no such address; served when it has",
                 listener->text);
}

/* Opens the addresses that are not open yet; all of them or none. */
static int add_listeners(struct http *http, const struct config *config,
                         struct config_error *ret_error)
{
    const struct string_list *listen = &config->web.listen;
    const struct listen_how how = {
        .share = http->config != NULL,
        .until_ns = clock_now_ns() + LOOKUPS_MS * NSEC_PER_MSEC,
    };
    int r = 0;
    acceptor_share(&http->acceptor, true, is_unlisted, config);
    for (size_t i = 0; r == 0 && i < listen->n; i++) {
        if (acceptor_find(&http->acceptor, listen->items[i]))
            continue;
        r = acceptor_add(&http->acceptor, listen->items[i], &how, ret_error);
        if (r == 0)
            warn_if_absent(acceptor_find(&http->acceptor, listen->items[i]));
    }
    acceptor_share(&http->acceptor, false, is_unlisted, config);
    if (r < 0)
        acceptor_close(&http->acceptor, is_new, NULL);
    return r;
}

int http_reconfigure(struct http *http, struct config *config, struct config_error *ret_error)
{
    CLEANUP(cleanup_policy_unref) struct policy *policy = NULL;
    CLEANUP_FREE char *path = strdup(config->web.config_file);
    ret_error->message[0] = '\0';
    int r = path ? 0 : -ENOMEM;
    if (r == 0 && path[0])
        r = policy_load(path, &policy, ret_error);
    if (r == 0 && policy && !http->tls)
        r = need_daemon(http, true, ret_error);
    if (r == 0)
        r = add_listeners(http, config, ret_error);
    if (r < 0) {
        if (!ret_error->message[0])
            (void)snprintf(ret_error->message, sizeof ret_error->message, "web: %s",
                           strerrordesc_np(-r));
        return r;
    }
    /* Nothing below can fail. */
    if (policy && policy->config->places[WEB_PLACE_HTTP2].line && policy->config->http2)
        log_info("http", "%s: http2: true has no effect: kvmstatd speaks HTTP/1.1 only", path);
    policy_source_set(&http->policies, steal_ptr(&path), steal_ptr(&policy));
    watch_set_limit(&http->watch, connections_max(config));
    quota_set_requests(&http->site.quota, config->web.max_requests);
    http->timeout_ns = MAX_OF(config->web.timeout_ns, NSEC_PER_SEC);
    acceptor_close(&http->acceptor, is_unlisted, config);
    acceptor_open(&http->acceptor);
    struct config *former = http->config;
    http->config = config_ref(config);
    config_unref(former);
    return 0;
}

int http_check(const struct config *config, struct config_error *ret_error)
{
    CLEANUP(cleanup_policy_unref) struct policy *policy = NULL;
    return config->web.config_file[0] ? policy_load(config->web.config_file, &policy, ret_error)
                                      : 0;
}

static int start_parts(struct http *http, struct config *config, struct config_error *ret_error)
{
    const struct acceptor_ops ops = {.admit = on_admit, .short_of = on_short_of, .ctx = http};
    int64_t timeout_ns = MAX_OF(config->web.timeout_ns, NSEC_PER_SEC);
    http->timeout_ns = timeout_ns;
    http->started_timeout_s = (unsigned)((timeout_ns + NSEC_PER_SEC - 1) / NSEC_PER_SEC);
    rate_init(&http->rate);
    work_init(&http->histories, "kvmstatd-past", HISTORIES_NICE, HISTORIES_MAX, HISTORIES_PER_PEER);
    policy_source_init(&http->policies, &http->site.store->self.web_config_refused);
    int a = auth_init(&http->auth), b = watch_start(&http->watch, connections_max(config)),
        c = acceptor_start(&http->acceptor, &ops);
    int r = a < 0 ? a : b < 0 ? b : c;
    if (r < 0) {
        (void)snprintf(ret_error->message, sizeof ret_error->message, "web: cannot start: %s",
                       strerrordesc_np(-r));
        return r;
    }
    r = need_daemon(http, false, ret_error);
    return r < 0 ? r : http_reconfigure(http, config, ret_error);
}

int http_start(struct store *store, struct exposition *exposition, struct config *config,
               struct http **ret_http, struct config_error *ret_error)
{
    struct http *made = calloc(1, sizeof *made);
    if (!made) {
        (void)snprintf(ret_error->message, sizeof ret_error->message, "web: out of memory");
        return -ENOMEM;
    }
    MHD_set_panic_func(on_panic, NULL);
    site_init(&made->site, store, exposition, config);
    /* The threads inherit this: signals are the main thread's. */
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int r = start_parts(made, config, ret_error);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r < 0) {
        http_free(made);
        return r;
    }
    *ret_http = made;
    return 0;
}

/*
 * libmicrohttpd crashes where it refuses a malformed request while it is being stopped (0.9.75: its
 * answer is dropped, and sent all the same). So when it is stopped it has no connections any more.
 */
static void end_connections(struct http *http)
{
    const struct timespec pause = {.tv_nsec = NSEC_PER_MSEC};
    watch_close(&http->watch);
    /* Turns, not time: where this machine was held up, its other threads were as well. */
    for (int i = 0; i < END_WITHIN_MS; i++) {
        if (watch_is_empty(&http->watch) && acceptor_is_idle(&http->acceptor))
            return;
        (void)nanosleep(&pause, NULL);
    }
}

/* First no more connections, then no more that are suspended, then none at all. */
void http_free(struct http *http)
{
    if (!http)
        return;
    atomic_store(&http->site.stopping, true);
    acceptor_stop(&http->acceptor);
    auth_stop(&http->auth);
    work_stop(&http->histories);
    end_connections(http);
    if (http->tls)
        MHD_stop_daemon(http->tls);
    if (http->plain)
        MHD_stop_daemon(http->plain);
    acceptor_deinit(&http->acceptor);
    watch_stop(&http->watch);
    auth_deinit(&http->auth);
    work_deinit(&http->histories);
    policy_source_deinit(&http->policies);
    rate_deinit(&http->rate);
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

uint16_t http_port(struct http *http, size_t i)
{
    const struct string_list *listen = &http->config->web.listen;
    const struct listener *listener =
        i < listen->n ? acceptor_find(&http->acceptor, listen->items[i]) : NULL;
    return listener ? listener->socket.port : 0;
}
