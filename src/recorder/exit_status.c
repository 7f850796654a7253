/* SPDX-License-Identifier: Apache-2.0 */
#include "exit_status.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cleanup.h"

/* include/uapi/linux/pidfd.h of Linux 6.15; Debian 12 has older headers. */
struct exit_pidfd_info {
    uint64_t mask, cgroup;
    uint32_t pid, tgid, ppid;
    uint32_t ids[8];
    int32_t exit_code;
};
_Static_assert(sizeof(struct exit_pidfd_info) == 64, "PIDFD_INFO_SIZE_VER0");
#define EXIT_PIDFD_GET_INFO  _IOWR(0xff, 11, struct exit_pidfd_info)
#define EXIT_PIDFD_INFO_EXIT (UINT64_C(1) << 3)

static bool ask_pidfd(int pidfd, int *ret_status)
{
    struct exit_pidfd_info info = {.mask = EXIT_PIDFD_INFO_EXIT};
    if (ioctl(pidfd, EXIT_PIDFD_GET_INFO, &info) < 0 || !(info.mask & EXIT_PIDFD_INFO_EXIT))
        return false;
    *ret_status = info.exit_code;
    return true;
}

bool exit_status_parse(const char *stat, int *ret_status)
{
    /* The name in parentheses may hold anything; the exit code is the last field (proc(5)). */
    const char *after_name = strrchr(stat, ')');
    if (!after_name || strncmp(after_name, ") Z ", 4) != 0)
        return false;
    size_t len = strcspn(after_name, "\n");
    while (len && after_name[len - 1] == ' ')
        len--;
    size_t from = len;
    unsigned fields = 1;
    while (from && after_name[from - 1] != ' ')
        from--;
    for (size_t i = 0; i < from; i++)
        fields += after_name[i] == ' ';
    if (fields < 50) /* the 52nd, and two stand before the parenthesis ends */
        return false;
    *ret_status = (int)strtol(after_name + from, NULL, 10);
    return true;
}

static bool read_stat(pid_t pid, char *ret_text, size_t size)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, ret_text, size - 1);
    if (n <= 0)
        return false;
    ret_text[n] = '\0';
    return true;
}

/*
 * Who may not trace the process is shown 0 for its exit code. Links like this one are under the
 * same rule, and say so; of a zombie that may be traced they do not exist.
 */
static bool may_see(pid_t pid)
{
    char path[64], target[8];
    (void)snprintf(path, sizeof path, "/proc/%d/cwd", (int)pid);
    return readlink(path, target, sizeof target) >= 0 || errno == ENOENT;
}

enum exit_answer exit_status_ask(int pidfd, pid_t pid, int *ret_status)
{
    char stat[1024];
    int status;
    if (ask_pidfd(pidfd, ret_status))
        return EXIT_KNOWN;
    bool zombie = read_stat(pid, stat, sizeof stat) && exit_status_parse(stat, &status);
    bool seen = zombie && may_see(pid);
    /* Only now: while it is there, nobody else has had its pid. */
    bool there = syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0) == 0 || errno == EPERM;
    if (there && seen) {
        *ret_status = status;
        return EXIT_KNOWN;
    }
    if (there)
        return EXIT_NOT_YET;
    /* It was reaped meanwhile: a kernel that keeps the answer has it now. */
    return ask_pidfd(pidfd, ret_status) ? EXIT_KNOWN : EXIT_UNKNOWN;
}
