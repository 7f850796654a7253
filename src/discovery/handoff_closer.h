/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Closes what came over the handoff socket and is not wanted, on a thread of its own. close() runs
 * the code of whatever the file is: a file system in user space (FUSE) is asked to flush and waited
 * for, the last fd of a VM takes the VM apart. A peer must not be able to stop discovery with that.
 * In the order in which it comes; so what may hang is not for the same one as what must not wait.
 */
#pragma once

#include <stdbool.h>

#include "cleanup.h"

struct handoff_closer;

/* Returns 0 or -errno. */
MUST_USE int handoff_closer_new(struct handoff_closer **ret_closer);
/* Closes what is left. A thread that hangs in a close() is left behind after a second. */
void handoff_closer_free(struct handoff_closer *closer);
DEFINE_CLEANUP(struct handoff_closer *, handoff_closer_free)

/* Whether it will take `n` more: with false, receive nothing until it does. */
bool handoff_closer_has_room(struct handoff_closer *closer, unsigned n);
/* Takes fd (-1: nothing); without room it is closed here and now. */
void handoff_closer_put(struct handoff_closer *closer, int fd);
/*
 * The same for a connection: what the peer has sent is thrown away first, with the fds in it.
 * Closed with something unread, a Unix socket gives its peer ECONNRESET, even before our last
 * answer.
 */
void handoff_closer_put_connection(struct handoff_closer *closer, int fd);
