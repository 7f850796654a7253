/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process that makes, shares and closes VMs as it is told, fd by fd. It and whatever it forks end
 * with the test. Whatever fails here fails the running test.
 */
#pragma once

#include <sys/types.h>

struct vmm_process {
    pid_t pid;
    int socket;
};

enum vmm_act {
    VMM_MAKE_VM,   /* -> fd */
    VMM_MAKE_VCPU, /* a: VM fd, b: vcpu_id -> fd */
    VMM_STATS,     /* a: VM or vCPU fd -> stats fd */
    VMM_DUP,       /* a -> fd */
    VMM_DUP2,      /* a: from, b: to */
    VMM_CLOSE,     /* a */
    VMM_NULL,      /* -> an fd of /dev/null */
    VMM_FORK,      /* -> pid of a process that holds the same files and does nothing */
    VMM_BORROW, /* a: pid, b: its fd -> an fd for the same open file (as SCM_RIGHTS would give) */
};

struct vmm_process vmm_start(void);
/* Returns what the act gives; a failure fails the test. */
int vmm_do(const struct vmm_process *vmm, enum vmm_act act, int a, int b);
/* SIGKILL, and wait. */
void vmm_kill(struct vmm_process *vmm);
/* The same for one that vmm_start() did not start; the test is made its parent. */
void vmm_kill_forked(pid_t pid);
