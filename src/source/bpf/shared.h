/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the BPF programs and user space both know: records and tables, in fixed-width types. */
#pragma once

#include <linux/types.h>

/* One open KVM file of one process, as the iterator saw it. */
struct bpf_kvm_file {
    __u64 kvm;      /* the VM object's address */
    __u64 vcpu;     /* the vCPU object's; 0 for a VM's own file */
    __u32 tgid;     /* the process that holds the file … */
    __s32 fd;       /* … and its number there */
    __s32 vcpu_id;  /* -1 for a VM's own file */
    __s32 vcpu_tid; /* the thread that ran the vCPU last, in our PID namespace; 0: none */
    __s32 owner;    /* tgid or tid that made the VM */
    __s32 reserved;
};

/* One block to copy: `bytes` from a kernel address to the element of a frame. */
struct bpf_copy {
    __u64 address; /* 0: leave it */
    __u32 bytes;
    __u32 element;
    __u32 failed;  /* set when the copy faulted */
    __u32 seen;    /* the mark of the last pass over files that copied it … */
    __u64 seen_ns; /* … and when that was, by CLOCK_MONOTONIC */
};

/*
 * An object whose block is copied when the iterator comes by a file of it, and how to know that it
 * still is that one. object 0: a free place of the table.
 */
struct bpf_wanted {
    __u64 object;        /* struct kvm or kvm_vcpu */
    __u64 address;       /* of its block */
    __u64 kvm;           /* the VM */
    __u64 link;          /* where a vCPU says whose it is; 0 for a VM */
    __u64 owner_address; /* where the VM says who made it … */
    __s32 owner;         /* … which is this tid */
    __u32 index;         /* in copies */
};

/* Argument of the sweep: copies[first … first + n - 1] into the frame that starts at `base`. */
struct bpf_sweep_args {
    __u32 first;
    __u32 n;
    __u32 base;   /* element */
    __u32 failed; /* result: how many copies faulted */
};

enum {
    /* Copies of one call: the verifier walks each, and other groups may want their turn between. */
    BPF_SWEEP_CHUNK = 256,
    /* Places that may be looked at for an object; the table is never more than a quarter full. */
    BPF_WANTED_PROBES = 64,
};

/* Fibonacci hashing: objects are far apart, and only the middle bits of an address differ. */
static inline __attribute__((always_inline)) __u32 bpf_wanted_hash(__u64 object)
{
    return (__u32)((object * 0x9e3779b97f4a7c15ull) >> 32);
}
