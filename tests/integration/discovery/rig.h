/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Discovery with a sink that writes down what it is given. VMs of processes that the test has not
 * named are refused, so that others' VMs on this machine are let alone. Whatever fails here fails
 * the running test.
 */
#pragma once

#include <pthread.h>

#include "discovery.h"
#include "internal.h"

enum {
    RIG_VCPUS_MAX = 32,
    RIG_PIDS_MAX = 64,
};

struct discovery_handle {
    struct discovery_handle *next;
    pid_t pid;
    char label[256];
    uint32_t n_vcpus;
    int64_t created_ns;
    void *owner;
    int pidfd;
    int pin_fd;                 /* -1: not pinned */
    int fds[RIG_VCPUS_MAX + 1]; /* [0] the VM's, [1 + n] vCPU n's; -1: no target */
};

struct rig {
    struct store *store;
    struct proc proc;
    struct broker *broker;
    struct config *config;
    struct discovery *discovery;

    pthread_mutex_t lock; /* all below: the test's thread and discovery's */
    struct discovery_handle *vms;
    unsigned n_pids;
    pid_t pids[RIG_PIDS_MAX];
    unsigned added, removed, targets_added, targets_removed, commits;
    bool pin_first;                     /* no target may come before its VM is pinned */
    int vm_add_error, target_add_error; /* what the sink answers from now on; 0: it accepts */
};

void rig_setup(struct rig *rig, const char *yaml);
void rig_teardown(struct rig *rig);
/* Another configuration, in force at the next look. */
void rig_set_config(struct rig *rig, struct config *config);
/* VMs of this process are wanted. */
void rig_want(struct rig *rig, pid_t pid);
/* The same, and it makes VMs: as if the kernel had said so. */
void rig_made(struct rig *rig, pid_t pid);
/* A rescan, which lists only what has a reason to be listed. */
void rig_look(struct rig *rig);
/* The same, and all that the test has named are listed: as if their turn had come. */
void rig_look_at_all(struct rig *rig);
/* What is sampled of a process; NULL: nothing. At most one VM a process can be. */
const struct discovery_handle *rig_vm(struct rig *rig, pid_t pid);
/* "VM 0 1 2": the scopes and vCPUs sampled of a process, "" for none. Static buffer. */
const char *rig_targets(struct rig *rig, pid_t pid);
/* How many VMs the roster has of this process, and the reason of the last of them. */
unsigned rig_roster(struct rig *rig, pid_t pid, enum unreadable_reason *ret_reason);
/* The roster's one VM of the process has this reason. */
#define RIG_ASSERT_REASON(rig, pid, expected)                                        \
    do {                                                                             \
        enum unreadable_reason reason_ = UNREADABLE_REASONS;                         \
        ck_assert_uint_eq(rig_roster(rig, pid, &reason_), 1);                        \
        ck_assert_str_eq(roster_reason_name(reason_), roster_reason_name(expected)); \
    } while (0)
struct config *rig_config(const char *yaml);
