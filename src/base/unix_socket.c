/* SPDX-License-Identifier: Apache-2.0 */
#include "unix_socket.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

int unix_socket_clear_stale(const struct sockaddr_un *address, int type)
{
    struct stat st;
    if (lstat(address->sun_path, &st) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(st.st_mode))
        return -EEXIST;
    CLEANUP_FD int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)address, sizeof *address) == 0)
        return -EADDRINUSE;
    if (errno == ENOENT)
        return 0;
    /* EAGAIN: its queue is full; EPROTOTYPE: a socket of another type. Somebody is there. */
    if (errno == EAGAIN || errno == EPROTOTYPE)
        return -EADDRINUSE;
    if (errno != ECONNREFUSED)
        return -errno;
    return unlink(address->sun_path) < 0 && errno != ENOENT ? -errno : 0;
}
