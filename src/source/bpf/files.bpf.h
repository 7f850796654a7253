/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the programs that walk all open files know of the kernel, and how they tell KVM's files. */
#pragma once

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

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
#pragma clang attribute pop

/* include/uapi/linux/magic.h. Names of anonymous inodes are the kernel's own: nobody can forge
 * them. */
#define ANON_INODE_FS_MAGIC 0x09041934

enum kvm_object {
    NO_KVM_OBJECT, /* also stats fds, devices, guest_memfd */
    KVM_OBJECT_VM,
    KVM_OBJECT_VCPU,
};

/* Which of KVM's objects is behind the file's private_data. */
static __always_inline enum kvm_object kvm_object_of(struct file *file)
{
    char name[16] = {0};
    if (file->f_inode->i_sb->s_magic != ANON_INODE_FS_MAGIC)
        return NO_KVM_OBJECT;
    if (bpf_probe_read_kernel_str(name, sizeof name, file->f_path.dentry->d_name.name) < 0 ||
        name[0] != 'k' || name[1] != 'v' || name[2] != 'm' || name[3] != '-')
        return NO_KVM_OBJECT;
    if (name[4] == 'v' && name[5] == 'm' && name[6] == 0)
        return KVM_OBJECT_VM;
    if (name[4] == 'v' && name[5] == 'c' && name[6] == 'p' && name[7] == 'u' && name[8] == ':')
        return KVM_OBJECT_VCPU;
    return NO_KVM_OBJECT;
}
