/* SPDX-License-Identifier: Apache-2.0 */
#include "listen.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "passed.h"
#include "timed_call.h"
#include "unix_socket.h"

PRINTF_LIKE(4, 5)
static int fail(struct config_error *ret_error, const char *text, int error, const char *format,
                ...)
{
    char why[256];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(why, sizeof why, format, args);
    va_end(args);
    (void)snprintf(ret_error->message, sizeof ret_error->message, "web.listen: %.200s: %s", text,
                   why);
    return error;
}

static int fail_errno(struct config_error *ret_error, const char *text, int error)
{
    const char *hint = "";
    if (error == -EADDRINUSE)
        hint = ": another program, or another kvmstatd, listens there";
    else if (error == -EADDRNOTAVAIL)
        hint = ": this machine has no such address";
    return fail(ret_error, text, error, "%s%s", strerrordesc_np(-error), hint);
}

static uint16_t bound_port(int fd)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } address = {0};
    socklen_t len = sizeof address;
    if (getsockname(fd, &address.any, &len) < 0)
        return 0;
    if (address.any.sa_family == AF_UNIX)
        return 0;
    return ntohs(address.any.sa_family == AF_INET6 ? address.v6.sin6_port : address.v4.sin_port);
}

/* Lets it be bound to an address that this machine may get later. */
static int free_bind(int fd, int family)
{
    const int on = 1;
    return family == AF_INET6 ? setsockopt(fd, IPPROTO_IPV6, IPV6_FREEBIND, &on, sizeof on)
                              : setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &on, sizeof on);
}

/* Returns a listening fd or -errno. `v6_only` is for AF_INET6. */
static int bind_inet(const struct sockaddr *address, socklen_t len, int v6_only, bool share,
                     bool absent)
{
    const int on = 1, off = 0;
    CLEANUP_FD int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    /* Connections of a former daemon that are still in TIME_WAIT must not keep us from starting. */
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0)
        return -errno;
    if (address->sa_family == AF_INET6 &&
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6_only, sizeof v6_only) < 0)
        return -errno;
    if (share && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) < 0)
        return -errno;
    if (absent && free_bind(fd, address->sa_family) < 0)
        return -errno;
    if (bind(fd, address, len) < 0 || listen(fd, LISTEN_BACKLOG) < 0)
        return -errno;
    /* Else a second daemon of the same user could take the half of our connections. */
    if (share && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &off, sizeof off) < 0)
        return -errno;
    return steal_fd(&fd);
}

static int open_any(uint16_t port, bool share)
{
    const struct sockaddr_in6 v6 = {
        .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_ANY_INIT};
    const struct sockaddr_in v4 = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_ANY)}};
    int fd = bind_inet((const struct sockaddr *)&v6, sizeof v6, 0, share, false);
    /* A kernel without IPv6, or with ipv6.disable=1 or net.ipv6.conf.*.disable_ipv6=1. */
    if (fd == -EAFNOSUPPORT || fd == -EADDRNOTAVAIL)
        fd = bind_inet((const struct sockaddr *)&v4, sizeof v4, 0, share, false);
    return fd;
}

/* Returns 0 or an error of getaddrinfo(). */
static int ask_for(const struct listen_address *address, int flags, struct addrinfo **ret_found)
{
    char port[8];
    const struct addrinfo hints = {
        .ai_family = address->is_v6 ? AF_INET6 : AF_UNSPEC,
        .ai_socktype = SOCK_STREAM,
        .ai_flags = AI_PASSIVE | AI_NUMERICSERV | flags,
    };
    (void)snprintf(port, sizeof port, "%u", address->port);
    return getaddrinfo(address->host, port, &hints, ret_found);
}

struct lookup {
    struct listen_address address;
    int error;
    struct addrinfo *found;
};

static void lookup_run(void *data)
{
    struct lookup *lookup = data;
    lookup->error = ask_for(&lookup->address, 0, &lookup->found);
}

static void lookup_free(void *data)
{
    struct lookup *lookup = data;
    if (lookup->found)
        freeaddrinfo(lookup->found);
    free(lookup);
}

/* Only names may take their time. *ret_found is for freeaddrinfo(). */
static int look_up(const struct listen_address *address, const char *text, int64_t until_ns,
                   struct addrinfo **ret_found, struct config_error *ret_error)
{
    struct addrinfo *found = NULL;
    int error = ask_for(address, AI_NUMERICHOST, &found);
    if (error == EAI_NONAME && !address->is_v6) {
        struct lookup *lookup = calloc(1, sizeof *lookup);
        if (!lookup)
            return fail_errno(ret_error, text, -ENOMEM);
        lookup->address = *address;
        int r = timed_call("kvmstatd-lookup", lookup_run, lookup_free, lookup, until_ns);
        if (r < 0)
            return fail(ret_error, text, r, "the name cannot be resolved: %s",
                        r == -ETIMEDOUT ? "timed out" : strerrordesc_np(-r));
        error = lookup->error;
        found = steal_ptr(&lookup->found);
        lookup_free(lookup);
    }
    if (error != 0)
        return fail(ret_error, text, -EADDRNOTAVAIL, "the name cannot be resolved: %s",
                    gai_strerror(error));
    *ret_found = found;
    return 0;
}

