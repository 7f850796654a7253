/* SPDX-License-Identifier: Apache-2.0 */
/*
 * peek PID FOLDER: writes what the statistics files of a process hold, whole and raw, into
 * FOLDER/vm and FOLDER/vcpu-N, and the time before the first and after the last of them into
 * FOLDER/time.
 *
 * Nothing of ours is in it: what the daemon says is held against it. It is static, so that it runs
 * wherever the kernel does.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif

#define FILE_MAX  (1 << 20)
#define VM_LINK   "anon_inode:kvm-vm-stats"
#define VCPU_LINK "anon_inode:kvm-vcpu-stats:"

static void die(const char *what)
{
    fprintf(stderr, "peek: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void write_time(const char *folder, const char *mode)
{
    char path[512];
    struct timespec now;
    (void)snprintf(path, sizeof path, "%s/time", folder);
    FILE *file = fopen(path, mode);
    if (!file || clock_gettime(CLOCK_REALTIME, &now) < 0)
        die(path);
    fprintf(file, "%lld.%09ld\n", (long long)now.tv_sec, now.tv_nsec);
    if (fclose(file) != 0)
        die(path);
}

/* Descriptors and data in one read: the file is a few kilobytes. */
static void copy(int stats_fd, const char *folder, const char *name)
{
    static char bytes[FILE_MAX];
    char path[512];
    ssize_t n = pread(stats_fd, bytes, sizeof bytes, 0);
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    if (n <= 0 || !file || fwrite(bytes, 1, (size_t)n, file) != (size_t)n || fclose(file) != 0)
        die(path);
}

static void look_at(int pidfd, const char *fds, const char *number, const char *folder)
{
    char path[512], link[64], name[64];
    (void)snprintf(path, sizeof path, "%s/%s", fds, number);
    ssize_t n = readlink(path, link, sizeof link - 1);
    if (n < 0)
        return;
    link[n] = '\0';
    if (strcmp(link, VM_LINK) == 0)
        (void)snprintf(name, sizeof name, "vm");
    else if (strncmp(link, VCPU_LINK, strlen(VCPU_LINK)) == 0)
        (void)snprintf(name, sizeof name, "vcpu-%s", link + strlen(VCPU_LINK));
    else
        return;
    int fd = (int)syscall(SYS_pidfd_getfd, pidfd, atoi(number), 0);
    if (fd < 0)
        die("pidfd_getfd");
    copy(fd, folder, name);
    (void)close(fd);
}

int main(int argc, char **argv)
{
    char fds[64];
    if (argc != 3) {
        fprintf(stderr, "usage: peek PID FOLDER\n");
        return 2;
    }
    (void)snprintf(fds, sizeof fds, "/proc/%d/fd", atoi(argv[1]));
    DIR *folder = opendir(fds);
    int pidfd = (int)syscall(SYS_pidfd_open, atoi(argv[1]), 0);
    if (!folder || pidfd < 0)
        die(fds);
    if (mkdir(argv[2], 0755) < 0)
        die(argv[2]);
    write_time(argv[2], "w");
    for (struct dirent *entry; (entry = readdir(folder));)
        look_at(pidfd, fds, entry->d_name, argv[2]);
    write_time(argv[2], "a");
    return 0;
}
