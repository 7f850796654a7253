/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What integration tests need on a real /dev/kvm: demo VMs, an independent look at their
 * statistics, and the kernel's own word on when a VM has gone. Whatever fails here fails the
 * running test.
 *
 * VMs end with the process that started them (the demo VM sees to that), hence also with a test
 * that fails: libcheck runs each in a process of its own. Start them from the test's main thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* A safety net for everything waited for: no bar, sanitizers on a busy machine are slow. */
#define KVMTEST_TIMEOUT_MS 60000

/* Skips the running test where /dev/kvm cannot be used. */
void kvmtest_require_kvm(void);

struct kvmtest_vm {
    char name[256]; /* "-": unnamed */
    pid_t pid;
};

struct kvmtest_vms {
    pid_t pid; /* what was started: the launcher, or the one VM itself; 0: ended */
    int output_fd;
    size_t n;
    struct kvmtest_vm *vms; /* in the order in which they became ready */
    char pending[8192];     /* read, but not yet a whole line */
    size_t pending_len;
};

/*
 * Starts kvmstatd-demo-vm with these options and returns once all its VMs run. Ended by
 * kvmtest_stop(), or with the test. Example: kvmtest_start("--vcpus", "2", "--name", "a", NULL).
 */
struct kvmtest_vms *kvmtest_start(const char *option, ...) __attribute__((sentinel));
/* The path of the demo VM's executable, for what kvmtest_start() can't do. */
const char *kvmtest_demo_vm(void);
/* SIGTERM, and wait; returns what waitpid() says. Frees `vms`; accepts NULL (and returns 0). */
int kvmtest_stop(struct kvmtest_vms *vms);
/* SIGKILL to what was started, and wait. Frees `vms`. */
void kvmtest_kill(struct kvmtest_vms *vms);

/* What a vCPU's VMM has counted itself, from an answer to SIGUSR1. */
struct kvmtest_count {
    char name[256];
    unsigned vcpu;
    uint64_t io, mmio, halt;
};
/* Asks all VMs; `ret` has room for the vCPUs of all of them, `n` in number. */
void kvmtest_counts(struct kvmtest_vms *vms, struct kvmtest_count *ret, size_t n);

/* Another process's stats fd, duplicated into this one. */
struct kvmtest_stats {
    int fd;     /* owned */
    int vcpu;   /* KVM's vcpu_id; -1: the VM's own */
    int number; /* the fd's number over there */
};
/* Borrows all stats fds a process holds: the VM's first, then by vcpu_id. free() the array. */
size_t kvmtest_borrow_stats(pid_t pid, struct kvmtest_stats **ret_stats);
void kvmtest_close_stats(struct kvmtest_stats *stats, size_t n);
/* The same for one: the VM's (vcpu -1) or a vCPU's. The caller owns the fd. */
int kvmtest_borrow_one(pid_t pid, int vcpu);

/*
 * One value of a stats fd, read by name with a decoder of this file's own, so that it says
 * something about ours. `index` counts the values of a histogram. *_has() is false where this
 * kernel does not have that statistic; *_value() fails the test there.
 */
bool kvmtest_has(int stats_fd, const char *name);
uint64_t kvmtest_value(int stats_fd, const char *name, unsigned index);
/* Sum over all values of a histogram. */
uint64_t kvmtest_sum(int stats_fd, const char *name);

/* How many fds of a process have a link text that begins so; -1 when the process is gone. */
int kvmtest_count_fds(pid_t pid, const char *link_prefix);

/* A socket that hears the kernel's uevents from now on. Fails the test where it cannot. */
int kvmtest_uevents_open(void);
/*
 * Waits for the uevent of a VM: `event` "create" or "destroy", created by thread `pid` (the main
 * thread of a demo VM). Returns false after timeout_ms without one. Others' events are passed over.
 */
bool kvmtest_wait_uevent(int uevents_fd, const char *event, pid_t pid, int timeout_ms);
/* Waits until a process is gone (or a zombie): false after timeout_ms. */
bool kvmtest_wait_gone(pid_t pid, int timeout_ms);
