/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Discovery: a thread that finds every VM on the host, learns whose it is, borrows its stats fds
 * and hands them on through a sink. It keeps no borrowed fd for itself and never touches a frame.
 */
#pragma once

#include "broker.h"
#include "config.h"
#include "proc.h"
#include "store.h"

struct discovery;
struct discovery_handle; /* what the sink calls a VM */

/* What is known of a VM; strings are borrowed for the call and may hold any bytes. */
struct discovery_vm {
    const char *name, *uuid, *vmm, *machine, *unit; /* "" when unknown */
    const char *source;                             /* static */
    pid_t pid;
    int64_t start_wall_ns;
    int64_t created_ns; /* monotonic; 0: not known */
    uint32_t n_vcpus;
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
MUST_USE int discovery_start(struct discovery *discovery);
/* Joins the thread; what was found stays with the sink. Idempotent. */
void discovery_stop(struct discovery *discovery);
void discovery_free(struct discovery *discovery);
DEFINE_CLEANUP(struct discovery *, discovery_free)

/* One full look over all processes, in the caller's thread, for --once; not with discovery_start().
 */
MUST_USE int discovery_look_once(struct discovery *discovery);
/* A new configuration is in force; discovery matches all VMs anew. Takes a reference. THREADS: any.
 */
void discovery_set_config(struct discovery *discovery, struct config *config);

/* From collect_events(), on the discovery thread. */
void discovery_vm_exited(struct discovery *discovery, void *owner);
void discovery_read_failed(struct discovery *discovery, void *owner, int32_t vcpu, int error);