/* The first that can be bound. Returns -EADDRNOTAVAIL where the machine has none of them. */
static int open_found(const struct addrinfo *found, bool share, bool absent)
{
    int error = -EADDRNOTAVAIL;
    for (const struct addrinfo *at = found; at; at = at->ai_next) {
        int fd = bind_inet(at->ai_addr, at->ai_addrlen, 1, share, absent);
        if (fd >= 0)
            return fd;
        if (fd != -EADDRNOTAVAIL)
            error = fd;
    }
    return error;
}

static int open_inet(const struct listen_address *address, const char *text,
                     const struct listen_how *how, struct listen_socket *ret_socket,
                     struct config_error *ret_error)
{
    int fd;
    bool absent = false;
    if (!address->host[0]) {
        fd = open_any(address->port, how->share);
    } else {
        struct addrinfo *found = NULL;
        int r = look_up(address, text, how->until_ns, &found, ret_error);
        if (r < 0)
            return r;
        fd = open_found(found, how->share, false);
        absent = fd == -EADDRNOTAVAIL && !how->share;
        if (absent)
            fd = open_found(found, how->share, true);
        freeaddrinfo(found);
    }
    if (fd == -EACCES && address->port < 1024)
        return fail(ret_error, text, fd, "ports below 1024 need CAP_NET_BIND_SERVICE");
    if (fd < 0)
        return fail_errno(ret_error, text, fd);
    *ret_socket = (struct listen_socket){.fd = fd, .port = bound_port(fd), .absent = absent};
    return 0;
}

static int bind_unix(const struct sockaddr_un *address, struct listen_socket *socket_)
{
    struct stat st;
    CLEANUP_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    /*
     * Linux makes the file with the mode of the socket's own inode and the umask, so it is never
     * open to more than it should be; the umask may have taken too much, which chmod() gives back.
     */
    if (fchmod(fd, LISTEN_UNIX_MODE) < 0)
        return -errno;
    if (bind(fd, (const struct sockaddr *)address, sizeof *address) < 0)
        return -errno;
    if (chmod(address->sun_path, LISTEN_UNIX_MODE) < 0 || lstat(address->sun_path, &st) < 0 ||
        listen(fd, LISTEN_BACKLOG) < 0) {
        int r = -errno;
        (void)unlink(address->sun_path);
        return r;
    }
    socket_->device = st.st_dev;
    socket_->inode = st.st_ino;
    socket_->fd = steal_fd(&fd);
    return 0;
}

static int open_unix(const struct listen_address *address, const char *text,
                     struct listen_socket *ret_socket, struct config_error *ret_error)
{
    struct sockaddr_un where = {.sun_family = AF_UNIX};
    struct listen_socket made = LISTEN_SOCKET_INIT;
    size_t len = strlen(address->host);
    if (len >= sizeof where.sun_path)
        return fail(ret_error, text, -ENAMETOOLONG,
                    "the path of a Unix socket has at most %zu bytes", sizeof where.sun_path - 1);
    memcpy(where.sun_path, address->host, len);
    memcpy(made.path, address->host, len);

    int r = unix_socket_clear_stale(&where, SOCK_STREAM);
    if (r == -EEXIST)
        return fail(ret_error, text, r, "there is a file that is not a socket");
    if (r == 0)
        r = bind_unix(&where, &made);
    if (r < 0)
        return fail_errno(ret_error, text, r);
    *ret_socket = made;
    return 0;
}

void listen_share(const struct listen_socket *socket, bool share)
{
    const int on = share;
    if (!socket->path[0])
        (void)setsockopt(socket->fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
}

int listen_open(const struct listen_address *address, const char *text,
                const struct listen_how *how, struct listen_socket *ret_socket,
                struct config_error *ret_error)
{
    return address->is_unix ? open_unix(address, text, ret_socket, ret_error)
                            : open_inet(address, text, how, ret_socket, ret_error);
}

static int open_passed(const char *text, struct listen_socket *ret_socket,
                       struct config_error *ret_error)
{
    int type = 0, listens = 0;
    socklen_t len = sizeof type;
    int passed = atoi(text + strlen(PASSED_LISTEN));
    if (getsockopt(passed, SOL_SOCKET, SO_TYPE, &type, &len) < 0 ||
        getsockopt(passed, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) < 0)
        return fail_errno(ret_error, text, -errno);
    if (type != SOCK_STREAM || !listens)
        return fail(ret_error, text, -EINVAL,
                    "systemd has passed something else than a listening stream socket");
    CLEANUP_FD int fd = fcntl(passed, F_DUPFD_CLOEXEC, 0);
    int flags = fd < 0 ? -1 : fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return fail_errno(ret_error, text, -errno);
    *ret_socket = (struct listen_socket){.fd = fd, .port = bound_port(fd)};
    (void)steal_fd(&fd);
    return 0;
}

int listen_open_text(const char *text, const struct listen_how *how,
                     struct listen_socket *ret_socket, struct config_error *ret_error)
{
    struct listen_address address;
    if (strncmp(text, PASSED_LISTEN, strlen(PASSED_LISTEN)) == 0)
        return open_passed(text, ret_socket, ret_error);
    int r = config_parse_listen(text, &address, ret_error);
    return r < 0 ? r : listen_open(&address, text, how, ret_socket, ret_error);
}

void listen_unlink(struct listen_socket *socket)
{
    struct stat st;
    if (socket->path[0] && lstat(socket->path, &st) == 0 && st.st_dev == socket->device &&
        st.st_ino == socket->inode)
        (void)unlink(socket->path);
    socket->path[0] = '\0';
}

void listen_close(struct listen_socket *socket)
{
    listen_unlink(socket);
    socket->fd = fd_close(socket->fd);
}
