/* SPDX-License-Identifier: Apache-2.0 */
/* What given.c (the table), given_match.c (which VM it is) and given_store.c (what outlives us)
 * share. */
#pragma once

#include "fdstore.h"
#include "handoff.h"
#include "internal.h"

struct given_process {
    struct given_process *next;
    pid_t pid;
    int pidfd; /* owned */
    size_t n_vms;
    bool exited;
    int64_t forget_ns; /* when what it has not given again is let go; INT64_MAX: never */
};

struct given {
    struct discovery *d;
    struct handoff *handoff; /* owned */
    int epoll_fd;            /* of the pidfds and the handoff's */
    struct given_process *processes;
    struct given_vm *vms;
    size_t n_vms;
    bool changed; /* some VM's is */
    uint64_t pass;
    struct fdstore *store;      /* owned; NULL: there is none */
    struct passed_fds restored; /* what came back from it, until the start */
    bool store_trouble_said;
};

/* Something of it has changed: given_settle() will look at it. */
void given_touch(struct given *given, struct given_vm *vm);
/* Frees it and closes its files, on the handoff's thread for that. */
void given_free_vm(struct given *given, struct given_vm *vm);
/* A VM without files, of a peer that is borrowed, and of `spec` the names. NULL: memory is short.
 */
struct given_vm *given_add_vm(struct given *given, const struct handoff_peer *peer,
                              const struct handoff_vm *spec);
/* Takes the fd on success. Returns 0 or -ENOMEM. */
MUST_USE int given_add_file(struct given_vm *vm, int32_t vcpu, int fd);
bool given_same_file(struct discovery *d, int a, int b);

/* --- given_store.c; without a store all of it does nothing --- */

/* The VM is new, with one file. */
void given_store_vm(struct given *given, struct given_vm *vm);
/* Another file of it has come; one has gone; all of it goes. */
void given_store_file(struct given *given, struct given_vm *vm, int fd);
void given_unstore_file(struct given *given, struct given_vm *vm);
void given_unstore_vm(struct given *given, struct given_vm *vm);
/* Takes what has come back; given_restore() makes VMs of it again. */
void given_take_stored(struct given *given, struct passed_fds *passed);
