/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fds that were there when the program was started, passed by whoever supervises it: listening
 * sockets, and what a former run of it has put into the supervisor's store. Each has a name.
 */
#pragma once

#include <stddef.h>

#include "cleanup.h"

#define PASSED_WEB     "web"     /* FileDescriptorName= of kvmstatd.socket */
#define PASSED_HANDOFF "handoff" /* of kvmstatd-handoff.socket */

/*
 * How a list of addresses to listen on names a socket that was passed: this and the number of its
 * fd. No address of a configuration can look like that.
 */
#define PASSED_LISTEN "fd#"

struct passed_fd {
    int fd;     /* owned; -1: taken */
    char *name; /* owned */
};

struct passed_fds {
    size_t n;
    struct passed_fd *fds;
};

/* Closes what was not taken. */
void passed_fds_free(struct passed_fds *passed);
/* The first of that name, the caller's from then on; -1: there is none. `passed` may be NULL. */
int passed_fds_take(struct passed_fds *passed, const char *name);
