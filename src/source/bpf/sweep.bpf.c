/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The tick: copies data blocks from where KVM keeps them to where a frame wants them. The addresses
 * stay valid because user space holds a kvm-vm fd of each VM; a wrong one faults and is reported.
 */
#include "maps.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("syscall")
int kvmstatd_sweep(struct bpf_sweep_args *args)
{
    __u32 first = args->first, base = args->base, n = args->n, failed = 0;
    for (__u32 i = 0; i < BPF_SWEEP_CHUNK; i++) {
        if (i >= n)
            break;
        __u32 index = first + i;
        struct bpf_copy *copy = bpf_map_lookup_elem(&copies, &index);
        if (!copy)
            break;
        __u32 element = base + copy->element;
        __u32 bytes = copy->bytes;
        __u64 address = copy->address;
        char *to = bpf_map_lookup_elem(&frames, &element);
        if (!address || !to || bytes > element_bytes)
            continue;
        if (bpf_probe_read_kernel(to, bytes, (void *)address) < 0) {
            copy->failed = 1;
            failed++;
        }
    }
    args->failed = failed;
    return 0;
}
