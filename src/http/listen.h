/* SPDX-License-Identifier: Apache-2.0 */
/* Listening sockets of our own making, from addresses of web.listen. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/un.h>

#include "config.h"

enum {
    LISTEN_BACKLOG = 128, /* connections the kernel holds until they are accepted */
    /* Connecting needs write permission: the owner and the group of the socket may. */
    LISTEN_UNIX_MODE = 0660,
};

struct listen_socket {
    int fd;        /* owned; -1: none */
    uint16_t port; /* that it is bound to; 0: a Unix socket */
    bool absent;   /* the machine had no such address then: it listens as soon as there is one */
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)]; /* "": not a Unix socket */
    dev_t device; /* of the socket's file, to know it again */
    ino_t inode;
};

#define LISTEN_SOCKET_INIT \
    {                      \
        .fd = -1           \
    }

struct listen_how {
    /*
     * It is for a reload: the port may be that of another socket of ours that has listen_share(),
     * so that a socket for all addresses can be opened before that for one is closed.
     */
    bool share;
    int64_t until_ns; /* clock_now_ns(): no host name is waited for any longer */
};

/*
 * Opens, binds and listens: non-blocking, close-on-exec.
 * - A host name stands for the first of its addresses that can be bound.
 * - An empty host is every address, IPv6 and IPv4 by one socket where the machine has IPv6.
 * - A literal IPv6 address is IPv6 only.
 * - unix:PATH replaces a socket file nobody listens on; any other file there is left alone.
 * - An address that the machine has not got is no error, for at boot it may come later (`absent`),
 *   other than at a reload: what goes on being served is better than what may never be.
 * `text` is how messages call the address. Returns 0 or -errno with *ret_error filled: -EADDRINUSE,
 * -EACCES, -EEXIST (a file that is not a socket), -EADDRNOTAVAIL (also for a name that cannot be
 * resolved), -ETIMEDOUT (nor in time), -ENAMETOOLONG, …
 */
MUST_USE int listen_open(const struct listen_address *address, const char *text,
                         const struct listen_how *how, struct listen_socket *ret_socket,
                         struct config_error *ret_error);
/*
 * The same for an item of web.listen, which may also name a socket that was passed (PASSED_LISTEN).
 * What is opened then is a duplicate: the fd itself stays, so that it can be opened once more.
 */
MUST_USE int listen_open_text(const char *text, const struct listen_how *how,
                              struct listen_socket *ret_socket, struct config_error *ret_error);
/* Whether others of ours may be bound to its port, for the time of opening them. */
void listen_share(const struct listen_socket *socket, bool share);
/* Removes a Unix socket's file if it is still the one that listen_open() made. */
void listen_unlink(struct listen_socket *socket);
/* Unlinks and closes. */
void listen_close(struct listen_socket *socket);
