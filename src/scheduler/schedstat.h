/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /proc/PID/task/TID/schedstat: how long a thread has run and how long it was ready to run and did
 * not. Anybody may read it, also without CAP_SYS_PTRACE, unless /proc is mounted with hidepid=
 * (systemd: ProtectProc=): then that capability lets us see the process.
 *
 * The kernel adds a wait when it ends, so one that lasts longer than the interval of reading counts
 * in the interval that it ends in. The run time of a thread that is just running may lag behind by
 * a tick of the kernel's. Kernels without CONFIG_SCHED_INFO have no such file, or it says "0 0 0".
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "cleanup.h"
#include "proc.h"

struct times {
    uint64_t run_ns, wait_ns;
};

/* Said by the readers below instead of 0: the thread has never run, or nobody counts. */
#define SCHEDSTAT_NOTHING 1

/* "RUN WAIT SLICES\n". Returns 0, SCHEDSTAT_NOTHING, or -EBADMSG. */
MUST_USE int schedstat_parse(const char *text, size_t len, struct times *ret_times);
/*
 * A file that is kept open is this thread's for ever: once it has ended reading fails with -ESRCH,
 * whoever has its tid. `task` is an open /proc/PID/task. Returns 0 or -errno.
 */
MUST_USE int schedstat_open(int task, pid_t tid, int *ret_fd);
MUST_USE int schedstat_read(int fd, struct times *ret_times);
/* The same in one, by the name: -ESRCH when there is no such thread. */
MUST_USE int schedstat_read_once(const struct proc *proc, pid_t pid, pid_t tid,
                                 struct times *ret_times);
