/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Who holds which VM: an iterator over all open files of all processes that tells of those that are
 * KVM's. While the iterator shows a file to the program, that file is referenced, and with it the
 * objects behind it.
 *
 * KVM's own structures may be a module's, whose types the loader of programs cannot resolve without
 * more privilege than this needs: their few offsets come in as constants.
 */
#include "files.bpf.h"
#include "shared.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct upid {
    int nr;
};
struct pid {
    struct upid numbers[1];
};
#pragma clang attribute pop

const volatile __u32 kvm_userspace_pid_offset = 0;
const volatile __u32 vcpu_kvm_offset = 0;
const volatile __u32 vcpu_id_offset = 0;
const volatile __u32 vcpu_pid_offset = 0;

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline int fill_vcpu(struct bpf_kvm_file *record, char *vcpu)
{
    struct pid *pid = 0;
    record->vcpu = (__u64)vcpu;
    bpf_probe_read_kernel(&record->kvm, sizeof record->kvm, vcpu + vcpu_kvm_offset);
    bpf_probe_read_kernel(&record->vcpu_id, sizeof record->vcpu_id, vcpu + vcpu_id_offset);
    bpf_probe_read_kernel(&pid, sizeof pid, vcpu + vcpu_pid_offset);
    if (pid)
        bpf_probe_read_kernel(&record->vcpu_tid, sizeof record->vcpu_tid, &pid->numbers[0].nr);
    return 0;
}

SEC("iter/task_file")
int kvmstatd_discover(struct bpf_iter__task_file *ctx)
{
    struct file *file = ctx->file;
    struct task_struct *task = ctx->task;
    if (!file || !task)
        return 0;
    enum kvm_object kind = kvm_object_of(file);
    if (kind == NO_KVM_OBJECT)
        return 0;

    struct bpf_kvm_file record = {
        .tgid = task->tgid,
        .fd = (__s32)ctx->fd,
        .vcpu_id = -1,
    };
    char *object = file->private_data;
    if (kind == KVM_OBJECT_VM)
        record.kvm = (__u64)object;
    else
        fill_vcpu(&record, object);
    bpf_probe_read_kernel(&record.owner, sizeof record.owner,
                          (char *)record.kvm + kvm_userspace_pid_offset);
    bpf_seq_write(ctx->meta->seq, &record, sizeof record);
    return 0;
}
