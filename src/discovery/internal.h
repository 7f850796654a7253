/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of this folder share. THREADS: discovery only, all of it, but for the few members
 * that say otherwise.
 *
 * A *process* is any process on the host; a *VMM* is one that runs VMs, see is_vmm(); a
 * *found VM* is one VM of the kernel, whichever and however many processes hold it. A VMM's
 * *holdings* say which VMs it holds; one of a VM's holders is its *owner*: the fds are borrowed
 * from it, and when it exits they are let go.
 */
#pragma once

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

#include "clock.h"
#include "discovery.h"
#include "given.h"
#include "identity/identity.h"
#include "kernelview.h"
#include "uevents.h"

struct found_vm;

/* A block of statistics that is being sampled. */
struct found_target {
    enum target_source source;
    struct kvm_file file; /* statsfd: one of the owner's fds for it; else only its vcpu counts */
    bool same_open_file;  /* ours is a duplicate of that one; false: the VMM has opened it anew */
    bool by_files;        /* by BPF, without a pin */
    bool failing;         /* the sampler could not read it */
    pid_t tid;            /* that runs it, as the sink was told; 0: BPF has named none */
};

struct found_vm {
    uint64_t id;       /* never reused; what the sink knows it by */
    struct vmm *owner; /* never NULL */
    int key_fd;        /* in the owner: a kvm-vm fd (without one a kvm-vcpu fd); -1 not known */
    pid_t creator_tid; /* thread that made it; 0 not known */
    /* 0: not known, or the time to its first sample is not to be told (any more) */
    int64_t created_ns;
    struct identity identity;
    uint32_t n_vcpus;
    bool in_order; /* its place in discovery.vms follows its open file */

    struct discovery_handle *handle; /* NULL: not read */
    int pin_fd;                      /* our duplicate of the key file, kept by the sink; -1: none */
    uint64_t kvm;           /* where no key is known: which VM it is for BPF; 0 not known */
    bool kernel_pending;    /* its blocks are to be looked up in the next pass of BPF */
    bool lacks_tids;        /* when they were looked up last, a vCPU had not run yet */
    struct given_vm *given; /* what its VMM has handed over; NULL: nothing */
    size_t n_targets;
    struct found_target *targets; /* by vcpu id, the VM scope first */

    enum unreadable_reason reason;
    char *detail; /* owned, "" never NULL */

    struct { /* what the log has said about it */
        bool said;
        char *label; /* owned; NULL before the first line */
        enum unreadable_reason reason;
        uint32_t n_vcpus_read;
        unsigned sources;
        bool vm_scope_read;
    } log;
};

/*
 * Whether we have files that keep it: then the kernel has not destroyed it. What BPF reads by the
 * owner's files keeps nothing.
 */
static inline bool vm_is_held(const struct found_vm *vm)
{
    return vm->given || vm->pin_fd >= 0 || (vm->handle && !vm->kvm);
}

/* That a VMM holds a VM, by `fd`. */
struct holding {
    int fd;
    struct found_vm *vm;
};

struct vmm {
    pid_t pid;
    uint64_t start_ticks;
    int64_t start_wall_ns;
    struct kvm_file_list files; /* at the last listing */
    size_t n_holdings;
    struct holding *holdings;
    int64_t ending_ns; /* when it first was seen exiting; 0: it was not */
};

struct process {
    pid_t pid;
    bool has_start; /* start_ticks is known: read before the first listing */
    bool listed;
    bool gave_vm;    /* it has handed over one that it made */
    bool denied;     /* its fds may not be listed */
    uint32_t n_made; /* VMs, by the kernel's word, less those that are no more */
    uint64_t start_ticks;
    int64_t start_wall_ns;
    struct proc_mark mark; /* before the last listing */
    int64_t listed_ns;
    /* The kernel's word of a VM that it made and in which no VM was found yet; 0: none. */
    int64_t creation_ns;
    pid_t creator_tid;
    struct vmm *vmm; /* owned; NULL: holds no VM */
};

/* A process to be looked at because of an event: again and again until the VM must have settled. */
struct look {
    pid_t pid;
    unsigned stage; /* which of the delays comes next; past them: this look is the last */
    int64_t event_ns;
    int64_t due_ns;
};

