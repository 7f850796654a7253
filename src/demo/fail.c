/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The line goes out by a single write(), so that the lines of many VMs on one standard error don't
 * mix, and the process leaves by _exit(): vCPU threads may be anywhere.
 */
#include "fail.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *speaker;

void fail_set_name(const char *name)
{
    speaker = name;
}

static void fail_line(int error, const char *format, va_list args)
    __attribute__((format(printf, 2, 0))) __attribute__((noreturn));

static void fail_line(int error, const char *format, va_list args)
{
    char message[512];
    char line[1024];
    (void)vsnprintf(message, sizeof message, format, args);
    int len =
        snprintf(line, sizeof line, "kvmstatd-demo-vm: %s%s%s%s%s\n", speaker ? speaker : "",
                 speaker ? ": " : "", message, error ? ": " : "", error ? strerror(error) : "");
    ssize_t written = write(STDERR_FILENO, line, MIN_OF((size_t)len, sizeof line - 1));
    (void)written; /* there is nobody else to tell */
    _exit(EXIT_FAILURE);
}

void fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fail_line(0, format, args);
}

void fail_errno(const char *format, ...)
{
    va_list args;
    int error = errno;
    va_start(args, format);
    fail_line(error, format, args);
}
