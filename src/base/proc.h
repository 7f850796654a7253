/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /proc under a root prefix, which is the tests' seam: a recorded tree can stand in for the real
 * one. All reads are bounded; a process may vanish at any point, which is -ESRCH (or -ENOENT) and
 * no news.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "cleanup.h"

struct proc {
    int dir_fd;           /* of PREFIX/proc */
    int64_t boot_wall_ns; /* when the machine booted, since the epoch (btime) */
    long ticks_per_second;
};

/* `prefix`: "" for the real one. Returns 0 or -errno. */
MUST_USE int proc_open(const char *prefix, struct proc *ret_proc);
void proc_close(struct proc *proc);

/*
 * Reads PREFIX/proc/PID/NAME whole, at most `max` bytes of it; the result is NUL-terminated and may
 * hold NULs. Returns 0, -ESRCH, -EACCES, -ENOMEM or another -errno.
 */
MUST_USE int proc_read(const struct proc *proc, pid_t pid, const char *name, size_t max,
                       char **ret_text, size_t *ret_len);

struct proc_stat {
    uint64_t start_ticks;  /* since boot: with the pid, names a process uniquely */
    int64_t start_wall_ns; /* since the epoch */
    /*
     * Its first thread has begun to exit, and holds no files any more or soon will not; the process
     * has not ended, since it or another thread is still there. With much memory that takes
     * seconds.
     */
    bool is_ending;
};
MUST_USE int proc_stat_read(const struct proc *proc, pid_t pid, struct proc_stat *ret_stat);
/* The thread group of a thread, by /proc/TID/status. */
MUST_USE int proc_tgid(const struct proc *proc, pid_t tid, pid_t *ret_tgid);
/* Whether `tid` is a thread of `pid`. */
bool proc_has_thread(const struct proc *proc, pid_t pid, pid_t tid);

/*
 * A cheap mark that changes when a process opens or closes fds or starts or ends threads: number of
 * fds (Linux 6.2 and later; 0 before), number of threads. `inode` differs when the pid has been
 * given to another process; it may also differ for the same one (the kernel dropped its cache), so
 * compare start times then. Returns 0 or -errno.
 */
struct proc_mark {
    uint32_t n_fds;
    uint32_t n_threads;
    uint64_t inode;
};
MUST_USE int proc_mark_read(const struct proc *proc, pid_t pid, struct proc_mark *ret_mark);

/* Whether the kernel tells the number of fds in a mark. */
bool proc_counts_fds(const struct proc *proc);
/* Whether other users' processes are not even there (hidepid=2 and we are not privileged). */
bool proc_hides_others(const struct proc *proc);
/* Whether this is the kernel's own /proc, not a recorded tree. */
bool proc_is_real(const struct proc *proc);

/* All pids, ascending. Returns 0 or -errno; *ret_pids is the caller's to free(). */
MUST_USE int proc_list(const struct proc *proc, pid_t **ret_pids, size_t *ret_n);
/* The basename of the executable ("qemu-system-x86_64"), without " (deleted)". Truncated to `size`.
 */
MUST_USE int proc_exe_name(const struct proc *proc, pid_t pid, char *ret_name, size_t size);
