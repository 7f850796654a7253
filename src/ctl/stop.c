/* SPDX-License-Identifier: Apache-2.0 */
#include "stop.h"

volatile sig_atomic_t stop_asked;
volatile sig_atomic_t stop_wake;

static void on_signal(int number)
{
    (void)number;
    stop_asked = 1;
}

void stop_catch(void)
{
    struct sigaction ask = {.sa_handler = on_signal}, ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGINT, &ask, NULL);
    sigaction(SIGTERM, &ask, NULL);
    sigaction(SIGPIPE, &ignore, NULL);
}

int stop_wait(struct pollfd *file, const struct timespec *timeout)
{
    sigset_t stops, before;
    sigemptyset(&stops);
    sigaddset(&stops, SIGINT);
    sigaddset(&stops, SIGTERM);
    sigaddset(&stops, SIGWINCH);
    /* Blocked until poll() is under way: one that comes just before is not slept over. */
    sigprocmask(SIG_BLOCK, &stops, &before);
    int n = stop_asked || stop_wake ? -1 : ppoll(file, 1, timeout, &before);
    stop_wake = 0;
    sigprocmask(SIG_SETMASK, &before, NULL);
    return n;
}
