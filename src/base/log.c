/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each line is put together in one buffer and written by one write(), so lines of different threads
 * never mix and no lock is held while the journal is slow.
 */
#include "log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum {
    LINE_MAX_BYTES = 2048, /* a journal line may be longer, a useful one is not */
};

static const struct {
    const char *name;
    char priority; /* syslog's */
} levels[] = {
    [LOG_LEVEL_ERROR] = {"error", '3'},
    [LOG_LEVEL_WARN] = {"warn", '4'},
    [LOG_LEVEL_INFO] = {"info", '6'},
    [LOG_LEVEL_DEBUG] = {"debug", '7'},
};

static _Atomic int current_level = LOG_LEVEL_INFO;

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&current_level, (int)level, memory_order_relaxed);
}

enum log_level log_get_level(void)
{
    return (enum log_level)atomic_load_explicit(&current_level, memory_order_relaxed);
}

int log_level_parse(const char *name, enum log_level *ret_level)
{
    for (size_t i = 0; i < ARRAY_LEN(levels); i++) {
        if (strcmp(name, levels[i].name) == 0) {
            *ret_level = (enum log_level)i;
            return 0;
        }
    }
    return -EINVAL;
}

const char *log_level_name(enum log_level level)
{
    return levels[level].name;
}

/* systemd sets JOURNAL_STREAM to "device:inode" of the stream it connected to standard error. */
static bool stderr_is_journal(void)
{
    unsigned long long device, inode;
    const char *stream = getenv("JOURNAL_STREAM");
    struct stat st;
    return stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 &&
           fstat(STDERR_FILENO, &st) == 0 && st.st_dev == device && st.st_ino == inode;
}

void log_line(enum log_level level, const char *subsystem, const char *format, ...)
{
    if (level > log_get_level())
        return;

    static _Atomic int journal = -1;
    int is_journal = atomic_load_explicit(&journal, memory_order_relaxed);
    if (is_journal < 0) {
        is_journal = stderr_is_journal();
        atomic_store_explicit(&journal, is_journal, memory_order_relaxed);
    }

    int saved_errno = errno;
    char line[LINE_MAX_BYTES];
    size_t room = sizeof line - 1; /* for the final line feed */
    size_t len = 0;
    if (is_journal) {
        len = (size_t)snprintf(line, room, "<%c>%s: ", levels[level].priority, subsystem);
    } else {
        struct timespec now;
        struct tm tm;
        (void)clock_gettime(CLOCK_REALTIME, &now);
        (void)localtime_r(&now.tv_sec, &tm);
        len = strftime(line, room, "%Y-%m-%dT%H:%M:%S", &tm);
        len += (size_t)snprintf(line + len, room - len, ".%03ld %-5s %s: ", now.tv_nsec / 1000000,
                                levels[level].name, subsystem);
    }

    va_list args;
    va_start(args, format);
    int wanted = vsnprintf(line + len, room - len, format, args);
    va_end(args);
    size_t start = len;
    if (wanted > 0)
        len = MIN_OF(len + (size_t)wanted, room - 1);
    for (size_t i = start; i < len; i++) {
        unsigned char c = (unsigned char)line[i];
        if (c < 0x20 || c == 0x7f)
            line[i] = '?';
    }
    line[len++] = '\n';
    /* A log that cannot be written must not stop the daemon; there is nowhere to say so. */
    ssize_t n = write(STDERR_FILENO, line, len);
    (void)n;
    errno = saved_errno;
}
