/* SPDX-License-Identifier: Apache-2.0 */
/* What every listener at a path has to do first. */
#pragma once

#include <sys/un.h>

#include "cleanup.h"

/*
 * Makes room at a Unix socket's path for a listener of `type` (SOCK_STREAM, …). A daemon that was
 * killed leaves its socket's file behind; connecting tells it from a live one, since nobody's
 * socket refuses. Returns 0 when nothing is there (any more), -EADDRINUSE when somebody listens,
 * -EEXIST for a file that is no socket, or another -errno.
 */
MUST_USE int unix_socket_clear_stale(const struct sockaddr_un *address, int type);
