/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one way out for errors: a demo VM that is half made is of no use to anybody, so whatever goes
 * wrong ends the process with one line on standard error. The kernel tears the VM down.
 */
#pragma once

#include "cleanup.h"

/* Who is speaking: the VM's name or NULL. Kept, not copied. */
void fail_set_name(const char *name);

/* Prints "kvmstatd-demo-vm: NAME: <message>" and exits 1. THREADS: any. */
void fail(const char *format, ...) PRINTF_LIKE(1, 2) __attribute__((noreturn));
/* The same, followed by ": " and what errno says. */
void fail_errno(const char *format, ...) PRINTF_LIKE(1, 2) __attribute__((noreturn));
