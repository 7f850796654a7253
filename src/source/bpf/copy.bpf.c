/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The tick where VMs cannot be pinned: walks all open files of all processes and copies the blocks
 * of the objects that are behind them. A file is referenced while it is visited, and with it its
 * vCPU and VM: nothing is read that could have gone. `copies` and `frames` are the sweep's.
 */
#include "files.bpf.h"
#include "maps.bpf.h"

/*
 * Which objects are wanted: a hash table by address, open and with linear probing, that user space
 * fills through its mapping. One of the kernel's would cost a system call an entry.
 */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct bpf_wanted);
} wanted SEC(".maps");

const volatile __u32 wanted_mask = 0;

/* Of the pass: set by user space before it, but for the count. */
__u32 pass_mark = 0;
__u32 pass_base = 0; /* element */
__u32 pass_copied = 0;

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline struct bpf_wanted *find(__u64 object)
{
    __u32 slot = bpf_wanted_hash(object);
    for (__u32 i = 0; i < BPF_WANTED_PROBES; i++, slot++) {
        __u32 key = slot & wanted_mask;
        struct bpf_wanted *entry = bpf_map_lookup_elem(&wanted, &key);
        if (!entry || !entry->object)
            return 0;
        if (entry->object == object)
            return entry;
    }
    return 0;
}

/* Not another VM that has come to stand where the wanted one was: KVM's memory is used again. */
static __always_inline int is_the_one(const struct bpf_wanted *entry)
{
    __u64 kvm = entry->kvm;
    __s32 owner = 0;
    if (entry->link && bpf_probe_read_kernel(&kvm, sizeof kvm, (void *)entry->link) < 0)
        return 0;
    if (kvm != entry->kvm ||
        bpf_probe_read_kernel(&owner, sizeof owner, (void *)entry->owner_address) < 0)
        return 0;
    return owner == entry->owner;
}

static __always_inline void copy_block(const struct bpf_wanted *entry)
{
    __u32 index = entry->index;
    struct bpf_copy *copy = bpf_map_lookup_elem(&copies, &index);
    if (!copy || !copy->bytes || copy->seen == pass_mark || !is_the_one(entry))
        return;
    __u32 element = pass_base + copy->element;
    __u32 bytes = copy->bytes;
    char *to = bpf_map_lookup_elem(&frames, &element);
    if (!to || bytes > element_bytes)
        return;
    /* A pass is long, and may be held up anywhere: each block has its own time. */
    __u64 now_ns = bpf_ktime_get_ns();
    if (bpf_probe_read_kernel(to, bytes, (void *)entry->address) < 0)
        return;
    copy->seen_ns = now_ns;
    copy->seen = pass_mark;
    pass_copied++;
}

SEC("iter/task_file")
int kvmstatd_copy(struct bpf_iter__task_file *ctx)
{
    struct file *file = ctx->file;
    if (!file || kvm_object_of(file) == NO_KVM_OBJECT)
        return 0;
    struct bpf_wanted *entry = find((__u64)file->private_data);
    if (!entry)
        return 0;
    copy_block(entry);
    /* A vCPU holds its VM, whose own file the VMM may have closed. */
    if (entry->link && is_the_one(entry)) {
        entry = find(entry->kvm);
        if (entry)
            copy_block(entry);
    }
    return 0;
}
