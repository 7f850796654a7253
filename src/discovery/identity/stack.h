/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this folder share: the two tables' entries and the helpers they use. */
#pragma once

#include "arguments.h"
#include "cgroup.h"
#include "identity.h"

/* A VMM: how it is recognised and how its command line is read. */
struct identity_stack {
    const char *vmm;
    /* `executable`: a file's name without its directory. */
    bool (*recognises)(const char *executable);
    /* Fills name and uuid where they are given. Returns 0 or -ENOMEM. */
    int (*read_arguments)(const struct arguments *arguments, struct identity *identity);
    /*
     * The path of its control socket, owned, NULL where none is given: what an unnamed VM may be
     * named after. Returns 0 or -ENOMEM. NULL for a VMM whose sockets say nothing.
     */
    int (*read_socket)(const struct arguments *arguments, char **ret_path);
};
extern const struct identity_stack identity_qemu;
extern const struct identity_stack identity_firecracker;
extern const struct identity_stack identity_cloud_hypervisor;
extern const struct identity_stack identity_crosvm;
extern const struct identity_stack identity_kvmtool;
extern const struct identity_stack identity_dragonball;
extern const struct identity_stack identity_demo;

/* All of them, NULL-terminated. */
extern const struct identity_stack *const identity_stacks[];

/* Who has started a VMM: names a VM by its control group. Sets *name or leaves it. */
struct identity_manager {
    int (*read_cgroup)(const struct cgroup *cgroup, char **name); /* 0 or -ENOMEM */
};
extern const struct identity_manager identity_libvirt;
extern const struct identity_manager identity_proxmox;

/*
 * Whether `executable` is `word` or a build of it: "firecracker-v1.7.0-x86_64",
 * "cloud-hypervisor-static", "crosvm.real", NixOS' ".crosvm-wrapped". "kvmtool" is no "kvm".
 */
bool executable_is(const char *executable, const char *word);

/*
 * Names a VM after its control socket: by Kata's directory, else by the socket's file. Sets *name
 * or leaves it. Returns 0 or -ENOMEM.
 */
MUST_USE int identity_name_by_socket(const char *path, char **name);
/* Kata keeps a VM's sockets in a directory of the sandbox's. Sets *name or leaves it. */
MUST_USE int identity_name_by_kata_path(const char *path, char **name);
