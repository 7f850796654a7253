/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log: one event, one line, on standard error. Under systemd (JOURNAL_STREAM names our standard
 * error) each line carries the journal's <priority> prefix instead of a time stamp.
 *
 * A line names the subsystem, what it is about, and what happens next. Libraries never log, nor
 * does anything on the tick path. Bytes from outside (names, argv) are escaped: a log line stays
 * one line.
 */
#pragma once

#include "cleanup.h"

enum log_level {
    LOG_LEVEL_ERROR,
    LOG_LEVEL_WARN,
    LOG_LEVEL_INFO,
    LOG_LEVEL_DEBUG,
};

/* THREADS: any; takes effect at once. */
void log_set_level(enum log_level level);
enum log_level log_get_level(void);
/* Returns 0 or -EINVAL. `name`: error, warn, info, debug. */
MUST_USE int log_level_parse(const char *name, enum log_level *ret_level);
const char *log_level_name(enum log_level level);

void log_line(enum log_level level, const char *subsystem, const char *format, ...)
    PRINTF_LIKE(3, 4);

#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_line(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)  log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)