struct discovery {
    struct store *store;
    const struct proc *proc;
    struct broker *broker;
    struct config *config; /* a reference */
    struct discovery_sink sink;
    pid_t self;
    bool counts_fds; /* the kernel tells the number of a process's fds */

    size_t n_processes, processes_capacity;
    struct process *processes; /* by pid */
    size_t n_vms, vms_capacity;
    struct found_vm **vms; /* those in_order first, by open file */
    size_t n_ordered;
    bool order_is_doubtful; /* a key turned out to have been another file for a while */
    uint64_t next_vm_id;
    size_t n_looks, looks_capacity;
    struct look *looks;

    struct given *given;           /* owned */
    struct kernelview *kernelview; /* owned */
    bool kernel_pending;           /* some VM's is */
    bool denied_pending;           /* VMs of processes whose fds may not be listed, likewise */
    bool unsafe_said;
    struct kernel_count kernel_count;
    int64_t rescanned_ns, rescan_due_ns;
    int64_t fds_budget; /* see procscan.c */
    int64_t searching_since_ns;
    bool fds_exhausted; /* in this pass: no use in trying further */
    bool vms_full;
    uint32_t n_denied; /* processes whose fds may not be listed */
    bool denied_said, hidden_said;
    unsigned missing_looks; /* full looks in a row that saw fewer VMs than the kernel counts */
    bool sink_changed;      /* to be committed */
    bool roster_changed;    /* to be published */
    bool log_due;           /* something may be said that had to wait */
    int64_t handed_on_ns;
    uint64_t events_lost; /* times */
    bool look_at_everything;
    int rescan_error; /* of the last one: 0 or -errno */

    int uevents_fd, epoll_fd;
    int uevents_error; /* of opening it: 0 or -errno */
    int wake_fd;       /* eventfd; THREADS: any may write */
    pthread_t thread;
    bool spawned; /* the thread is there, and waits for `go` until it is started */
    sem_t go;
    atomic_bool stopping;
    _Atomic(struct discovery_change *) change; /* on its way; THREADS: any may exchange */
};

/* --- change.c: new configurations --- */

/* Adopts the newest, if there is one. */
void discovery_take_change(struct discovery *d);
void discovery_wake(struct discovery *d);

/* --- vms.c: the table of VMs and who holds them --- */

/*
 * The VM whose key is the same open file as `fd` of `pid`, or NULL; `except` is passed over.
 * Returns 0, -ESRCH or another -errno when that file cannot be compared at all.
 */
MUST_USE int vms_find(struct discovery *d, pid_t pid, int fd, const struct found_vm *except,
                      struct found_vm **ret_vm);
/* A new VM of `owner`. Returns 0 or -ENOMEM. */
MUST_USE int vms_add(struct discovery *d, struct vmm *owner, int key_fd, struct found_vm **ret_vm);
/* The VM is known by another fd or another owner: finds its place anew. */
void vms_set_key(struct discovery *d, struct found_vm *vm, struct vmm *owner, int key_fd);
struct found_vm *vms_by_id(struct discovery *d, uint64_t id);
/* `vmm` holds it no more: the VM goes to another holder, or ends. The holding is the caller's. */
void vms_let_go(struct discovery *d, struct found_vm *vm, struct vmm *vmm, const char *why);
/* A further process holds it: the better owner is the one that made it, else the older. */
void vms_join(struct discovery *d, struct found_vm *vm, struct vmm *vmm, int fd);
/*
 * Two in the table have turned out to be one, since a number has silently become another file. Who
 * holds `twin` by `vm`'s file holds `vm` from now on; `twin` is left to those who hold it by
 * another, if there are any. `looking`, whose holdings are being made anew, is left alone.
 */
void vms_unite(struct discovery *d, struct found_vm *twin, struct found_vm *vm,
               const struct vmm *looking);
/* Whether `fd` of `vmm` is the VM's: >0, 0, -errno. */
MUST_USE int vms_is_held_by(struct discovery *d, const struct found_vm *vm, const struct vmm *vmm,
                            int fd);
/*
 * After a pass: if the order is doubtful, sorts anew, and has the processes looked at that hold
 * what turns out to be one VM.
 */
