/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything is opened relative to one directory fd, so the prefix is resolved once and a process
 * of the name space we were started in is meant for ever after. Costs on Linux 6.18 (per call, warm
 * caches): a mark 2.6 µs, /proc/PID/stat 5.6 µs, so only marks are read of every process at every
 * rescan.
 */
#include "proc.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "clock.h"

enum {
    PATH_BYTES = 64,             /* "PID/NAME" of our own making */
    STAT_BYTES_MAX = 4096,       /* /proc/PID/stat: 52 numbers and a name of 64 bytes at most */
    STATUS_BYTES_MAX = 16384,    /* /proc/PID/status: the masks of 8192 CPUs and as many nodes */
    BTIME_BYTES_MAX = 64 * 1024, /* a piece of /proc/stat, see boot_time_read() */
    READ_BYTES_FIRST = 4096,
    /* Of /proc/PID/stat, counted from 1; proc_pid_stat(5). */
    STATE_FIELD = 3,
    FLAGS_FIELD = 9,
    N_THREADS_FIELD = 20,
    START_TIME_FIELD = 22,

    EXITING_FLAG = 0x4, /* PF_EXITING, include/linux/sched.h */
};

/* What a vanished process looks like depends on which call met it first. */
static int gone_or(int error)
{
    return error == ENOENT || error == ESRCH ? -ESRCH : -error;
}

static int proc_path(char path[PATH_BYTES], pid_t pid, const char *name)
{
    int n = snprintf(path, PATH_BYTES, "%d/%s", (int)pid, name);
    return n > 0 && n < PATH_BYTES ? 0 : -EINVAL;
}

/*
 * btime stands behind the per-CPU and per-interrupt lines, which may be hundreds of KB on a big
 * host; so the file is searched piecewise. A piece keeps the end of the one before it, in case the
 * line is cut.
 */
static int boot_time_read(int dir_fd, bool is_real, int64_t *ret_boot_wall_ns)
{
    enum {
        KEEP = 32
    };
    CLEANUP_FD int fd = openat(dir_fd, "stat", O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT && is_real) {
        /* Mounted with subset=pid (systemd's ProcSubset=). It is these two clocks in whole seconds.
         */
        int64_t boot_ns = clock_read_ns(CLOCK_REALTIME) - clock_read_ns(CLOCK_BOOTTIME);
        *ret_boot_wall_ns = boot_ns / NSEC_PER_SEC * NSEC_PER_SEC;
        return 0;
    }
    if (fd < 0)
        return -errno;
    CLEANUP_FREE char *text = malloc(BTIME_BYTES_MAX + 1);
    if (!text)
        return -ENOMEM;

    size_t len = 0;
    for (;;) {
        ssize_t n = read(fd, text + len, BTIME_BYTES_MAX - len);
        if (n < 0)
            return -errno;
        if (n == 0)
            return -EBADMSG;
        len += (size_t)n;
        text[len] = '\0';
        char *line = strstr(text, "btime ");
        if (line && strchr(line, '\n')) {
            *ret_boot_wall_ns = (int64_t)strtoll(line + 6, NULL, 10) * NSEC_PER_SEC;
            return 0;
        }
        if (len > KEEP) {
            memmove(text, text + len - KEEP, KEEP);
            len = KEEP;
        }
    }
}

