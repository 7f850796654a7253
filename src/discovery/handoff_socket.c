/* SPDX-License-Identifier: Apache-2.0 */
#include "handoff_socket.h"

#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "clock.h"
#include "log.h"
#include "timed_call.h"
#include "unix_socket.h"

enum {
    BACKLOG = 4096,
    PASSWD_BYTES_FIRST = 1024,
    PASSWD_BYTES_MAX = 1 << 20,
};

/* --- users --- */

struct lookup {
    int result; /* 0, -ENOENT (nobody has the name) or another -errno */
    uid_t uid;
    char name[];
};

static int ask_for(const char *name, uid_t *ret_uid)
{
    struct passwd entry, *found;
    for (size_t size = PASSWD_BYTES_FIRST; size <= PASSWD_BYTES_MAX; size *= 2) {
        CLEANUP_FREE char *bytes = malloc(size);
        if (!bytes)
            return -ENOMEM;
        int r = getpwnam_r(name, &entry, bytes, size, &found);
        if (r == ERANGE)
            continue;
        if (r != 0 && r != ENOENT && r != ESRCH && r != EBADF && r != EPERM) /* getpwnam(3) */
            return -r;
        if (r != 0 || !found)
            return -ENOENT;
        *ret_uid = found->pw_uid;
        return 0;
    }
    return -ENOENT;
}

static void lookup_run(void *data)
{
    struct lookup *lookup = data;
    lookup->result = ask_for(lookup->name, &lookup->uid);
}

/* Returns 0, -ENOENT (nobody has the name), -ETIMEDOUT or another -errno. */
static int look_up(const char *name, int64_t until_ns, uid_t *ret_uid)
{
    size_t size = strlen(name) + 1;
    struct lookup *lookup = malloc(sizeof *lookup + size);
    if (!lookup)
        return -ENOMEM;
    memcpy(lookup->name, name, size);
    int r = timed_call("kvmstatd-lookup", lookup_run, free, lookup, until_ns);
    if (r < 0)
        return r;
    r = lookup->result;
    if (r == 0)
        *ret_uid = lookup->uid;
    free(lookup);
    return r;
}

/* The configuration has seen to it that what begins with a digit is a uid. */
static int resolve(const char *text, int64_t until_ns, uid_t *ret_uid)
{
    /* Half of what is left: those that come after one that hangs have their time, too. */
    int64_t now_ns = clock_now_ns();
    if (text[0] < '0' || text[0] > '9')
        return look_up(text, now_ns + (until_ns - now_ns) / 2, ret_uid);
    *ret_uid = (uid_t)strtoul(text, NULL, 10);
    return 0;
}

int handoff_users_resolve(const struct string_list *names, int64_t until_ns,
                          struct handoff_users *ret_users, const char **ret_unknown)
{
    char missing[256];
    size_t n_missing = 0, at = 0;
    int error = 0;
    struct handoff_users users = {.users = calloc(names->n + 1, sizeof *users.users)};
    if (!users.users)
        return -ENOMEM;
    for (size_t i = 0; i < names->n; i++) {
        uid_t uid;
        int r = resolve(names->items[i], until_ns, &uid);
        if (r == 0) {
            if (!handoff_users_find(&users, uid))
                users.users[users.n++].uid = uid;
        } else if (r == -ENOENT) {
            if (at < sizeof missing)
                at += (size_t)snprintf(missing + at, sizeof missing - at, "%s%s",
                                       n_missing ? ", " : "", names->items[i]);
            n_missing++;
        } else if (error == 0) {
            error = r;
            *ret_unknown = names->items[i];
        }
    }
    if (n_missing)
        log_info("handoff",
                 "no such user here: %s (handoff.allow_users), looking again at the "
                 "next reload",
                 missing);
    *ret_users = users;
    return error;
}

void handoff_users_free(struct handoff_users *users)
{
    free(users->users);
    *users = (struct handoff_users){0};
}

