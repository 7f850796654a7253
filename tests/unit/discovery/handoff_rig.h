/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's end of the handoff socket with a receiver that notes what it is told, and a peer. */
#pragma once

#include <sys/types.h>

#include "handoff_internal.h"
#include "testing.h"

enum {
    RIG_CONTROL_FDS = 253, /* the kernel's most in one message: SCM_MAX_FD */
};

struct rig {
    char folder[64], path[96];
    struct proc proc;
    struct broker *broker;
    struct selfstats self;
    struct config *config;
    struct handoff *handoff;
    int answer; /* what the receiver returns for what is given */
    /* What the receiver was told. */
    unsigned vms, vcpus, vms_gone, vcpus_gone, all_given, peers_gone, revoked;
    uint64_t vm;
    int32_t vcpu;
    int stats_fd, vm_fd; /* the last ones, owned */
    char name[2048], uuid[64];
    pid_t pid;
    uid_t uid;
    int fds_before; /* open in this process when the rig was ready */
};

/* `yaml`: configuration but for handoff.socket; "@SOCKET@" stands for it. */
void rig_start(struct rig *rig, const char *yaml);
void rig_stop(struct rig *rig);
struct config *rig_config(const struct rig *rig, const char *yaml);
/* Dispatches until there is nothing to do. */
void rig_pump(struct rig *rig);
uint64_t rig_rejected(const struct rig *rig, enum handoff_reject reason);
int rig_count_fds(void);
/* Waits until this process has as many fds open as before, but for `more`. */
void rig_expect_fds(struct rig *rig, int more);

int rig_connect(const struct rig *rig);
/* Connects and says hello; returns the connection. */
int rig_hello(struct rig *rig);
void rig_send(int fd, const void *message, size_t len, const int *fds, size_t n);
/*
 * One answer: its type, or 0 when the connection was closed, or -1 when there is none. The reason
 * of a refusal in *ret_reason, which may be NULL.
 */
int rig_answer(int fd, uint32_t *ret_serial, uint32_t *ret_reason);
/* Sends, pumps, and expects a refusal for `reason`, after which the connection is closed or not. */
void rig_refused(struct rig *rig, int fd, const void *message, size_t len, const int *fds, size_t n,
                 enum kvmstatd_handoff_reason reason, bool closed);

struct kvmstatd_handoff_header rig_header(uint16_t type, size_t len);
struct kvmstatd_handoff_hello rig_make_hello(void);
struct kvmstatd_handoff_vm rig_make_vm(uint64_t vm);
struct kvmstatd_handoff_vcpu rig_make_vcpu(uint64_t vm, uint32_t vcpu);
