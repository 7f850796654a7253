/* SPDX-License-Identifier: Apache-2.0 */
#include "dump_directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "dump_file.h"

enum {
    FILE_MODE = 0640, /* what VMs there are, and how busy, is not everybody's business */
    DIRECTORY_MODE = 0750,
    NAME_VM_MAX = 64, /* of the VM's label */
};
#define PREFIX "kvmstatd-"

static int open_directory(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT && mkdir(path, DIRECTORY_MODE) == 0)
        fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int dump_directory_check(const char *directory)
{
    struct stat st;
    if (stat(directory, &st) == 0) {
        if (!S_ISDIR(st.st_mode))
            return -ENOTDIR;
        return access(directory, R_OK | W_OK | X_OK) == 0 ? 0 : -errno;
    }
    if (errno != ENOENT)
        return -errno;
    CLEANUP_FREE char *path = strdup(directory); /* dirname() knows of slashes at the end */
    if (!path)
        return -ENOMEM;
    return access(dirname(path), W_OK | X_OK) == 0 ? 0 : -errno;
}

int dump_output_open(const char *directory, struct dump_output *ret_output)
{
    CLEANUP_DUMP_OUTPUT struct dump_output output = {.dir_fd = -1, .fd = -1};
    output.dir_fd = open_directory(directory);
    if (output.dir_fd < 0)
        return output.dir_fd;
    output.fd = openat(output.dir_fd, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, FILE_MODE);
    if (output.fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR)) {
        (void)snprintf(output.temporary, sizeof output.temporary, ".kvmstatd-%d.tmp",
                       (int)getpid());
        (void)unlinkat(output.dir_fd, output.temporary, 0); /* of one that was killed */
        output.fd = openat(output.dir_fd, output.temporary,
                           O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY | O_CLOEXEC, FILE_MODE);
    }
    if (output.fd < 0)
        return -errno;
    *ret_output = output;
    output = (struct dump_output){.dir_fd = -1, .fd = -1};
    return 0;
}

int dump_output_write(struct dump_output *output, const void *bytes, size_t len)
{
    const char *at = bytes;
    while (len) {
        ssize_t n = write(output->fd, at, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        at += n;
        len -= (size_t)n;
    }
    return 0;
}

int dump_output_commit(struct dump_output *output, const char *name)
{
    char link[64];
    if (fsync(output->fd) < 0)
        return -errno;
    if (output->temporary[0]) {
        if (renameat(output->dir_fd, output->temporary, output->dir_fd, name) < 0)
            return -errno;
        output->temporary[0] = '\0';
    } else {
        (void)snprintf(link, sizeof link, "/proc/self/fd/%d", output->fd);
        if (linkat(AT_FDCWD, link, output->dir_fd, name, AT_SYMLINK_FOLLOW) < 0)
            return -errno;
    }
    return fsync(output->dir_fd) < 0 ? -errno : 0;
}

void dump_output_close(struct dump_output *output)
{
    if (output->temporary[0])
        (void)unlinkat(output->dir_fd, output->temporary, 0);
    output->temporary[0] = '\0';
    output->fd = fd_close(output->fd);
    output->dir_fd = fd_close(output->dir_fd);
}

static int is_ours(const struct dirent *entry)
{
    size_t len = strlen(entry->d_name), suffix = strlen(DUMP_SUFFIX);
    return strncmp(entry->d_name, PREFIX, strlen(PREFIX)) == 0 && len > suffix &&
           strcmp(entry->d_name + len - suffix, DUMP_SUFFIX) == 0;
}

static int newest_first(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*b)->d_name, (*a)->d_name);
}

/* Whether it is a file of its own; with its size. */
static bool is_file(int dir_fd, const char *name, uint64_t *ret_bytes)
{
    struct stat st;
    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
        return false;
    *ret_bytes = (uint64_t)st.st_size;
    return true;
}

void dump_directory_prune(int dir_fd, const char *newest, size_t files_max, uint64_t bytes_max)
{
    struct dirent **entries;
    uint64_t bytes = 0, more;
    size_t kept = is_file(dir_fd, newest, &bytes); /* however large it is */
    int n = scandirat(dir_fd, ".", &entries, is_ours, newest_first);
    for (int i = 0; i < n; i++) {
        if (strcmp(entries[i]->d_name, newest) != 0 && is_file(dir_fd, entries[i]->d_name, &more)) {
            bytes += more;
            if (kept >= files_max || bytes > bytes_max)
                (void)unlinkat(dir_fd, entries[i]->d_name, 0);
            else
                kept++;
        }
        free(entries[i]);
    }
    if (n >= 0)
        free(entries);
}

void dump_file_name(int64_t wall_ns, const char *why, const char *vm, char *ret_name, size_t size)
{
    static const char fine[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._@-";
    char when[32] = "", label[NAME_VM_MAX + 1];
    struct tm tm;
    time_t s = (time_t)(wall_ns / NSEC_PER_SEC);
    size_t n = 0;
    if (gmtime_r(&s, &tm))
        (void)strftime(when, sizeof when, "%Y%m%dT%H%M%S", &tm);
    for (; vm[n] && n < NAME_VM_MAX; n++)
        label[n] = vm[n];
    label[n] = '\0';
    for (size_t i = 0; label[i]; i++) {
        if (!strchr(fine, label[i]))
            label[i] = '_';
    }
    (void)snprintf(ret_name, size, PREFIX "%s.%09dZ-%s%s%s" DUMP_SUFFIX, when,
                   (int)(wall_ns % NSEC_PER_SEC), why, label[0] ? "-" : "", label);
}
