/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a request to what is sent. A whole answer is made, then handed over as one buffer, which is
 * freed when it was sent or its reader has gone. (Never as an iovec: with libmicrohttpd 0.9.75 a
 * client can make that abort the process.)
 *
 * Before there is an answer, a request passes the rate limit and then says who it is from. Where
 * that takes a bcrypt check, its connection is suspended: the thread goes on with others, and looks
 * at this one again when the check is done. The same where the answer takes long.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "clock.h"
#include "internal.h"
#include "log.h"

enum {
    BUSY_RETRY_S = 1, /* a check that waits is done or given up in about that time */
};

/* A request in progress. What is kept for the log is cut where it is long. */
struct exchange {
    struct MHD_Connection *connection; /* borrowed; outlives this */
    struct policy *policy;             /* in force when it came; NULL: none */
    enum {
        STEP_NEW,      /* nothing was decided yet */
        STEP_CHECKING, /* job is pending, or was just done */
        STEP_ENTERED,  /* may have its answer */
        STEP_MAKING,   /* work is pending, or was just done */
    } step;
    struct auth_job job;
    struct entrant entrant;
    /* What work makes the answer of. */
    struct site *site;
    struct request request;
    const struct route *route;
    struct work_job work;
    struct answer answer; /* what it has made */
    bool gzip;
    unsigned status; /* 0: not answered */
    uint64_t bytes;
    int64_t begin_ns;
    char method[16];
    char path[128];
};

struct client *client_of(struct MHD_Connection *connection)
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

/* What the web configuration sets stands instead of ours of the same name. */
static bool is_set(const struct policy *policy, enum web_header which)
{
    return policy && policy->config->headers[which] && policy->config->headers[which][0];
}

static bool add_configured(struct MHD_Response *response, const struct policy *policy)
{
    for (int i = 0; i < WEB_HEADERS; i++) {
        if (is_set(policy, (enum web_header)i) &&
            MHD_add_response_header(response, web_header_names[i], policy->config->headers[i]) !=
                MHD_YES)
            return false;
    }
    return true;
}

