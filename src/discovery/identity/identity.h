/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whose VM is it. Only processes that hold KVM files are asked. Two tables, one file an entry:
 *
 * stack              told by the executable        name
 * qemu               qemu-system-*, qemu-kvm, kvm  -name
 * firecracker        firecracker*                  --id, else by --api-sock (socket.c)
 * cloud-hypervisor   cloud-hypervisor*             libvirt's event monitor, else by --api-socket
 * crosvm             crosvm*                       --name, else by --socket
 * kvmtool            lkvm*                         --name
 * dragonball         containerd-shim-kata-v2       sandbox-<-id>, as Kata names its QEMUs (kata.c)
 * kvmstatd-demo-vm   kvmstatd-demo-vm              --name
 *
 * manager            told by the control group     name where the command line gave none
 * libvirt            machine qemu-<id>-<name>      <name>: filtered and cut by libvirt
 * Proxmox            qemu.slice/<id>.scope         vm<id>
 *
 * OpenStack and KubeVirt run QEMU by libvirt, so their names are libvirt's: `instance-0000001d`,
 * `<namespace>_<vmi>`. A VMM that nobody knows goes by its executable's name, unnamed.
 *
 * Trust. That a process executes a certain file and stands in a certain control group is the
 * kernel's word, and an unprivileged process can change neither the file nor the unit. Its command
 * line and its comm are its own words. Therefore `vmm` is the executable's wherever the kernel lets
 * us see that, `unit` and `machine` never come from the command line, and what a process says of
 * itself can change its own name and uuid and nothing else: it may call itself what it likes,
 * another VM's name too (such VMs get name@pid). Of a process cmdline, comm, exe and cgroup are
 * read, whatever they hold: no word in them leads to another file.
 *
 * All strings hold any bytes, newlines and invalid UTF-8 too; all reading is bounded.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "cleanup.h"
#include "proc.h"

enum {
    /*
     * Of each string. libvirt's and Kubernetes' names must fit a file name (255 bytes); a VMM may
     * give 2 MB, and every sample of the VM carries the name.
     */
    IDENTITY_BYTES_MAX = 1024,
};

/* Owned strings of any bytes, never NULL after identity_read(), "" when unknown. */
struct identity {
    char *name;
    char *uuid;
    char *vmm;     /* the stack's name ("qemu"), else the executable's */
    char *machine; /* as systemd-machined or libvirt knows it: "qemu-3-web1" */
    char *unit;    /* systemd's, escaped as it writes it: "machine-qemu\x2d3\x2dweb1.scope" */
};
void identity_free(struct identity *identity);
#define CLEANUP_IDENTITY CLEANUP(identity_free)

/*
 * What is unknown stays ""; a process that has vanished is no error either. Returns 0 or -ENOMEM.
 */
MUST_USE int identity_read(const struct proc *proc, pid_t pid, struct identity *ret_identity);

/* What is known of a process. Borrowed; "" what could not be read. */
struct identity_sources {
    const char *executable; /* a file's name without its directory */
    const char *cmdline;    /* as /proc/PID/cmdline has it, or any bytes; NULs in it */
    size_t cmdline_len;
    const char *comm;
    const char *cgroup; /* as /proc/PID/cgroup has it */
};
/* The same from texts: pure. Returns 0 or -ENOMEM. */
MUST_USE int identity_make(const struct identity_sources *sources, struct identity *ret_identity);

/*
 * Replaces *field by a copy of the first `len` bytes of `bytes`, at most IDENTITY_BYTES_MAX of them
 * and none after a NUL. Returns 0 or -ENOMEM.
 */
MUST_USE int identity_set(char **field, const char *bytes, size_t len);
