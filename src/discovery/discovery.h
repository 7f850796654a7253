/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Discovery: a thread that finds every VM on the host, learns whose it is, borrows its stats fds
 * and hands them on through a sink. It keeps no borrowed fd for itself and never touches a frame.
 */
#pragma once

#include "broker.h"
#include "config.h"
#include "passed.h"
#include "proc.h"
#include "store.h"

struct discovery;
struct discovery_handle; /* what the sink calls a VM */

/* What is known of a VM; strings are borrowed for the call and may hold any bytes. */
struct discovery_vm {
    const char *name, *uuid, *vmm, *machine, *unit; /* "" when unknown */
    const char *source;                             /* static */
    pid_t pid;
    uint64_t start_ticks; /* of the process, since boot */
    int64_t start_wall_ns;
    int64_t created_ns; /* monotonic; 0: not known */
    uint32_t n_vcpus;
};

/* What a tid that has to do with a vCPU is known for. */
enum discovery_tid {
    DISCOVERY_TID_RUNS, /* it ran the vCPU last, by BPF: in our own pid namespace */
    DISCOVERY_TID_MADE, /* it made the vCPU, by the statistics' id: in the initial pid namespace */
};

/*
 * Where discoveries go; the daemon puts the planner behind it, a test whatever it likes. Called on
 * the discovery thread only. Functions that take an fd consume it in every case.
 */
struct discovery_sink {
    void *ctx;
    /* `owner` names the VM in discovery_vm_exited(). Returns 0, -ENOSPC (too many VMs), -ENOMEM. */
    int (*vm_add)(void *ctx, const struct discovery_vm *vm, void *owner, int pidfd,
                  struct discovery_handle **ret_handle);
    /*
     * vcpu -1: the VM scope. A target that is there from another source is replaced without a gap.
     * Returns 0, -ENOSPC (too many vCPUs), -EEXIST (there from this source), -ENOMEM.
     */
    int (*target_add)(void *ctx, struct discovery_handle *handle, int32_t vcpu,
                      const struct schema *schema, enum target_source source, int stats_fd);
    /*
     * The same, read by BPF at `address`. -EINVAL: the VM is not pinned. With `wanted` (copied) it
     * need not be: the block is read when a file of its object is visited.
     */
    int (*target_add_bpf)(void *ctx, struct discovery_handle *handle, int32_t vcpu,
                          const struct schema *schema, uint64_t address,
                          const struct bpf_wanted *wanted);
    /* Keeps a borrowed kvm-vm fd (consumed) until the VM ends. */
    void (*vm_pin)(void *ctx, struct discovery_handle *handle, int kvm_vm_fd);
    bool (*vm_is_pinned)(void *ctx, struct discovery_handle *handle);
    void (*target_remove)(void *ctx, struct discovery_handle *handle, int32_t vcpu);
    /* The fd given by target_add, for comparing files; -1 when there is none. */
    int (*target_fd)(void *ctx, struct discovery_handle *handle, int32_t vcpu);
    /* A thread of a vCPU that was added. NULL: nobody wants to know. */
    void (*vcpu_tid)(void *ctx, struct discovery_handle *handle, int32_t vcpu,
                     enum discovery_tid what, pid_t tid);
    /* Whether a vCPU is without the thread it had; asked at each rescan. NULL: no. */
    bool (*tids_lost)(void *ctx);
    void (*vm_set_vcpus)(void *ctx, struct discovery_handle *handle, uint32_t n_vcpus);
    void (*vm_remove)(void *ctx, struct discovery_handle *handle);
    /* The label and interval the VM got; valid until the next commit. */
    const char *(*vm_label)(void *ctx, struct discovery_handle *handle);
    int64_t (*vm_interval_ns)(void *ctx, struct discovery_handle *handle);
    /* Everything since the last commit takes effect. Returns 0 or -errno (tried again next time).
     */
    int (*commit)(void *ctx);
    /* Takes a new configuration before the VMs are matched against it anew. */
    void (*set_config)(void *ctx, struct config *config);
    /* Readable when collect_events() has something to say; polled by discovery. -1: never. */
    int events_fd;
    void (*collect_events)(void *ctx, struct discovery *discovery);
};

MUST_USE int discovery_new(struct store *store, const struct proc *proc, struct broker *broker,
                           struct config *config, const struct discovery_sink *sink,
                           struct discovery **ret_discovery);
/*
 * Before the start: takes what is for it of the fds that were passed to us, the handoff's listening
 * socket and the files of VMs that a former run has stored.
 */
void discovery_take_passed(struct discovery *discovery, struct passed_fds *passed);
/*
 * The part of the start that takes privileges, which the calling thread may drop afterwards: makes
 * the thread, which keeps them and does nothing yet, and listens for the kernel's events. Returns 0
 * or -errno.
 */
MUST_USE int discovery_spawn(struct discovery *discovery);
/* Spawns it, if nobody has, and lets it begin. Returns 0 or -errno. */
MUST_USE int discovery_start(struct discovery *discovery);
/* Joins the thread; what was found stays with the sink. Idempotent. */
void discovery_stop(struct discovery *discovery);
void discovery_free(struct discovery *discovery);
DEFINE_CLEANUP(struct discovery *, discovery_free)

/* One full look over all processes, in the caller's thread, for --once; not with discovery_start().
 */
MUST_USE int discovery_look_once(struct discovery *discovery);
/*
 * A new configuration, in two steps. What can fail is done first, aside: it changes nothing.
 * `former` is what was adopted last. Returns 0, or -errno with *ret_error.
 */
struct discovery_change;
MUST_USE int discovery_prepare(const struct discovery *discovery, const struct config *former,
                               struct config *config, struct discovery_change **ret_change,
                               struct config_error *ret_error);
/* It is in force: discovery matches all VMs anew. Consumes the change. THREADS: one at a time. */
void discovery_adopt(struct discovery *discovery, struct discovery_change *change);
/* Undoes the preparations. */
void discovery_change_free(struct discovery_change *change);
DEFINE_CLEANUP(struct discovery_change *, discovery_change_free)

/* From collect_events(), on the discovery thread. */
void discovery_vm_exited(struct discovery *discovery, void *owner);
void discovery_read_failed(struct discovery *discovery, void *owner, int32_t vcpu, int error);
