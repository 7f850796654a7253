/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What systemd keeps for us (FileDescriptorStoreMax=): fds that come back with the next start, be
 * it after a restart, a crash or a kill. They come in any order, and a name is all that is kept
 * along with them, so it says which VM of which process they are of.
 *
 * THREADS: discovery only, but where it says otherwise. A thread of its own does the sending, which
 * waits as long as systemd is busy.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "passed.h"
#include "proc.h"

enum {
    FDSTORE_NAME_BYTES = 96, /* systemd: 255, printable ASCII without ':' */
};

/* One VM's fds have one name. */
struct fdstore_vm {
    pid_t pid;
    uint64_t start_ticks; /* proc_stat: with the pid, names a process uniquely */
    uid_t uid;            /* who gave it */
    uint64_t number;      /* of several VMs of a process; never reused while the machine runs */
};
void fdstore_name(const struct fdstore_vm *vm, char ret_name[FDSTORE_NAME_BYTES]);
bool fdstore_parse_name(const char *name, struct fdstore_vm *ret_vm);

struct fdstore;
/* *ret_store is NULL where there is no systemd to keep anything. Returns 0 or -errno. */
MUST_USE int fdstore_new(struct fdstore **ret_store);
/* Sends what is still to be sent. Accepts NULL, as all of them do. */
void fdstore_free(struct fdstore *store);
DEFINE_CLEANUP(struct fdstore *, fdstore_free)
/* Puts a duplicate of `fd` there. Returns 0, -EMFILE, -ENOMEM or another -errno. */
MUST_USE int fdstore_add(struct fdstore *store, const char *name, int fd);
/* All fds of that name are let go; those that wait to be sent, too. */
void fdstore_remove(struct fdstore *store, const char *name);

/* By their names, so that those of a VM stand together. */
void fdstore_sort(struct passed_fds *passed);
/*
 * The very first thing after a start, in the calling thread: of the fds that came back, those whose
 * process has gone are closed here and there. They may be all that keeps a VM's memory. Returns how
 * many were closed.
 */
size_t fdstore_drop_gone(struct passed_fds *passed);
/*
 * For what came back under a name that is none of ours (a newer version's, say): it is let go
 * there, or it would come back with every start and keep its VM for ever. In the calling thread.
 */
void fdstore_disown(const char *name);
