/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What VMMs have handed over, and which VM it is. It stays until it is taken back, until its
 * process exits, or until that process holds the VM no more: a connection that ends changes
 * nothing. But who says on the next one that all has been given has taken back what is missing.
 *
 * The files are kept here, and the sink gets duplicates: so a VM can be dropped and taken up again,
 * by this source or another, without asking its VMM. THREADS: discovery only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "config.h"
#include "handoff_socket.h"
#include "passed.h"

struct discovery;
struct found_vm;
struct given;
struct given_process;

/* A stats file; `vcpu` -1: the VM's own. */
struct given_file {
    int32_t vcpu;
    int fd;    /* owned */
    bool late; /* of a connection that has ended: it may be given once more */
};

struct given_vm {
    struct given_vm *next;
    struct given_process *process;
    uint64_t peer;   /* the connection that gave it; 0: it has ended */
    uint64_t number; /* that connection's for the VM */
    int pin_fd;      /* the VM's own file, owned; -1: it was not given */
    uid_t uid;       /* who gave it */
    char *name, *uuid;
    char *stored_as; /* in systemd's store; NULL: it is not there */
    size_t n, capacity;
    struct given_file *files; /* owned; by vcpu, the VM's own first */
    struct found_vm *vm;      /* what it is; NULL: not known (yet) */
    bool twice;               /* that VM was given before, and this is not needed */
    bool changed;             /* to be settled */
    int64_t changed_ns;       /* since when */
    uint64_t pass;            /* of given_settle() that has looked at it last */
};

MUST_USE int given_new(struct discovery *d, struct given **ret_given);
void given_free(struct given *given);
/* Before the start: takes what is its own of the fds that were passed to us. */
void given_take_passed(struct given *given, struct passed_fds *passed);
/* Opens the socket, if it is wanted. Returns 0 or -errno. */
MUST_USE int given_start(struct given *given);
/*
 * First of all on the thread of discovery, which can see the processes that it is about: what came
 * back from the store is as if it had been given.
 */
void given_restore(struct given *given);
void given_set_config(struct given *given, struct config *config,
                      struct handoff_prepared *prepared);
/* The same as handoff_prepare(). THREADS: any. */
MUST_USE int given_prepare(const struct given *given, const struct config *former,
                           const struct config *config, struct handoff_prepared *ret_prepared,
                           struct config_error *ret_error);

/* Readable when given_collect() has something to do, or due at that time. */
int given_epoll_fd(const struct given *given);
int64_t given_due_ns(const struct given *given);
/* Takes what has come and lets go of what has been taken back or whose process has exited. */
void given_collect(struct given *given);
/* Finds out which VMs the new ones are, and has those read of which something has changed. */
void given_settle(struct given *given);

/* The found VM is about to be freed. */
void given_unmatch(struct given *given, struct found_vm *vm);
/* The process's pidfd, borrowed. */
int given_pidfd(const struct given_vm *vm);
pid_t given_pid(const struct given_vm *vm);
/* NULL: there is none for that vCPU (-1: of the VM's own). `vm` may be NULL. */
const struct given_file *given_find_file(const struct given_vm *vm, int32_t vcpu);
