/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading the iterator. The offsets inside KVM's structures are looked up here, in user space, and
 * given to the program as constants: a module's BTF is a plain readable file, whereas having the
 * kernel resolve it by id would take CAP_SYS_ADMIN.
 */
#include "bpf.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "discover.skel.h"

struct bpf_source {
    struct discover_bpf *skeleton;
    struct bpf_link *link;
    uint32_t stat_offset[2]; /* by enum scope: of `stat` in struct kvm and struct kvm_vcpu */
};

DEFINE_CLEANUP(struct btf *, btf__free)

static int PRINTF_LIKE(3, 4) refuse(struct bpf_error *error, int r, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(error->message, sizeof error->message, format, args);
    va_end(args);
    return r;
}

/* libbpf writes to standard error by default; what matters comes back as an error. */
static int be_quiet(enum libbpf_print_level level, const char *format, va_list args)
{
    (void)level;
    (void)format;
    (void)args;
    return 0;
}

static int32_t find_struct(const struct btf *btf, const char *name)
{
    return btf__find_by_name_kind(btf, name, BTF_KIND_STRUCT);
}

/* Byte offset of a member that is not inside an anonymous one. Returns 0 or -ENOENT. */
static int member_offset(const struct btf *btf, int32_t type_id, const char *name,
                         uint32_t *ret_offset)
{
    const struct btf_type *type = btf__type_by_id(btf, (uint32_t)type_id);
    const struct btf_member *member = btf_members(type);
    for (uint32_t i = 0; i < btf_vlen(type); i++) {
        if (strcmp(btf__name_by_offset(btf, member[i].name_off), name) == 0) {
            *ret_offset = btf_member_bit_offset(type, i) / 8;
            return 0;
        }
    }
    return -ENOENT;
}

static int look_up(struct bpf_source *source, const struct btf *btf, struct bpf_error *error)
{
    struct discover_bpf__rodata *constants = source->skeleton->rodata;
    int32_t kvm = find_struct(btf, "kvm"), vcpu = find_struct(btf, "kvm_vcpu");
    if (kvm < 0 || vcpu < 0)
        return refuse(error, -ENODEV,
                      "the kernel's type information does not describe KVM: its module is not "
                      "loaded, or was built without BTF");
    uint32_t owner, vcpu_kvm, vcpu_id, vcpu_pid;
    const struct {
        int32_t type;
        const char *name;
        uint32_t *to;
    } members[] = {
        {kvm, "stat", &source->stat_offset[SCOPE_VM]},
        {kvm, "userspace_pid", &owner},
        {vcpu, "stat", &source->stat_offset[SCOPE_VCPU]},
        {vcpu, "kvm", &vcpu_kvm},
        {vcpu, "vcpu_id", &vcpu_id},
        {vcpu, "pid", &vcpu_pid},
    };
    for (size_t i = 0; i < ARRAY_LEN(members); i++) {
        if (member_offset(btf, members[i].type, members[i].name, members[i].to) < 0)
            return refuse(error, -EOPNOTSUPP, "this kernel's struct %s has no member %s",
                          members[i].type == kvm ? "kvm" : "kvm_vcpu", members[i].name);
    }
    constants->kvm_userspace_pid_offset = owner;
    constants->vcpu_kvm_offset = vcpu_kvm;
    constants->vcpu_id_offset = vcpu_id;
    constants->vcpu_pid_offset = vcpu_pid;
    return 0;
}

/* KVM's types are the kernel's own where KVM is built in, the module's where it is one. */
static int find_offsets(struct bpf_source *source, struct bpf_error *error)
{
    CLEANUP(cleanup_btf__free) struct btf *base = btf__parse("/sys/kernel/btf/vmlinux", NULL);
    if (!base)
        return refuse(error, errno == ENOENT ? -EOPNOTSUPP : -errno,
                      "cannot read /sys/kernel/btf/vmlinux: %s; the kernel needs "
                      "CONFIG_DEBUG_INFO_BTF",
                      strerror(errno));
    if (access("/sys/kernel/btf/kvm", F_OK) < 0)
        return look_up(source, base, error);
    CLEANUP(cleanup_btf__free) struct btf *module = btf__parse_split("/sys/kernel/btf/kvm", base);
    if (!module)
        return refuse(error, -errno, "cannot read /sys/kernel/btf/kvm: %s", strerror(errno));
    return look_up(source, module, error);
}