struct handoff_user *handoff_users_find(struct handoff_users *users, uid_t uid)
{
    for (size_t i = 0; i < users->n; i++) {
        if (users->users[i].uid == uid)
            return &users->users[i];
    }
    return NULL;
}

/* --- the socket --- */

static void make_folder(const char *path)
{
    char folder[sizeof((struct sockaddr_un *)0)->sun_path];
    (void)snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (!slash || slash == folder)
        return;
    *slash = '\0';
    (void)mkdir(folder, 0755); /* if it matters, bind() will say so */
}

static mode_t fitting_mode(const struct handoff_users *users)
{
    for (size_t i = 0; i < users->n; i++) {
        if (users->users[i].uid != 0 && users->users[i].uid != geteuid())
            return 0666;
    }
    return 0600;
}

int handoff_socket_open(const char *path, const struct handoff_users *users,
                        struct handoff_socket *ret_socket)
{
    struct sockaddr_un where = {.sun_family = AF_UNIX};
    struct handoff_socket made = HANDOFF_SOCKET_INIT;
    mode_t mode = fitting_mode(users);
    struct stat st;

    if (strlen(path) >= sizeof where.sun_path)
        return -ENAMETOOLONG;
    (void)strcpy(where.sun_path, path);
    (void)strcpy(made.path, path);
    make_folder(path);
    int r = unix_socket_clear_stale(&where, SOCK_SEQPACKET);
    if (r < 0)
        return r;
    CLEANUP_FD int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    /* The file gets the mode of the socket's inode less the umask, which chmod() makes good. */
    if (fd < 0 || fchmod(fd, mode) < 0 ||
        bind(fd, (const struct sockaddr *)&where, sizeof where) < 0)
        return -errno;
    if (chmod(path, mode) < 0 || lstat(path, &st) < 0 || listen(fd, BACKLOG) < 0) {
        r = -errno;
        (void)unlink(path);
        return r;
    }
    made.device = st.st_dev;
    made.inode = st.st_ino;
    made.fd = steal_fd(&fd);
    *ret_socket = made;
    return 0;
}

int handoff_socket_adopt(int passed, struct handoff_socket *ret_socket)
{
    int type = 0, listens = 0;
    socklen_t len = sizeof type;
    if (getsockopt(passed, SOL_SOCKET, SO_TYPE, &type, &len) < 0 ||
        getsockopt(passed, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) < 0)
        return -errno;
    if (type != SOCK_SEQPACKET || !listens)
        return -EINVAL;
    CLEANUP_FD int fd = fcntl(passed, F_DUPFD_CLOEXEC, 0);
    int flags = fd < 0 ? -1 : fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return -errno;
    *ret_socket = HANDOFF_SOCKET_INIT;
    ret_socket->fd = steal_fd(&fd);
    return 0;
}

bool handoff_socket_is_ours(const char *path)
{
    struct sockaddr_un where = {.sun_family = AF_UNIX};
    struct ucred listener;
    socklen_t len = sizeof listener;
    if (strlen(path) >= sizeof where.sun_path)
        return false;
    (void)strcpy(where.sun_path, path);
    CLEANUP_FD int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return fd >= 0 && connect(fd, (const struct sockaddr *)&where, sizeof where) == 0 &&
           getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &listener, &len) == 0 &&
           listener.pid == getpid();
}

void handoff_socket_close(struct handoff_socket *socket)
{
    struct stat st;
    if (socket->fd >= 0 && socket->path[0] && lstat(socket->path, &st) == 0 &&
        st.st_dev == socket->device && st.st_ino == socket->inode)
        (void)unlink(socket->path);
    socket->fd = fd_close(socket->fd);
}

void handoff_prepared_free(struct handoff_prepared *prepared)
{
    handoff_users_free(&prepared->users);
    handoff_socket_close(&prepared->socket);
}