void vms_settle(struct discovery *d);
void vms_free(struct discovery *d);

/* --- procscan.c: which processes to look at --- */

struct process *processes_find(struct discovery *d, pid_t pid);
/* Finds or adds. NULL when memory runs out. */
struct process *processes_get(struct discovery *d, pid_t pid);
/* It holds no VM any more. */
void processes_drop_vmm(struct discovery *d, struct process *process, const char *why);
void processes_forget(struct discovery *d, struct process *process, const char *why);
void processes_free(struct discovery *d);
/* One pass over all processes. `everything`: list all whose mark changed, whatever it costs. */
MUST_USE int procscan_rescan(struct discovery *d, bool everything);
/* A look at one process, known or not; without `always` only if its mark has changed. */
void procscan_look(struct discovery *d, pid_t pid, bool always);

/* --- look.c: from a listing to VMs --- */

/*
 * Lists the process's KVM files and draws the conclusions; `mark` was read before. `process` is
 * invalid afterwards: it may have been forgotten.
 */
void look_at_process(struct discovery *d, struct process *process, const struct proc_mark *mark);

/*
 * Whether the VMM is exiting and has not ended yet. Then the sink, which watches it, will tell of
 * its end (discovery_vm_exited()), and until then its VMs are left as they are; for a minute at
 * most, since a process whose first thread has exited looks the same and may live on.
 */
bool look_is_ending(struct discovery *d, struct vmm *vmm);
/* One more VM of a process whose fds may not be listed. Returns 0 or -ENOMEM. */
MUST_USE int look_add_denied(struct discovery *d, struct process *process,
                             struct found_vm **ret_vm);
/* The VM, known by no file, has been destroyed; it is invalid afterwards. */
void look_undo_denied(struct discovery *d, const struct found_vm *vm);

/* --- attach.c: from a VM to targets --- */

/* Reads the VM, or goes on reading it, or says why not: by its owner's files as listed last. */
void attach_refresh(struct discovery *d, struct found_vm *vm);
/* Whether other processes' files are of any use; else only what they hand over is. */
bool attach_looks_at_files(const struct config *config);
/* After a pass: VMs that BPF is to read get their blocks, all by one look at the kernel. */
void attach_settle(struct discovery *d);
/* Has BPF look again at VMs whose vCPUs had not run yet, or may have got other threads. */
void attach_ask_for_tids(struct discovery *d);
/* Everything of it is let go. */
void attach_drop(struct discovery *d, struct found_vm *vm);
/* Whether the owner's fds still are the files that are read: >0, 0, -errno. */
MUST_USE int attach_verify(struct discovery *d, const struct found_vm *vm);
/* All files that are read are gone from the owner, and others of their kind are there. */
bool attach_is_replaced(struct discovery *d, const struct found_vm *vm,
                        const struct kvm_file_list *now);

/* --- denied.c: VMs of processes whose fds may not be listed, by BPF --- */

/* Whether BPF can be asked for them. */
bool denied_can_ask(struct discovery *d);
/* By the newest pass over the kernel's files: what is new, what goes on, what has gone. */
void denied_settle(struct discovery *d);
/* One of them has been closed, by the kernel's word: a VM that is found at its place is another. */
void denied_closed(struct discovery *d, struct found_vm *vm);

/* --- report.c: log lines and the roster --- */

/* What the VM is called where no label was given: name, else uuid, else pid-<pid>. */
void report_label(const struct found_vm *vm, char *ret_label, size_t size);
/* Says what is new of the VMs that have settled. */
void report_log(struct discovery *d);
void report_gone(struct discovery *d, const struct found_vm *vm, const char *why);
MUST_USE int report_publish(struct discovery *d);

/* --- unseen.c --- */

/* After a full look: what it could not see. */
void unseen_say(struct discovery *d);

/* --- discovery.c --- */

/* A look at `pid` at that time, besides those that are due anyway. */
void looks_add(struct discovery *d, pid_t pid, int64_t due_ns);
/* When a process that makes itself heard again and again may be listed again. */
int64_t looks_earliest_ns(const struct process *process);
/* Whether more looks at `pid` are to come. */
bool looks_pending(const struct discovery *d, pid_t pid);
