/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files that make up attach share. A VM's way to its targets: attach.c decides and keeps
 * up, ways.c says which sources may be used, borrow.c takes stats fds, attach_bpf.c has BPF read.
 */
#pragma once

#include "internal.h"

enum {
    DETAIL_BYTES = 512,
};

/* What stands in the way. */
struct trouble {
    enum unreadable_reason reason;
    char detail[DETAIL_BYTES];
};

/* --- attach.c --- */

void attach_blame(struct trouble *trouble, enum unreadable_reason reason, const char *format, ...)
    PRINTF_LIKE(3, 4);
void attach_conclude(struct discovery *d, struct found_vm *vm, const struct trouble *trouble);
/* Sees to it that the VM's stats fds may be read. Returns 0, or -errno with *trouble. */
MUST_USE int attach_make_safe(struct discovery *d, struct found_vm *vm, struct trouble *trouble);
/*
 * Whether what an attempt that ended with `r` leaves of a VM is a half, which is not read at all:
 * of a new one, and of any that has more vCPUs than it may.
 */
static inline bool attach_is_half(int r, bool is_new)
{
    return r == -ENOSPC || (r < 0 && is_new);
}
void attach_set_vcpus(struct discovery *d, struct found_vm *vm, uint32_t n);

/* By vcpu_id, then number. */
static inline int kvm_file_compare(const struct kvm_file *x, const struct kvm_file *y)
{
    if (x->vcpu != y->vcpu)
        return x->vcpu < y->vcpu ? -1 : 1;
    return (x->fd > y->fd) - (x->fd < y->fd);
}

static inline bool kvm_file_is_stats(const struct kvm_file *file)
{
    return file->kind == KVM_FILE_VM_STATS || file->kind == KVM_FILE_VCPU_STATS;
}

/* --- ways.c --- */

/* How a VM could be read. */
struct ways {
    bool given;
    bool fds;
    bool bpf;
};

/* Whether the configuration has BPF among the sources. */
bool attach_allows_bpf(const struct config *config);
/* Whether its VMM has handed it over, and that may be used. */
bool attach_is_given(const struct discovery *d, const struct found_vm *vm);
/* Whether a target that is there is to be read from `source` from now on, which it can be. */
bool attach_replaces(struct discovery *d, const struct found_vm *vm,
                     const struct found_target *there, enum target_source source);
/* The owner's file by which the VM is known, or NULL. */
const struct kvm_file *attach_key_file(const struct found_vm *vm);
/* What would help a VM that has no stats fds. */
void attach_blame_no_stats(struct discovery *d, const struct found_vm *vm, struct trouble *trouble);
/* Whether the VM is to be read at all, by its owner and the configuration; else why not. */
bool attach_may_read(struct discovery *d, const struct found_vm *vm, struct trouble *trouble);
/* By which ways the VM can be read; when by none, *trouble says why. */
struct ways attach_find_ways(struct discovery *d, const struct found_vm *vm,
                             struct trouble *trouble);

/* --- attach_given.c --- */

/*
 * Hands on what was given and is not read in a better way: `files` are the stats files that could
 * be borrowed. Returns 0, or -errno with *trouble.
 */
MUST_USE int attach_given_files(struct discovery *d, struct found_vm *vm, struct ways ways,
                                const struct kvm_file *files, size_t n, struct trouble *trouble);
/* Removes the targets that were given and have been taken back. */
void attach_drop_taken_back(struct discovery *d, struct found_vm *vm);

/* --- borrow.c --- */

/* A stats file that is ours to hand on. */
struct borrowed {
    struct kvm_file file;
    const struct schema *schema;
    int fd;            /* owned; -1: none */
    pid_t creator_tid; /* that made it, in the initial pid namespace; 0: not known */
};

/* Reads what is in the stats file at ret_borrowed->fd. Returns 0, or -errno with *trouble. */
MUST_USE int attach_open_stats(struct discovery *d, struct found_vm *vm,
                               struct borrowed *ret_borrowed, struct trouble *trouble);
/* Consumes the fds. Returns 0, or -errno with *trouble. */
MUST_USE int attach_add_targets(struct discovery *d, struct found_vm *vm, enum target_source source,
                                struct borrowed *borrowed, size_t n, struct trouble *trouble);

/* Tells the sink of a thread of a vCPU that it has; what is none is not told. */
void attach_tell_tid(struct discovery *d, const struct found_vm *vm, int32_t vcpu,
                     enum discovery_tid what, pid_t tid);

/* Returns 0 with a pidfd of that very process, or -errno. */
MUST_USE int attach_open_owner(struct discovery *d, const struct vmm *owner, int *ret_pidfd);
/* What an error of borrowing means for the whole VM. Returns whether it is the end of the attempt.
 */
bool attach_is_fatal(struct discovery *d, const struct found_vm *vm, int r,
                     struct trouble *trouble);
/* Makes the VM known to the sink; `pidfd` is consumed. */
MUST_USE int attach_add_vm(struct discovery *d, struct found_vm *vm, int pidfd,
                           struct trouble *trouble);
/* Borrows `wanted` and hands it on; a VM that is new to the sink is added. Returns 0 or -errno. */
MUST_USE int attach_files(struct discovery *d, struct found_vm *vm, const struct kvm_file *wanted,
                          size_t n, struct trouble *trouble);
struct found_target *attach_find_target(const struct found_vm *vm, int32_t vcpu);
/* Room for n more targets, then each as the sink has taken it, then their order. */
MUST_USE int attach_make_room(struct found_vm *vm, size_t n);
void attach_note_target(struct found_vm *vm, const struct found_target *target);
void attach_sort_targets(struct found_vm *vm);
void attach_blame_sink(struct trouble *trouble, int r);

/* --- attach_bpf.c --- */

/* Whether that error says that its files may not be borrowed, but perhaps looked at. */
static inline bool attach_is_forbidden(int r)
{
    return r == -EPERM || r == -EACCES || r == -ENOSYS;
}

/*
 * Borrows the VM's own file, so that the kernel's objects stay where they are; a VM that is new to
 * the sink is added. Returns 0, or -errno with *trouble.
 */
MUST_USE int attach_pin(struct discovery *d, struct found_vm *vm, struct trouble *trouble);

/* The VM is to be read by BPF, from the next pass on (kernel_pending); else *trouble says why not.
 */
void attach_want_blocks(struct discovery *d, struct found_vm *vm, struct trouble *trouble);