int proc_open(const char *prefix, struct proc *ret_proc)
{
    char path[PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/proc", prefix);
    if (n < 0 || (size_t)n >= sizeof path)
        return -ENAMETOOLONG;
    CLEANUP_FD int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int64_t boot_wall_ns = 0;
    int r = boot_time_read(fd, !*prefix, &boot_wall_ns);
    if (r < 0)
        return r;
    *ret_proc = (struct proc){
        .dir_fd = steal_fd(&fd),
        .boot_wall_ns = boot_wall_ns,
        .ticks_per_second = sysconf(_SC_CLK_TCK),
    };
    return 0;
}

void proc_close(struct proc *proc)
{
    proc->dir_fd = fd_close(proc->dir_fd);
}

int proc_read(const struct proc *proc, pid_t pid, const char *name, size_t max, char **ret_text,
              size_t *ret_len)
{
    char path[PATH_BYTES];
    CLEANUP_FREE char *text = NULL;
    size_t len = 0, capacity = 0;

    int r = proc_path(path, pid, name);
    if (r < 0)
        return r;
    CLEANUP_FD int fd = openat(proc->dir_fd, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return gone_or(errno);
    for (;;) {
        if (len == capacity) {
            capacity = MIN_OF(capacity ? capacity * 2 : READ_BYTES_FIRST, max);
            char *larger = realloc(text, capacity + 1);
            if (!larger)
                return -ENOMEM;
            text = larger;
        }
        ssize_t n = len < capacity ? read(fd, text + len, capacity - len) : 0;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return gone_or(errno);
        len += (size_t)n;
        if (n == 0 || len == max)
            break;
    }
    text[len] = '\0';
    *ret_text = steal_ptr(&text);
    *ret_len = len;
    return 0;
}

int proc_stat_read(const struct proc *proc, pid_t pid, struct proc_stat *ret_stat)
{
    CLEANUP_FREE char *text = NULL;
    size_t len;
    int r = proc_read(proc, pid, "stat", STAT_BYTES_MAX, &text, &len);
    if (r < 0)
        return r;
    const char *fields[START_TIME_FIELD + 1] = {NULL};
    /* The second field is the name in parentheses and may hold anything, ") (" too. */
    const char *p = strrchr(text, ')');
    for (int field = STATE_FIELD; p && field <= START_TIME_FIELD; field++) {
        p = strchr(p + 1, ' ');
        fields[field] = p ? p + 1 : NULL;
    }
    if (!p)
        return len ? -EBADMSG : -ESRCH;
    uint64_t ticks = strtoull(fields[START_TIME_FIELD], NULL, 10);
    bool exits = strtoul(fields[FLAGS_FIELD], NULL, 10) & EXITING_FLAG;
    bool is_zombie = *fields[STATE_FIELD] == 'Z' || *fields[STATE_FIELD] == 'X';
    int64_t hz = proc->ticks_per_second;
    *ret_stat = (struct proc_stat){
        .start_ticks = ticks,
        .start_wall_ns = proc->boot_wall_ns + (int64_t)(ticks / (uint64_t)hz) * NSEC_PER_SEC +
                         (int64_t)(ticks % (uint64_t)hz) * (NSEC_PER_SEC / hz),
        .is_ending = exits && !(is_zombie && strtoul(fields[N_THREADS_FIELD], NULL, 10) <= 1),
    };
    return 0;
}

int proc_tgid(const struct proc *proc, pid_t tid, pid_t *ret_tgid)
{
    CLEANUP_FREE char *text = NULL;
    size_t len;
    int r = proc_read(proc, tid, "status", STATUS_BYTES_MAX, &text, &len);
    if (r < 0)
        return r;
    /* The name comes first and its line feeds are escaped, so a line start is a line start. */
    const char *line = strstr(text, "\nTgid:");
    if (!line)
        return len ? -EBADMSG : -ESRCH;
    long tgid = strtol(line + 6, NULL, 10);
    if (tgid <= 0 || tgid > INT_MAX)
        return -EBADMSG;
    *ret_tgid = (pid_t)tgid;
    return 0;
}

/*
 * Returns 0 or -errno. Not by faccessat(): that one looks with the capabilities of the real user,
 * which for all but root are none, and so does not see what CAP_SYS_PTRACE lets us see.
 */
static int look_for(const struct proc *proc, const char *path)
{
    struct stat st;
    return fstatat(proc->dir_fd, path, &st, 0) < 0 ? -errno : 0;
}

bool proc_has_thread(const struct proc *proc, pid_t pid, pid_t tid)
{
    char path[PATH_BYTES];
    int n = snprintf(path, sizeof path, "%d/task/%d", (int)pid, (int)tid);
    return n > 0 && (size_t)n < sizeof path && look_for(proc, path) == 0;
}

int proc_mark_read(const struct proc *proc, pid_t pid, struct proc_mark *ret_mark)
{
    char path[PATH_BYTES];
    struct stat fds, threads;

    if (proc_path(path, pid, "fd") < 0 || fstatat(proc->dir_fd, path, &fds, 0) < 0)
        return gone_or(errno);
    /* A directory's links are ".", its name and one ".." for each directory in it. */
    if (proc_path(path, pid, "task") < 0 || fstatat(proc->dir_fd, path, &threads, 0) < 0)
        return gone_or(errno);
    *ret_mark = (struct proc_mark){
        .n_fds = (uint32_t)fds.st_size,
        .n_threads = threads.st_nlink > 2 ? (uint32_t)threads.st_nlink - 2 : 0,
        .inode = fds.st_ino,
    };
    return 0;
}

bool proc_counts_fds(const struct proc *proc)
{
    struct proc_mark mark; /* of ourselves: we hold at least proc->dir_fd */
    return proc_mark_read(proc, getpid(), &mark) == 0 && mark.n_fds > 0;
}

bool proc_hides_others(const struct proc *proc)
{
    /* Every PID name space has a process 1. */
    return proc_is_real(proc) && look_for(proc, "1") == -ENOENT;
}

bool proc_is_real(const struct proc *proc)
{
    struct statfs fs;
    return fstatfs(proc->dir_fd, &fs) == 0 && fs.f_type == PROC_SUPER_MAGIC;
}

static int pid_compare(const void *a, const void *b)
{
    pid_t x = *(const pid_t *)a, y = *(const pid_t *)b;
    return (x > y) - (x < y);
}

static void dir_close(DIR **dir)
{
    if (*dir)
        (void)closedir(*dir);
}

int proc_list(const struct proc *proc, pid_t **ret_pids, size_t *ret_n)
{
    CLEANUP_FD int fd = openat(proc->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    CLEANUP(dir_close) DIR *dir = fdopendir(fd);
    if (!dir)
        return -errno;
    (void)steal_fd(&fd);

    CLEANUP_FREE pid_t *pids = NULL;
    size_t n = 0, capacity = 0;
    bool ascending = true;
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(dir);
        if (!entry && errno)
            return -errno;
        if (!entry)
            break;
        char *end;
        long pid = strtol(entry->d_name, &end, 10);
        if (*end || pid <= 0 || pid > INT_MAX)
            continue;
        if (n == capacity) {
            capacity = capacity ? capacity * 2 : 1024;
            pid_t *larger = reallocarray(pids, capacity, sizeof *pids);
            if (!larger)
                return -ENOMEM;
            pids = larger;
        }
        ascending = ascending && (n == 0 || pids[n - 1] < (pid_t)pid);
        pids[n++] = (pid_t)pid;
    }
    /* The kernel lists them in order; a recorded tree does not. */
    if (!ascending)
        qsort(pids, n, sizeof *pids, pid_compare);
    *ret_pids = steal_ptr(&pids);
    *ret_n = n;
    return 0;
}

int proc_exe_name(const struct proc *proc, pid_t pid, char *ret_name, size_t size)
{
    static const char deleted[] = " (deleted)";
    char path[PATH_BYTES], target[PATH_MAX];

    int r = proc_path(path, pid, "exe");
    if (r < 0)
        return r;
    ssize_t n = readlinkat(proc->dir_fd, path, target, sizeof target - 1);
    if (n < 0)
        return gone_or(errno);
    target[n] = '\0';
    size_t len = (size_t)n, suffix = sizeof deleted - 1;
    if (len > suffix && strcmp(target + len - suffix, deleted) == 0)
        target[len - suffix] = '\0';
    const char *slash = strrchr(target, '/');
    (void)snprintf(ret_name, size, "%s", slash ? slash + 1 : target);
    return 0;
}
