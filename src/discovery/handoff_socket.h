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
 * Looks the names up, as long as the system's user database takes for that, but not beyond
 * `until_ns` (clock_now_ns()) for all of them. Names that nobody has are said in one log line and
 * left out. Returns 0, -ENOMEM, or another -errno (-ETIMEDOUT where there was no answer): then
 * *ret_unknown is a name (of `names`) of which the database could not say whether it has it. The
 * others are there.
 */
MUST_USE int handoff_users_resolve(const struct string_list *names, int64_t until_ns,
                                   struct handoff_users *ret_users, const char **ret_unknown);
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
/*
 * Takes a socket that systemd listens on for us: `passed` is borrowed, a duplicate is used. Its
 * file is systemd's. Returns 0, -EINVAL (it is no listening SOCK_SEQPACKET socket) or another
 * -errno.
 */
MUST_USE int handoff_socket_adopt(int passed, struct handoff_socket *ret_socket);
/* Whether it is this very process that listens at `path`. */
bool handoff_socket_is_ours(const char *path);
/* Removes the file, if it is still ours. */
void handoff_socket_close(struct handoff_socket *socket);

/* What of a new configuration is asked for and opened before it is in force. */
struct handoff_prepared {
    struct handoff_users users;
    struct handoff_socket socket; /* not open: none is wanted, or it is the one there is */
};
#define HANDOFF_PREPARED_INIT         \
    (struct handoff_prepared)         \
    {                                 \
        .socket = HANDOFF_SOCKET_INIT \
    }
void handoff_prepared_free(struct handoff_prepared *prepared);
