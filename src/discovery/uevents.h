/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's word on VMs: uevents of the misc device `kvm` (virt/kvm/kvm_main.c,
 * kvm_uevent_notify_change()), by netlink, no privilege needed.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "cleanup.h"

enum uevent_kind {
    UEVENT_VM_CREATED, /* said before the VMM has the VM's fd */
    UEVENT_VM_DESTROYED,
};

struct uevent {
    enum uevent_kind kind;
    pid_t tid;     /* the thread that created the VM, in the initial PID namespace; 0: not said */
    int64_t count; /* VMs alive on this host, this event included; -1: not said */
    int64_t made;  /* VMs ever created there; -1: not said */
};

/* How many VMs are alive on this host, by the kernel's word. */
struct kernel_count {
    int64_t vms;     /* -1: not known */
    int64_t made;    /* VMs ever created, when that was the number of those alive; -1: not said */
    int64_t told_ns; /* when that was said */
};

/*
 * Takes what the event says of it, at `now_ns` of any clock that does not go back, unless a later
 * word has overtaken it. Returns whether `count->vms` is another one than before.
 */
bool kernel_count_take(struct kernel_count *count, const struct uevent *event, int64_t now_ns);

/* Whether the message is one of ours. Pure. */
bool uevent_parse(const char *message, size_t len, struct uevent *ret_event);

/* A non-blocking socket. Returns 0 or -errno. */
MUST_USE int uevents_open(int *ret_fd);
/*
 * Returns 1 and an event, 0 when the message was of something else or not from the kernel,
 * -EAGAIN when there is none, -ENOBUFS when events were lost, or another -errno.
 */
MUST_USE int uevents_receive(int fd, struct uevent *ret_event);
