/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon's end of the handoff socket (docs/handoff-protocol.md): it listens, knows who is at
 * the other end, checks what comes, and passes on what is good. It keeps none of the fds.
 *
 * What is passed on is certain to be a KVM file of the kind it is passed on as, opened for reading
 * (an O_PATH fd of one is none), and, where the kernel lets us look, to be held by the process at
 * the other end. It has not been read: its content is the receiver's to check.
 *
 * THREADS: discovery only. Threads of its own close what is refused, and what is let go.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "broker.h"
#include "config.h"
#include "handoff_socket.h"
#include "selfstats.h"

struct handoff;

/* One connection's other end, as the kernel knows it. */
struct handoff_peer {
    uint64_t id; /* of the connection; never reused */
    pid_t pid;
    uid_t uid;
    int pidfd; /* of that very process; borrowed for the call */
};

/* Strings are "" where nothing was said, may hold any bytes, and are borrowed for the call. */
struct handoff_vm {
    uint64_t vm; /* the peer's number for it */
    int stats_fd;
    int vm_fd; /* -1: none was sent */
    const char *name, *uuid;
};

struct handoff_vcpu {
    uint64_t vm;
    int32_t vcpu;
    int stats_fd;
};

/*
 * Where it goes. The first two return 0, and then own the fds; or refuse, and then they do not:
 * -EEXIST (given already), -ENOENT (no such VM), -ENOSPC or -ENOMEM (a limit), -EBADMSG (the file
 * is malformed). None of them may call back.
 */
struct handoff_receiver {
    void *ctx;
    int (*vm_given)(void *ctx, const struct handoff_peer *peer, const struct handoff_vm *vm);
    int (*vcpu_given)(void *ctx, const struct handoff_peer *peer, const struct handoff_vcpu *vcpu);
    /* Return 0 or -ENOENT. */
    int (*vm_gone)(void *ctx, const struct handoff_peer *peer, uint64_t vm);
    int (*vcpu_gone)(void *ctx, const struct handoff_peer *peer, uint64_t vm, int32_t vcpu);
    /* All that the peer has to give has been given. */
    void (*all_given)(void *ctx, const struct handoff_peer *peer);
    /*
     * The connection has ended, of which the process and its VMs need not know. `revoked`: its user
     * may not hand over any more, so what it gave is to be let go.
     */
    void (*peer_gone)(void *ctx, const struct handoff_peer *peer, bool revoked);
};

/* `broker` and `self` are borrowed. */
MUST_USE int handoff_new(struct broker *broker, struct selfstats *self, struct config *config,
                         const struct handoff_receiver *receiver, struct handoff **ret_handoff);
/* Closes all connections without a word to the receiver. */
void handoff_free(struct handoff *handoff);
DEFINE_CLEANUP(struct handoff *, handoff_free)

/* Before the start: listens at this socket (consumed), not at that of the configuration. */
void handoff_use_socket(struct handoff *handoff, int fd);
/*
 * Begins to listen, if the configuration wants it. A socket that cannot be opened is said in the
 * log and tried again: that is no error. Returns 0 or -errno.
 */
MUST_USE int handoff_start(struct handoff *handoff);
/* Whether that user may hand over; and besides whether anything is taken from anybody. */
bool handoff_allows(struct handoff *handoff, uid_t uid);
bool handoff_would_take(struct handoff *handoff, uid_t uid);
/*
 * What of a new configuration can fail or take time: asks who its users are, and listens at its
 * socket, where `former` did not and it is wanted and not still ours from before. Returns 0, or
 * -errno with *ret_error and nothing to free. THREADS: any; not that of discovery, which has
 * capabilities that the libraries of the system's user database need not have.
 */
MUST_USE int handoff_prepare(const struct handoff *handoff, const struct config *former,
                             const struct config *config, struct handoff_prepared *ret_prepared,
                             struct config_error *ret_error);
/* A new configuration is in force. Takes a reference, and what was prepared. Cannot fail. */
void handoff_set_config(struct handoff *handoff, struct config *config,
                        struct handoff_prepared *prepared);

/*
 * Closes a KVM file that was given (-1: nothing), on a thread of its own: the last one of a VM
 * takes the VM apart.
 */
void handoff_close_fd(struct handoff *handoff, int fd);

/* Readable when there is something to dispatch; borrowed. */
int handoff_epoll_fd(const struct handoff *handoff);
/* A bounded amount of what there is to do; cheap when there is nothing. */
void handoff_dispatch(struct handoff *handoff);
/* When handoff_dispatch() is due though nothing is readable; INT64_MAX: never. */
int64_t handoff_due_ns(const struct handoff *handoff);
