/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libkvmstatd-handoff: a VMM gives the statistics files of its VMs to kvmstatd, which then reads
 * them by itself: no call of the VMM's is needed for it, and no privilege of the daemon's. The
 * whole of it, errors left out:
 *
 *     struct kvmstatd_handoff *handoff;
 *     uint64_t vm;
 *     kvmstatd_handoff_connect(NULL, &handoff);
 *     kvmstatd_handoff_vm(handoff, vm_fd, "web1", NULL, &vm);   // after KVM_CREATE_VM
 *     kvmstatd_handoff_vcpu(handoff, vm, id, vcpu_fd);          // after each KVM_CREATE_VCPU
 *     …
 *     kvmstatd_handoff_vm_gone(handoff, vm);                    // before closing a VM and living
 * on
 *
 * Nothing here waits for the daemon. It may be there or not, be stopped, restarted, hung: each call
 * returns at once, and once there is a daemon it is given everything that has not been taken back,
 * over and over, as often as it is restarted.
 *
 * How: kvmstatd_handoff_connect() starts one small thread for the connection, "kvmstatd", with all
 * signals blocked and 64 KiB of stack, which waits in poll(). The calling threads make the ioctl
 * KVM_GET_STATS_FD. SIGPIPE is never raised.
 *
 * SECCOMP. A VMM that confines itself must allow what is called here, by this library and by the C
 * library below it. Connect before that: it makes a thread, which calls much besides, and it
 * returns when that is over. From then on the helper thread calls
 *
 *     brk clock_gettime close connect exit futex madvise mmap mprotect munmap poll read recvfrom
 *     restart_syscall rt_sigprocmask sendmsg socket
 *
 * and the functions here call, in the threads of the VMM that use them,
 *
 *     brk clock_gettime close fcntl futex getpid ioctl madvise mmap mprotect munmap
 *     rt_sigprocmask write
 *
 * That is so with glibc 2.36 on x86-64. It depends on the C library: where there is no poll, it
 * calls ppoll; what malloc(), free() and the end of a thread call is its own affair. Under
 * libkvmstatd-preload.so, a vCPU made by a duplicate of the VM's fd costs a kcmp besides.
 *
 * WHAT IT HOLDS. For each VM the library keeps two fds open (its statistics file and a duplicate of
 * the VM's fd), and one for each vCPU; the daemon keeps its own. Each of them keeps the kernel's
 * side of that VM alive. They go with the process. A VMM that closes a VM but lives on must give it
 * back: kvmstatd_handoff_vm_gone(), or the VM's kernel objects remain. All fds are close-on-exec.
 * (KVM_GET_STATS_FD makes fds without that flag, which is set one system call later.)
 *
 * WHEN. KVM_GET_STATS_FD of a vCPU waits while that vCPU runs: the kernel takes the vCPU's mutex
 * (virt/kvm/kvm_main.c). Call kvmstatd_handoff_vcpu() before the vCPU's first KVM_RUN, best by the
 * thread that has created it, and it waits for nothing.
 *
 * THREADS: any function from any thread. Those that give something back are async-signal-safe.
 * FORK: a child has none of it: its copies of the library's fds are closed in it, and every
 * function gives -ECHILD there but kvmstatd_handoff_close(). A child made by vfork() or clone()
 * must not call anything here.
 *
 * Results are 0 or a negative errno; outputs are written on success only.
 */
#ifndef KVMSTATS_HANDOFF_H
#define KVMSTATS_HANDOFF_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of this header; the shared library's soname carries the major number. */
#define KVMSTATD_HANDOFF_VERSION_MAJOR 1
#define KVMSTATD_HANDOFF_VERSION_MINOR 0

struct kvmstatd_handoff;

/*
 * Begins. `socket_path`: where the daemon listens; NULL: what the environment's
 * KVMSTATD_HANDOFF_SOCKET says, else /run/kvmstatd/handoff.sock. Whether anybody listens there is
 * no matter of this function's result. Errors: -ENAMETOOLONG, -EINVAL (empty), -ENOMEM, -EMFILE,
 * -EAGAIN (no thread could be made).
 */
int kvmstatd_handoff_connect(const char *socket_path, struct kvmstatd_handoff **ret_handoff);

/*
 * Gives a VM. `vm_fd` is KVM_CREATE_VM's and stays the caller's. `name` and `uuid` may be NULL;
 * they are hints for where the VMM's command line says nothing: at most 1024 bytes, and 36
 * characters. Errors: -EINVAL, -ENAMETOOLONG, -ENOMEM, -EMFILE, and those of the ioctl: -ENOTTY
 * where the kernel has no such statistics (before Linux 5.14).
 */
int kvmstatd_handoff_vm(struct kvmstatd_handoff *handoff, int vm_fd, const char *name,
                        const char *uuid, uint64_t *ret_vm);
/*
 * Gives a vCPU of that VM. `vcpu_id` is KVM_CREATE_VCPU's argument, `vcpu_fd` its result, which
 * stays the caller's. See WHEN above. Errors as above, and -ENOENT (no such VM), -EEXIST.
 */
int kvmstatd_handoff_vcpu(struct kvmstatd_handoff *handoff, uint64_t vm, uint32_t vcpu_id,
                          int vcpu_fd);

/*
 * The same for a VMM that has called KVM_GET_STATS_FD itself. The fds stay the caller's, the
 * library keeps duplicates. `vm_fd` may be -1, but is needed where a process has several VMs, to
 * tell them apart, and on kernels whose statistics files do not keep their VM alive.
 */
int kvmstatd_handoff_vm_stats(struct kvmstatd_handoff *handoff, int stats_fd, int vm_fd,
                              const char *name, const char *uuid, uint64_t *ret_vm);
int kvmstatd_handoff_vcpu_stats(struct kvmstatd_handoff *handoff, uint64_t vm, uint32_t vcpu_id,
                                int stats_fd);

/*
 * Takes back a VM with all its vCPUs, or one vCPU. The library's fds for it are closed when it
 * returns, or, if another thread is in the library just then, a moment later; the daemon's as soon
 * as it hears of it. Errors: -ENOENT, which is not told (the result is 0) if another thread is in
 * the library just then.
 */
int kvmstatd_handoff_vm_gone(struct kvmstatd_handoff *handoff, uint64_t vm);
int kvmstatd_handoff_vcpu_gone(struct kvmstatd_handoff *handoff, uint64_t vm, uint32_t vcpu_id);

/* How things stand, for a VMM's log or monitor. */
struct kvmstatd_handoff_status {
    bool connected;        /* there is a daemon, and it speaks with us */
    uint32_t given;        /* VMs and vCPUs given and not taken back */
    uint32_t accepted;     /* of them by this daemon */
    uint32_t refused;      /* the same */
    uint32_t last_reason;  /* of the last refusal: KVMSTATD_HANDOFF_REASON_*; 0: none yet */
    uint32_t n_connected;  /* how often a daemon has been found */
    uint32_t reserved[10]; /* 0 */
};
int kvmstatd_handoff_get_status(struct kvmstatd_handoff *handoff,
                                struct kvmstatd_handoff_status *ret_status);

/*
 * Takes back everything and ends. The library's fds are closed when it returns; telling the daemon
 * is left to the thread, which ends within a second. Accepts NULL.
 */
void kvmstatd_handoff_close(struct kvmstatd_handoff *handoff);

#ifdef __cplusplus
}
#endif
#endif
