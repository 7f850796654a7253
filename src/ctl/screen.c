/* SPDX-License-Identifier: Apache-2.0 */
#include "screen.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>

#include "clock.h"
#include "stop.h"

static struct termios before; /* as it was, for screen_end() */

/* It ends the wait for a key, and what is drawn next has the new size. */
static void on_resize(int number)
{
    (void)number;
    stop_wake = 1;
}

int screen_begin(void)
{
    const struct sigaction resize = {.sa_handler = on_resize};
    if (tcgetattr(STDIN_FILENO, &before) < 0)
        return -errno;
    struct termios raw = before;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO); /* Ctrl-C stays a signal */
    if (tcsetattr(STDIN_FILENO, TCSANOW, &raw) < 0)
        return -errno;
    sigaction(SIGWINCH, &resize, NULL);
    fputs("\033[?1049h\033[?25l", stdout); /* a screen of its own, no cursor */
    return fflush(stdout) == 0 ? 0 : -errno;
}

void screen_end(void)
{
    fputs("\033[?25h\033[?1049l", stdout);
    (void)fflush(stdout);
    (void)tcsetattr(STDIN_FILENO, TCSANOW, &before);
}

void screen_size(size_t *ret_rows, size_t *ret_width)
{
    struct winsize size = {0};
    bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row && size.ws_col;
    *ret_rows = known ? size.ws_row : 24;
    *ret_width = known ? size.ws_col : 80;
}

void screen_draw(const char *text)
{
    fputs("\033[H", stdout);
    for (const char *p = text;
         *p;) { /* each line's rest is cleared, then what is below: no flicker */
        size_t len = strcspn(p, "\n");
        fwrite(p, 1, len, stdout);
        fputs("\033[K", stdout);
        p += len;
        if (*p == '\n') {
            fputs("\r\n", stdout);
            p++;
        }
    }
    fputs("\033[J", stdout);
    (void)fflush(stdout);
}

int screen_key(int64_t wait_ns)
{
    unsigned char key = 0;
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    int64_t ns = wait_ns > 0 ? wait_ns : 0;
    struct timespec ts = {ns / NSEC_PER_SEC, ns % NSEC_PER_SEC};
    if (stop_wait(&in, &ts) <= 0)
        return 0;
    /* A terminal that has gone is the end, too. */
    return read(STDIN_FILENO, &key, 1) == 1 ? key : 'q';
}
