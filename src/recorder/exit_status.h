/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a process that is not our child has ended. There are two who know: the kernel keeps it with
 * the pidfd once the process has been reaped (PIDFD_GET_INFO, Linux 6.15), and as long as it has
 * not, /proc/PID/stat shows it to who may trace the process.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

enum exit_answer {
    EXIT_KNOWN,
    EXIT_NOT_YET, /* ask again in a moment */
    EXIT_UNKNOWN, /* nobody can tell */
};

/*
 * `pidfd` of a process that has exited, and its pid. KNOWN fills *ret_status, as wait(2) has it. An
 * answer NOT_YET that does not change is an UNKNOWN.
 */
enum exit_answer exit_status_ask(int pidfd, pid_t pid, int *ret_status);

/* A line of /proc/PID/stat: true for a zombie, with its exit status. */
bool exit_status_parse(const char *stat, int *ret_status);
