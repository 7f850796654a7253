/* SPDX-License-Identifier: Apache-2.0 */
/* How commands that go on are ended: SIGINT, SIGTERM, or a reader that has gone. */
#pragma once

#include <poll.h>
#include <signal.h>
#include <time.h>

extern volatile sig_atomic_t stop_asked;
/* Set by a handler of SIGWINCH: the wait that is under way, or the next one, ends. */
extern volatile sig_atomic_t stop_wake;

/* From here on the signals only set stop_asked, and SIGPIPE does nothing. */
void stop_catch(void);
/* poll() of one file; a signal ends it whenever it comes. As ppoll(), -1 for a signal. */
int stop_wait(struct pollfd *file, const struct timespec *timeout);