static int load(struct bpf_source *source, struct bpf_error *error)
{
    int r = discover_bpf__load(source->skeleton);
    if (r == -EPERM || r == -EACCES)
        return refuse(error, -EPERM,
                      "the kernel does not let us load BPF programs: run with CAP_BPF and "
                      "CAP_PERFMON, without lockdown=confidentiality");
    if (r < 0)
        return refuse(error, r, "the kernel refuses the discovery program: %s", strerror(-r));
    source->link = bpf_program__attach_iter(source->skeleton->progs.kvmstatd_discover, NULL);
    if (!source->link)
        return refuse(error, -errno, "the kernel has no iterator over open files: %s",
                      strerror(errno));
    return 0;
}

int bpf_source_new(struct bpf_source **ret_source, struct bpf_error *ret_error)
{
    libbpf_set_print(be_quiet);
    CLEANUP(cleanup_bpf_source_free) struct bpf_source *source = calloc(1, sizeof *source);
    if (!source)
        return refuse(ret_error, -ENOMEM, "out of memory");
    source->skeleton = discover_bpf__open();
    if (!source->skeleton)
        return refuse(ret_error, -errno, "cannot open the discovery program: %s", strerror(errno));
    int r = find_offsets(source, ret_error);
    if (r == 0)
        r = load(source, ret_error);
    /* The BTF of a whole kernel took 10 MB of heap, most of which it would keep for good. */
    (void)malloc_trim(0);
    if (r < 0)
        return r;
    *ret_source = steal_ptr(&source);
    return 0;
}

void bpf_source_free(struct bpf_source *source)
{
    if (!source)
        return;
    bpf_link__destroy(source->link);
    discover_bpf__destroy(source->skeleton);
    free(source);
}

/* Reads the iterator to its end; each read() brings whole records. */
static int read_records(int fd, struct bpf_kvm_file **ret_files, size_t *ret_n)
{
    CLEANUP_FREE char *bytes = NULL;
    size_t len = 0, capacity = 0;
    for (;;) {
        if (capacity - len < 64 * sizeof **ret_files) {
            capacity = MAX_OF(2 * capacity, 1024 * sizeof **ret_files);
            char *bigger = realloc(bytes, capacity);
            if (!bigger)
                return -ENOMEM;
            bytes = bigger;
        }
        ssize_t n = read(fd, bytes + len, capacity - len);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue; /* EAGAIN: the pass was long enough, the kernel wants to breathe */
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        len += (size_t)n;
    }
    *ret_n = len / sizeof **ret_files;
    *ret_files = (struct bpf_kvm_file *)(void *)steal_ptr(&bytes);
    return 0;
}

int bpf_source_list(struct bpf_source *source, struct bpf_kvm_file **ret_files, size_t *ret_n)
{
    CLEANUP_FD int fd = bpf_iter_create(bpf_link__fd(source->link));
    return fd < 0 ? -errno : read_records(fd, ret_files, ret_n);
}

uint64_t bpf_source_block(const struct bpf_source *source, enum scope scope,
                          const struct bpf_kvm_file *file)
{
    return (scope == SCOPE_VM ? file->kvm : file->vcpu) + source->stat_offset[scope];
}

void bpf_source_wanted(const struct bpf_source *source, enum scope scope,
                       const struct bpf_kvm_file *file, struct bpf_wanted *ret_wanted)
{
    const struct discover_bpf__rodata *offsets = source->skeleton->rodata;
    *ret_wanted = (struct bpf_wanted){
        .object = scope == SCOPE_VM ? file->kvm : file->vcpu,
        .address = bpf_source_block(source, scope, file),
        .kvm = file->kvm,
        .link = scope == SCOPE_VM ? 0 : file->vcpu + offsets->vcpu_kvm_offset,
        .owner_address = file->kvm + offsets->kvm_userspace_pid_offset,
        .owner = file->owner,
    };
}