static bool add_headers(struct MHD_Response *response, const struct answer *answer,
                        const struct policy *policy)
{
    char seconds[16];
    bool own_csp = answer->html && !is_set(policy, WEB_HEADER_CSP);
    (void)snprintf(seconds, sizeof seconds, "%u", answer->retry_after_s);
    const struct {
        const char *name, *value; /* NULL: not this time */
    } headers[] = {
        {MHD_HTTP_HEADER_CONTENT_TYPE, answer->content_type},
        {MHD_HTTP_HEADER_CONTENT_ENCODING, answer->gzip ? "gzip" : NULL},
        {MHD_HTTP_HEADER_VARY, answer->negotiated ? "Accept, Accept-Encoding" : NULL},
        {MHD_HTTP_HEADER_ALLOW, answer->allow},
        {MHD_HTTP_HEADER_WWW_AUTHENTICATE,
         answer->status == 401 ? "Basic realm=\"kvmstatd\", charset=\"UTF-8\"" : NULL},
        {MHD_HTTP_HEADER_RETRY_AFTER, answer->retry_after_s ? seconds : NULL},
        {"X-Kvmstatd-Recording", answer->recording[0] ? answer->recording : NULL},
        {MHD_HTTP_HEADER_CACHE_CONTROL, "no-store"},
        {web_header_names[WEB_HEADER_TYPE], is_set(policy, WEB_HEADER_TYPE) ? NULL : "nosniff"},
        {web_header_names[WEB_HEADER_CSP],
         own_csp ? "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'" : NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(headers); i++) {
        if (headers[i].value &&
            MHD_add_response_header(response, headers[i].name, headers[i].value) != MHD_YES)
            return false;
    }
    return add_configured(response, policy);
}

/* From here on it is the client's turn: the time that we took is not counted against it. */
static void begin_sending(struct http *http, struct exchange *exchange)
{
    struct client *client = client_of(exchange->connection);
    if (client)
        watch_move(&http->watch, &client->watched,
                   clock_now_ns() + ANSWER_TIMEOUTS * http->timeout_ns, false);
}

/* Hands over the answer and consumes it. MHD_NO closes the connection. */
static enum MHD_Result send_answer(struct http *http, struct exchange *exchange,
                                   struct answer *answer)
{
    enum MHD_Result sent = MHD_NO;
    begin_sending(http, exchange);
    exchange->status = answer->status;
    exchange->gzip = answer->gzip;
    exchange->bytes = answer->body ? answer->body->buffer.len : strlen(answer->text);
    struct MHD_Response *response = make_response(answer);
    if (response) {
        if (add_headers(response, answer, exchange->policy))
            sent = MHD_queue_response(exchange->connection, answer->status, response);
        MHD_destroy_response(response);
    }
    body_free(answer->body);
    return sent;
}

static const char *header(struct MHD_Connection *connection, const char *name)
{
    return MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
}

static const char *argument(void *ctx, const char *name)
{
    return MHD_lookup_connection_value(ctx, MHD_GET_ARGUMENT_KIND, name);
}

/*
 * Every one counts that is there: of several lengths libmicrohttpd goes by the first, a proxy
 * before us perhaps by the last, and what one takes for a body the other would take for a request.
 */
static enum MHD_Result see_body(void *cls, enum MHD_ValueKind kind, const char *key,
                                const char *value)
{
    bool *ret_body = cls;
    (void)kind;
    if (strcasecmp(key, MHD_HTTP_HEADER_TRANSFER_ENCODING) == 0 ||
        (strcasecmp(key, MHD_HTTP_HEADER_CONTENT_LENGTH) == 0 && value &&
         strspn(value, "0") != strlen(value)))
        *ret_body = true;
    return MHD_YES;
}

static bool has_body(struct MHD_Connection *connection)
{
    bool body = false;
    (void)MHD_get_connection_values(connection, MHD_HEADER_KIND, see_body, &body);
    return body;
}

static struct exchange *exchange_new(struct MHD_Connection *connection, const char *method,
                                     const char *path)
{
    struct exchange *exchange = calloc(1, sizeof *exchange);
    if (exchange) {
        exchange->connection = connection;
        exchange->begin_ns = clock_now_ns();
        (void)snprintf(exchange->method, sizeof exchange->method, "%s", method);
        (void)snprintf(exchange->path, sizeof exchange->path, "%s", path);
    }
    return exchange;
}

/* --- who may enter --- */

/* On auth's thread. */
static void on_checked(struct auth_job *job)
{
    struct exchange *exchange = CONTAINER_OF(job, struct exchange, job);
    MHD_resume_connection(exchange->connection);
}

/* Returns false when it has to wait: the connection is suspended, and resumed when it is known. */
static bool is_decided(struct http *http, struct exchange *exchange, enum auth_verdict *ret_verdict)
{
    struct auth_job *job = &exchange->job;
    const char *authorization = header(exchange->connection, MHD_HTTP_HEADER_AUTHORIZATION);
    if (exchange->step == STEP_CHECKING) {
        *ret_verdict = job->verdict;
        return true;
    }
    *ret_verdict = AUTH_DENIED;
    if (auth_parse(authorization, &job->credentials) < 0)
        return true;
    const struct web_user *user = policy_user(exchange->policy, job->credentials.user);
    *ret_verdict = auth_recall(&http->auth, job, user, exchange->policy->fake_hash);
    if (*ret_verdict != AUTH_PENDING)
        return true;
    exchange->step = STEP_CHECKING;
    job->done = on_checked;
    job->work.peer = client_of(exchange->connection)->watched.peer;
    MHD_suspend_connection(exchange->connection);
    auth_submit(&http->auth, job);
    return false;
}

enum gate {
    GATE_OPEN,
    GATE_CLOSED, /* the answer says why */
    GATE_WAIT,
};

static enum gate pass_gate(struct http *http, struct exchange *exchange, struct answer *answer)
{
    const struct web_config *web = exchange->policy ? exchange->policy->config : NULL;
    enum auth_verdict verdict;
    if (!web || exchange->step >= STEP_ENTERED)
        return GATE_OPEN;
    if (exchange->step == STEP_NEW &&
        !rate_take(&http->rate, web->rate.interval_ns, web->rate.burst, clock_now_ns())) {
        answer_text(answer, 429, "Too many requests (rate_limit of the web configuration).\n");
        return GATE_CLOSED;
    }
    if (web->n_users == 0) {
        exchange->step = STEP_ENTERED;
        return GATE_OPEN;
    }
    if (!is_decided(http, exchange, &verdict))
        return GATE_WAIT;
    if (verdict == AUTH_ALLOWED) {
        exchange->step = STEP_ENTERED;
        return GATE_OPEN;
    }
    if (verdict == AUTH_BUSY) {
        answer_text(answer, 503, "Too many passwords are being checked. Try again later.\n");
        answer->retry_after_s = BUSY_RETRY_S;
    } else {
        answer_text(answer, 401, "Unauthorized.\n");
    }
    return GATE_CLOSED;
}

/* --- answers --- */

/* On work's thread. The connection is suspended: libmicrohttpd leaves it and its headers alone. */
static void on_turn(struct work_job *work, bool refused)
{
    struct exchange *exchange = CONTAINER_OF(work, struct exchange, work);
    if (refused) {
        answer_text(&exchange->answer, 503, "Too many histories are wanted. Try again later.\n");
        exchange->answer.retry_after_s = BUSY_RETRY_S;
    } else {
        exchange->route->answer(exchange->site, &exchange->request, &exchange->answer);
    }
    MHD_resume_connection(exchange->connection);
}

/* Returns false when it has to wait: it is called again when there is the answer. */
static bool is_answered(struct http *http, struct exchange *exchange, struct answer *ret_answer)
{
    if (exchange->step == STEP_MAKING) {
        *ret_answer = exchange->answer;
        exchange->answer = (struct answer){0};
        return true;
    }
    const struct request *request = &exchange->request;
    const struct route *route = exchange->route;
    if (!routes_admit(&http->site, route, request, ret_answer, &exchange->entrant))
        return true;
    if (!route->takes_long) {
        route->answer(&http->site, request, ret_answer);
        return true;
    }
    exchange->step = STEP_MAKING;
    exchange->work = (struct work_job){.run = on_turn, .peer = request->peer};
    MHD_suspend_connection(exchange->connection);
    work_submit(&http->histories, &exchange->work);
    return false;
}

/* --- requests --- */

/*
 * Called once when the headers are there, once more when the request is whole, and again when it
 * was suspended there. Requests here have no body: one that announces a body is answered at the
 * first call, and libmicrohttpd then reads nothing of it and closes the connection.
 */
enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *url,
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
    if (!client || (client->policy && !client->verified))
        return MHD_NO; /* there was no memory to watch it; or it came past tls_verify() */

    if (!exchange) {
        *exchange_at = exchange = exchange_new(connection, method, url);
        if (!exchange)
            return MHD_NO;
        exchange->policy = policy_source_get(&http->policies);
        watch_move(&http->watch, &client->watched,
                   exchange->begin_ns + ANSWER_TIMEOUTS * http->timeout_ns, false);
        if (!client_may_go_on(client, connection, exchange->policy))
            return MHD_NO;
        if (!has_body(connection))
            return MHD_YES;
        if (routes_allow_method(method)) {
            answer_text(&answer, 413, "Requests here have no body.\n");
            return send_answer(http, exchange, &answer);
        }
    }
    switch (pass_gate(http, exchange, &answer)) {
    case GATE_OPEN:
        break;
    case GATE_CLOSED:
        return send_answer(http, exchange, &answer);
    case GATE_WAIT:
        return MHD_YES;
    }
    exchange->site = &http->site;
    exchange->route = routes_find(url);
    exchange->request = (struct request){
        .peer = client->watched.peer,
        .method = method,
        .path = url,
        .accept = header(connection, MHD_HTTP_HEADER_ACCEPT),
        .accept_encoding = header(connection, MHD_HTTP_HEADER_ACCEPT_ENCODING),
        .argument = argument,
        .ctx = connection,
    };
    watch_move(&http->watch, &client->watched, INT64_MAX, false); /* until begin_sending() */
    return is_answered(http, exchange, &answer) ? send_answer(http, exchange, &answer) : MHD_YES;
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

static void log_exchange(const struct exchange *exchange, int64_t now_ns, bool whole)
{
    char peer[INET6_ADDRSTRLEN];
    if (log_get_level() < LOG_LEVEL_DEBUG)
        return;
    name_peer(exchange->connection, peer, sizeof peer);
    log_debug("http", "%s %s from %s: %u, %llu bytes%s, %s after %lld ms", exchange->method,
              exchange->path, peer, exchange->status, (unsigned long long)exchange->bytes,
              exchange->gzip ? " of gzip" : "", whole ? "sent" : "given up",
              (long long)((now_ns - exchange->begin_ns) / NSEC_PER_MSEC));
}

void on_request_done(void *cls, struct MHD_Connection *connection, void **exchange_at,
                     enum MHD_RequestTerminationCode reason)
{
    struct http *http = cls;
    struct exchange *exchange = *exchange_at;
    struct client *client = client_of(connection);
    int64_t now_ns = clock_now_ns();
    if (client)
        watch_move(&http->watch, &client->watched, now_ns + REQUEST_TIMEOUTS * http->timeout_ns,
                   true);
    if (!exchange)
        return;
    log_exchange(exchange, now_ns, reason == MHD_REQUEST_TERMINATED_COMPLETED_OK);
    quota_leave(&http->site.quota, &exchange->entrant);
    body_free(exchange->answer.body);
    credentials_wipe(&exchange->job.credentials);
    policy_unref(exchange->policy);
    free(exchange);
    *exchange_at = NULL;
}
