/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The TLS of a web configuration: certificate, key, what is accepted of clients. Only tls.c and who
 * has a session in hands sees gnutls.h.
 *
 * libmicrohttpd can be given these things once, when it starts. So it is given none: each session
 * gets them before its handshake begins, and a new certificate, CA or minimum version is in force
 * from the next connection on. libmicrohttpd also verifies no client: tls_verify() does, within the
 * handshake.
 */
#pragma once

#include <gnutls/gnutls.h>

#include "cleanup.h"
#include "web.h"

struct tls;

/*
 * Reads the files that the configuration names. `config` is borrowed for as long as this lives.
 * Returns 0, -EINVAL with *ret_error filled, or -ENOMEM.
 */
MUST_USE int tls_new(const struct web_config *config, struct tls **ret_tls,
                     struct config_error *ret_error);
/* Of what was read: another one for other certificates, keys or CAs. */
uint64_t tls_digest(const struct tls *tls);
void tls_free(struct tls *tls);
DEFINE_CLEANUP(struct tls *, tls_free)

/* Before the handshake. `tls` is to stay until the session's end. Returns 0 or -EIO. */
MUST_USE int tls_prepare(const struct tls *tls, gnutls_session_t session);
/*
 * Within the handshake, when the client has said who it is: 0, or -EACCES for one that is not to be
 * served, and which has been sent an alert.
 */
MUST_USE int tls_verify(const struct tls *tls, gnutls_session_t session);
/*
 * The same after the handshake, which was made with `former`: whether it would be served by this
 * one.
 */
MUST_USE int tls_verify_again(const struct tls *tls, const struct tls *former,
                              gnutls_session_t session);
