/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The broker: the only privileged acts of discovery. It lists the KVM files that a process holds
 * and borrows stats fds; it refuses to borrow anything else. Values and fds in, values and fds out,
 * no shared pointers: it can become a process of its own.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "bpf.h"
#include "cleanup.h"
#include "proc.h"
#include "safety.h"

enum kvm_file_kind {
    KVM_FILE_VM,         /* anon_inode:kvm-vm */
    KVM_FILE_VCPU,       /* anon_inode:kvm-vcpu:N */
    KVM_FILE_VM_STATS,   /* anon_inode:kvm-vm-stats */
    KVM_FILE_VCPU_STATS, /* anon_inode:kvm-vcpu-stats:N */
};

struct kvm_file {
    int fd; /* its number in the process */
    enum kvm_file_kind kind;
    int32_t vcpu; /* -1 for the VM's */
};

struct kvm_file_list {
    size_t n;
    struct kvm_file *files; /* ascending by fd */
    size_t n_fds;           /* fds of any kind that were looked at */
};
void kvm_file_list_free(struct kvm_file_list *list);

/* What a link text in /proc/PID/fd says. Returns false when it is no KVM file. Pure. */
bool kvm_file_parse(const char *link, size_t len, enum kvm_file_kind *ret_kind, int32_t *ret_vcpu);

enum {
    /* Of our own fds, kept for what is not borrowed: scrapes, /proc, sockets. */
    BROKER_FDS_RESERVED = 256,
    BROKER_FDS_RESERVED_SHARE = 3, /* where there are few: one in so many */
};

/*
 * Whether only those are left. The kernel gives the lowest free number, so what `fd`, the newest,
 * is called tells how many are open.
 */
bool broker_fds_are_short(int fd);
/* How many fds there may be before they are short; SIZE_MAX: there is no limit. */
size_t broker_fds_most(void);

struct broker;
/* `proc` is borrowed. */
MUST_USE int broker_new(const struct proc *proc, struct broker **ret_broker);
void broker_free(struct broker *broker);
DEFINE_CLEANUP(struct broker *, broker_free)

/*
 * Where the process is another user's and we have CAP_SYS_PTRACE alone, its anonymous files of
 * unknown kind are duplicated for a moment, to see what they are: fdinfo.c. Returns 0, -ESRCH
 * (gone), -EACCES or -EPERM (not allowed), or another -errno. */
MUST_USE int broker_list(struct broker *broker, pid_t pid, struct kvm_file_list *ret_list);
/*
 * A duplicate of the process's fd, checked after the fact to be the stats file that was asked for
 * (the process may have put another file at that number meanwhile): otherwise it is closed unread.
 * `pidfd` is borrowed; the result is the caller's. Returns 0, -ESTALE (another file or none),
 * -ESRCH, -EPERM, -EMFILE (also when broker_fds_are_short()), -EINVAL (no stats file was asked for)
 * or another -errno.
 */
MUST_USE int broker_borrow(struct broker *broker, int pidfd, const struct kvm_file *file,
                           int *ret_fd);
/*
 * What one of our own fds is: >0 and the file (its number is `fd`), 0 when it is no KVM file,
 * -errno. It is not read, nor asked anything: the kernel's name for it is all that counts.
 */
MUST_USE int broker_identify(struct broker *broker, int fd, struct kvm_file *ret_file);
/*
 * A duplicate of the process's kvm-vm or kvm-vcpu file, to keep the VM's objects valid while they
 * are read. Checked as above; -EINVAL when the file is of another kind.
 */
MUST_USE int broker_borrow_pin(struct broker *broker, int pidfd, const struct kvm_file *file,
                               int *ret_fd);

/*
 * Whether stats fds keep their VM on this kernel: tried at the first call, remembered after. Tests
 * may say it beforehand.
 */
enum stats_fd_safety broker_safety(struct broker *broker);
void broker_set_safety(struct broker *broker, enum stats_fd_safety safety);

/*
 * BPF: loads the iterator (once), runs a pass of it, says where a block is. See bpf.h. What comes
 * from it are values: the programs stay here.
 */
MUST_USE int broker_bpf_open(struct broker *broker, struct bpf_error *ret_error);
MUST_USE int broker_bpf_list(struct broker *broker, struct bpf_kvm_file **ret_files, size_t *ret_n);
uint64_t broker_bpf_block(const struct broker *broker, enum scope scope,
                          const struct bpf_kvm_file *file);
/* What the pass over files needs to know of it: bpf_source_wanted(). */
void broker_bpf_wanted(const struct broker *broker, enum scope scope,
                       const struct bpf_kvm_file *file, struct bpf_wanted *ret_wanted);
/* The layouts of the running kernel's statistics, from a scratch VM: bpf_source_schemas(). */
MUST_USE int broker_schemas(struct broker *broker, struct schema_table *table,
                            const struct schema *ret_schemas[2], struct bpf_error *ret_error);

/*
 * Whether two processes' fds are the same open file: >0 yes, 0 no, -errno (-ESRCH, -EBADF, -EPERM,
 * -ENOSYS where the kernel has no kcmp()).
 */
MUST_USE int broker_same_file(struct broker *broker, pid_t pid_a, int fd_a, pid_t pid_b, int fd_b);
/*
 * The same, with an order of the open files that holds until the machine is booted again:
 * *ret_order is <0, 0 (the same open file) or >0. Returns 0 or -errno as above.
 */
MUST_USE int broker_order_files(struct broker *broker, pid_t pid_a, int fd_a, pid_t pid_b, int fd_b,
                                int *ret_order);
/*
 * Whether `file` of process `pid` still is the open file of which `our_fd` is a duplicate: >0 yes,
 * 0 no, -errno. Where the kernel has no kcmp(), or with our_fd -1, whether a file of that kind and
 * number is still there.
 */
MUST_USE int broker_still_there(struct broker *broker, pid_t pid, const struct kvm_file *file,
                                int our_fd);
