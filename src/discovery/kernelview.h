/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What BPF shows of the kernel: every open KVM file of the host with the objects behind it. It
 * tells whose a vCPU is where fds alone do not, and gives the addresses that the sweep reads.
 *
 * An address is good only while its VM is pinned, and only if it was seen after that: so a VM's
 * kvm-vm fd is borrowed first, and then our own duplicate of it is looked up in a later pass.
 * Where it cannot be borrowed, the address only serves to tell the object's files in later passes.
 * THREADS: discovery only.
 */
#pragma once

#include "bpf.h"
#include "broker.h"
#include "store.h"

struct kernelview;

MUST_USE int kernelview_new(struct broker *broker, struct store *store,
                            struct kernelview **ret_view);
void kernelview_free(struct kernelview *view);
DEFINE_CLEANUP(struct kernelview *, kernelview_free)

/*
 * Whether the kernel's open files can be looked at. The first call tries, and logs why not; what
 * may change is tried again by later calls, seconds apart. Unlike the next it makes no VM.
 */
bool kernelview_opens(struct kernelview *view);
/*
 * Whether VMs can be read by BPF here. The first call tries, which takes some 50 ms, and logs how
 * it went, and later ones as above; it makes a scratch VM, so call it only when there is a VM.
 */
bool kernelview_works(struct kernelview *view);
/* Whether it did not work, and the next call will try again. */
bool kernelview_is_due(const struct kernelview *view);
/* KVM is there now, by the kernel's word: the next attempt need not wait long. */
void kernelview_hurry(struct kernelview *view);
/* Why it does not: a sentence; "" while it works or has not been tried. */
const char *kernelview_why_not(const struct kernelview *view);

/* A new pass over all files. Returns 0 or -errno; the old pass is dropped in any case. */
MUST_USE int kernelview_refresh(struct kernelview *view);

/* By the last pass: the VM that `fd` of a process (a kvm-vm or kvm-vcpu file) belongs to. */
MUST_USE int kernelview_find(const struct kernelview *view, pid_t pid, int fd, uint64_t *ret_kvm);

/*
 * The files of the last pass, those of one VM one after another: a VM's own before its vCPUs'. They
 * are the view's, and gone with the next pass.
 */
const struct bpf_kvm_file *kernelview_files(const struct kernelview *view, size_t *ret_n);

/* A data block of a VM. */
struct kernel_block {
    int32_t vcpu; /* -1: the VM's own */
    pid_t tid;    /* the thread that ran the vCPU last, in our pid namespace; 0: none yet */
    uint64_t address;
    struct bpf_wanted wanted; /* for reading it without a pin */
};
/*
 * By the last pass: the blocks of a VM, its own first, then the vCPUs by id, each once. The array
 * is the caller's to free(). Returns 0, -ENOENT (no such VM) or -ENOMEM.
 */
MUST_USE int kernelview_blocks(const struct kernelview *view, uint64_t kvm,
                               struct kernel_block **ret_blocks, size_t *ret_n);
/* The layout of those blocks. */
const struct schema *kernelview_schema(const struct kernelview *view, enum scope scope);
