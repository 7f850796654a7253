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
struct pid_namespace;
struct upid {
    int nr;
    struct pid_namespace *ns;
};
struct pid {
    unsigned int level;
    struct upid numbers[1];
};
struct task_struct___reader {
    struct pid *thread_pid;
};
#pragma clang attribute pop

const volatile __u32 kvm_userspace_pid_offset = 0;
const volatile __u32 vcpu_kvm_offset = 0;
const volatile __u32 vcpu_id_offset = 0;
const volatile __u32 vcpu_pid_offset = 0;

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* A pid's number in the namespace of that level, and which namespace it is. */
static __always_inline struct upid upid_at(struct pid *pid, unsigned int level)
{
    struct upid upid = {0};
    bpf_probe_read_kernel(&upid, sizeof upid, (char *)pid->numbers + level * sizeof upid);
    return upid;
}

/* The thread's number in the pid namespace of who reads the iterator; 0: it has none there. */
static __always_inline int number_for_reader(struct pid *pid)
{
    struct task_struct___reader *reader = (void *)bpf_get_current_task();
    struct pid *ours = 0;
    unsigned int level = 0, theirs = 0;
    bpf_probe_read_kernel(&ours, sizeof ours, &reader->thread_pid);
    if (!ours || bpf_probe_read_kernel(&level, sizeof level, &ours->level) < 0 ||
        bpf_probe_read_kernel(&theirs, sizeof theirs, &pid->level) < 0 || theirs < level)
        return 0;
    struct upid upid = upid_at(pid, level);
    return upid.ns && upid.ns == upid_at(ours, level).ns ? upid.nr : 0;
}

static __always_inline int fill_vcpu(struct bpf_kvm_file *record, char *vcpu)
{
    struct pid *pid = 0;
    record->vcpu = (__u64)vcpu;
    bpf_probe_read_kernel(&record->kvm, sizeof record->kvm, vcpu + vcpu_kvm_offset);
    bpf_probe_read_kernel(&record->vcpu_id, sizeof record->vcpu_id, vcpu + vcpu_id_offset);
    bpf_probe_read_kernel(&pid, sizeof pid, vcpu + vcpu_pid_offset);
    if (pid)
        record->vcpu_tid = number_for_reader(pid);
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
