/* SPDX-License-Identifier: Apache-2.0 */
/* Where VMMs come to hand over, and who may: the listening socket and the list of users. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "config.h"

/* handoff.allow_users as uids. */
struct handoff_users {
    size_t n;
    struct handoff_user {
        uid_t uid;
        size_t connections; /* open ones */
    } * users;
};

/*
 * Looks the names up, which may take as long as the system's user database takes. Names that nobody
 * has are said in one log line and left out. Returns 0 or -ENOMEM.
 */
MUST_USE int handoff_users_resolve(const struct string_list *names,
                                   struct handoff_users *ret_users);
void handoff_users_free(struct handoff_users *users);
/* NULL: may not hand over. */
struct handoff_user *handoff_users_find(struct handoff_users *users, uid_t uid);

struct handoff_socket {
    int fd; /* -1: not open */
    dev_t device;
    ino_t inode;
    char path[108];
};
#define HANDOFF_SOCKET_INIT \
    (struct handoff_socket) \
    {                       \
        .fd = -1            \
    }

/*
 * Listens at `path`, non-blocking. The last folder of the path is made where it is missing, and a
 * socket that nobody listens on is replaced. Open to everybody (whoever connects is asked for his
 * uid) unless the users are root and ourselves alone. Returns 0, -EADDRINUSE (somebody listens),
 * -EEXIST (there is something else) or another -errno.
 */
MUST_USE int handoff_socket_open(const char *path, const struct handoff_users *users,
                                 struct handoff_socket *ret_socket);
/* Removes the file, if it is still ours. */
void handoff_socket_close(struct handoff_socket *socket);
