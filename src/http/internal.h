/* SPDX-License-Identifier: Apache-2.0 */
/* The server as its files share it. Internal to http.c and exchange.c, which see microhttpd.h. */
#pragma once

#include <microhttpd.h>
#include <stdarg.h>

#include "accept.h"
#include "auth.h"
#include "http.h"
#include "policy.h"
#include "rate.h"
#include "routes.h"
#include "watch.h"
#include "work.h"

enum {
    /* In multiples of web.timeout, which by itself is how long a connection may be idle. */
    REQUEST_TIMEOUTS = 2, /* from the connection, or the answer before, to the end of the headers */
    ANSWER_TIMEOUTS = 4,  /* from there until the answer has been taken */
};

struct http {
    struct site site;
    struct config *config; /* THREADS: who starts, reconfigures and stops, one at a time */
    struct watch watch;
    struct acceptor acceptor;
    struct policy_source policies;
    struct auth auth;
    struct work histories;
    struct rate rate;
    /* No listener is bound to one of these: which one takes a connection is settled when it comes.
     */
    struct MHD_Daemon *plain;
    struct MHD_Daemon *_Atomic tls; /* NULL until there first is a web configuration */
    unsigned started_timeout_s;     /* what these were started with */
    _Atomic int64_t timeout_ns;
    _Atomic int64_t complain_again_ns, short_again_ns;
};

/* A connection. */
struct client {
    struct watched watched;
    struct policy *policy;  /* of its TLS session, whose credentials it holds; NULL: plain HTTP */
    bool verified;          /* a TLS client that may enter */
    struct policy *welcome; /* the last one that let it go on, if it is not that of its session */
};

struct client *client_of(struct MHD_Connection *connection);
/*
 * Whether a connection that was made under a former policy may go on under this one (NULL: none):
 * what has been plain is not where TLS is wanted now, and a client's certificate has to be good by
 * now's rules.
 */
bool client_may_go_on(struct client *client, struct MHD_Connection *connection,
                      struct policy *policy);

/* What libmicrohttpd calls; `cls` is the struct http. */
enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *url,
                           const char *method, const char *version, const char *upload,
                           size_t *upload_bytes, void **exchange_at);
void on_request_done(void *cls, struct MHD_Connection *connection, void **exchange_at,
                     enum MHD_RequestTerminationCode reason);
