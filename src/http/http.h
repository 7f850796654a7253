/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP: the only code that sees microhttpd.h. Routes, limits, compression. Handlers read the store
 * through views and never touch targets or fds.
 */
#pragma once

#include "config.h"
#include "exposition.h"
#include "store.h"

struct http;

/*
 * Opens every address of config->web.listen (listen.h says how each kind is opened) and serves, by
 * the web configuration that web.config_file names: TLS on TCP, users and all else everywhere. A
 * Unix socket's stale file is replaced, a live one is -EADDRINUSE. On error *ret_error says which
 * address or which file and why, and nothing is left open.
 * Keeps references to what it is given; `store` and `exposition` are borrowed.
 * Returns 0, -EINVAL, -EADDRINUSE, -EACCES or another -errno.
 */
MUST_USE int http_start(struct store *store, struct exposition *exposition, struct config *config,
                        struct http **ret_http, struct config_error *ret_error);
/* Checks the web configuration that it names, with the files that this names. As http_start(). */
MUST_USE int http_check(const struct config *config, struct config_error *ret_error);
/*
 * Takes web.* of another configuration into force, for a reload. Either all of it, or nothing
 * changes and *ret_error says why. Addresses that stay are not closed for a moment, connections go
 * on, also those of addresses that go; they have their old timeouts. THREADS: the one that starts
 * and frees. Returns as http_start().
 */
MUST_USE int http_reconfigure(struct http *http, struct config *config,
                              struct config_error *ret_error);
/* Ends the listeners and all connections; waits for an answer that is just being made. */
void http_free(struct http *http);
DEFINE_CLEANUP(struct http *, http_free)

/*
 * Renders with another exposition from now on, for a reload. When it returns nobody uses the former
 * one any more; it waits for the answers just being made. THREADS: any.
 */
void http_use_exposition(struct http *http, struct exposition *exposition);

/* The port that address `i` of web.listen is bound to (for ":0"), 0 for a Unix socket. */
uint16_t http_port(struct http *http, size_t i);
