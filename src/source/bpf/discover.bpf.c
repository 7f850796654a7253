/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Who holds which VM: an iterator over all open files of all processes that tells of those that are
 * KVM's. While the iterator shows a file to the program, that file is referenced, and with it the
 * objects behind it.
 *
 * KVM's own structures may be a module's, whose types the loader of programs cannot resolve without
 * more privilege than this needs: their few offsets come in as constants.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "shared.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct super_block {
    unsigned long s_magic;
};
struct inode {
    struct super_block *i_sb;
};
struct qstr {
    const unsigned char *name;
};
struct dentry {
    struct qstr d_name;
};
struct path {
    struct dentry *dentry;
};
struct file {
    struct path f_path;
    struct inode *f_inode;
    void *private_data;
};
struct task_struct {
    int tgid;
};
struct seq_file;
struct bpf_iter_meta {
    struct seq_file *seq;
};
struct bpf_iter__task_file {
    struct bpf_iter_meta *meta;
    struct task_struct *task;
    __u32 fd;
    struct file *file;
};
struct upid {
    int nr;
};
struct pid {
    struct upid numbers[1];
};
#pragma clang attribute pop

/* include/uapi/linux/magic.h. Names of anonymous inodes are the kernel's own: nobody can forge
 * them. */
#define ANON_INODE_FS_MAGIC 0x09041934

const volatile __u32 kvm_userspace_pid_offset = 0;
const volatile __u32 vcpu_kvm_offset = 0;
const volatile __u32 vcpu_id_offset = 0;
const volatile __u32 vcpu_pid_offset = 0;

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline int is_kvm(const char name[16])
{
    return name[0] == 'k' && name[1] == 'v' && name[2] == 'm' && name[3] == '-';
}

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
    char name[16] = {0};
    if (!file || !task || file->f_inode->i_sb->s_magic != ANON_INODE_FS_MAGIC)
        return 0;
    if (bpf_probe_read_kernel_str(name, sizeof name, file->f_path.dentry->d_name.name) < 0 ||
        !is_kvm(name))
        return 0;

    struct bpf_kvm_file record = {
        .tgid = task->tgid,
        .fd = (__s32)ctx->fd,
        .vcpu_id = -1,
    };
    char *object = file->private_data;
    if (name[4] == 'v' && name[5] == 'm' && name[6] == 0)
        record.kvm = (__u64)object;
    else if (name[4] == 'v' && name[5] == 'c' && name[6] == 'p' && name[7] == 'u' && name[8] == ':')
        fill_vcpu(&record, object);
    else
        return 0; /* stats fds, devices, guest_memfd */
    bpf_probe_read_kernel(&record.owner, sizeof record.owner,
                          (char *)record.kvm + kvm_userspace_pid_offset);
    bpf_seq_write(ctx->meta->seq, &record, sizeof record);
    return 0;
}
