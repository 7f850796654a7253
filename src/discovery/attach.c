/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a VM to its targets. A VM is borrowed whole or not at all where something of ours is short
 * (fds, limits) or forbidden: half a VM's sums would be wrong. A single file that is refused leaves
 * the others alone.
 *
 * One vcpu_id is one target, however many stats fds the VMM has for it: it may have duplicated one,
 * or parked the vCPU and plugged it in again (QEMU then has two). As long as the VMM holds the VM,
 * ours reads that vCPU, also when the VMM has closed the one it was borrowed from and has opened
 * another: KVM keeps a vCPU until the VM goes.
 */
#include "internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>

#include "statsfd.h"

enum {
    DETAIL_BYTES = 512,
    ID_BYTES = 64,
    STALE_RETRY_MS = 20,
};

/* What stands in the way. */
struct trouble {
    enum unreadable_reason reason;
    char detail[DETAIL_BYTES];
};

struct borrowed {
    struct kvm_file file;
    const struct schema *schema;
    int fd; /* owned; -1: none */
};

static void PRINTF_LIKE(3, 4)
    blame(struct trouble *trouble, enum unreadable_reason reason, const char *format, ...)
{
    va_list args;
    trouble->reason = reason;
    va_start(args, format);
    (void)vsnprintf(trouble->detail, sizeof trouble->detail, format, args);
    va_end(args);
}

static void conclude(struct discovery *d, struct found_vm *vm, const struct trouble *trouble)
{
    if (vm->reason == trouble->reason && strcmp(vm->detail, trouble->detail) == 0)
        return;
    char *detail = strdup(trouble->detail);
    if (detail) {
        free(vm->detail);
        vm->detail = detail;
    }
    vm->reason = trouble->reason;
    d->roster_changed = true;
}

static bool is_stats(const struct kvm_file *file)
{
    return file->kind == KVM_FILE_VM_STATS || file->kind == KVM_FILE_VCPU_STATS;
}

static int file_compare(const void *a, const void *b)
{
    const struct kvm_file *x = a, *y = b;
    if (x->vcpu != y->vcpu)
        return x->vcpu < y->vcpu ? -1 : 1;
    return (x->fd > y->fd) - (x->fd < y->fd);
}

/* The stats files by vcpu_id, the VM scope (-1) first. */
static int collect_stats(const struct kvm_file_list *list, struct kvm_file **ret_files,
                         size_t *ret_n)
{
    struct kvm_file *files = calloc(list->n ? list->n : 1, sizeof *files);
    size_t n = 0;
    if (!files)
        return -ENOMEM;
    for (size_t i = 0; i < list->n; i++) {
        if (is_stats(&list->files[i]))
            files[n++] = list->files[i];
    }
    qsort(files, n, sizeof *files, file_compare);
    *ret_files = files;
    *ret_n = n;
    return 0;
}

static int int32_compare(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* How many vCPUs the files tell of. Returns 0 or -ENOMEM. */
static int count_vcpus(const struct kvm_file_list *list, uint32_t *ret_n)
{
    CLEANUP_FREE int32_t *ids = calloc(list->n ? list->n : 1, sizeof *ids);
    size_t n = 0;
    uint32_t distinct = 0;
    if (!ids)
        return -ENOMEM;
    for (size_t i = 0; i < list->n; i++) {
        if (list->files[i].kind == KVM_FILE_VCPU)
            ids[n++] = list->files[i].vcpu;
    }
    qsort(ids, n, sizeof *ids, int32_compare);
    for (size_t i = 0; i < n; i++)
        distinct += i == 0 || ids[i] != ids[i - 1];
    *ret_n = distinct;
    return 0;
}

/* --- what may be read at all --- */

static bool source_is_allowed(const struct config *config)
{
    for (size_t i = 0; i < config->discovery.n_sources; i++) {
        if (config->discovery.sources[i] == CONFIG_SOURCE_STATSFD)
            return true;
    }
    return false;
}

static void blame_no_stats(const struct found_vm *vm, struct trouble *trouble)
{
    if (strcmp(vm->identity.vmm, "qemu") == 0)
        blame(trouble, UNREADABLE_NO_STATS_FD,
              "this QEMU keeps no statistics fds open; QEMU 8.1 and later keep those of the vCPUs");
    else
        blame(
            trouble, UNREADABLE_NO_STATS_FD,
            "its VMM keeps no statistics fds open, from which alone it can be read; it would have "
            "to call KVM_GET_STATS_FD and keep what it gets");
}

/* Returns whether there is something to read; else *trouble says why not. */
static bool may_be_read(struct discovery *d, const struct found_vm *vm, struct trouble *trouble)
{
    const struct process *process = processes_find(d, vm->owner->pid);
    const struct kvm_file_list *files = &vm->owner->files;
    char label[DETAIL_BYTES];
    bool has_stats = false;

    for (size_t i = 0; i < files->n; i++)
        has_stats = has_stats || is_stats(&files->files[i]);
    report_label(vm, label, sizeof label);
    if (!config_match(d->config, label, vm->identity.uuid, vm->identity.vmm, vm->identity.unit)
             .enabled)
        blame(trouble, UNREADABLE_DISABLED, "switched off by a rule of the configuration");
    else if (process && process->denied)
        blame(trouble, UNREADABLE_PERMISSION,
              "its VMM's fds may not be listed: run kvmstatd as root or with CAP_SYS_PTRACE");
    else if (!source_is_allowed(d->config))
        blame(trouble, UNREADABLE_NO_STATS_FD,
              "discovery.sources does not allow \"statsfd\", the only way to read it");
    else if (!has_stats)
        blame_no_stats(vm, trouble);
    else if (vm->owner->n_holdings > 1)
        blame(trouble, UNREADABLE_AMBIGUOUS,
              "its process holds %zu VMs, and statistics fds do not say which VM they are of",
              vm->owner->n_holdings);
    else
        return true;
    return false;
}

/* --- borrowing --- */

/* Returns 0 with a pidfd of that very process, or -errno. */
static int open_owner(struct discovery *d, const struct vmm *owner, int *ret_pidfd)
{
    struct proc_stat stat;
    CLEANUP_FD int pidfd = pidfd_open(owner->pid, 0);
    if (pidfd < 0)
        return -errno;
    /* The pid may have been given to another since it was listed; from here on it cannot be. */
    int r = proc_stat_read(d->proc, owner->pid, &stat);
    if (r < 0)
        return r;
    if (stat.start_ticks != owner->start_ticks)
        return -ESRCH;
    *ret_pidfd = steal_fd(&pidfd);
    return 0;
}

/* "kvm-<tid>" or "kvm-<tid>/vcpu-<n>": the thread that made the object. */
static void learn_creator(struct found_vm *vm, const char *id)
{
    int tid;
    if (vm->creator_tid == 0 && sscanf(id, "kvm-%d", &tid) == 1 && tid > 0)
        vm->creator_tid = tid;
}

/*
 * What an error of borrowing means for the whole VM. Returns whether it is the end of the attempt.
 */
static bool is_fatal(struct discovery *d, const struct found_vm *vm, int r, struct trouble *trouble)
{
    switch (r) {
    case -EPERM:
    case -EACCES:
        blame(trouble, UNREADABLE_PERMISSION,
              "its fds may not be borrowed: run kvmstatd as root or with CAP_SYS_PTRACE, and with "
              "kernel.yama.ptrace_scope below 3");
        return true;
    case -EMFILE:
    case -ENFILE:
        d->fds_exhausted = true;
        blame(trouble, UNREADABLE_FD_LIMIT,
              "kvmstatd has no file descriptors left: raise its limit (LimitNOFILE=)");
        return true;
    case -ENOMEM:
        blame(trouble, UNREADABLE_LIMIT, "out of memory");
        return true;
    case -ENOSYS:
        blame(trouble, UNREADABLE_PERMISSION,
              "the kernel has no pidfd_getfd(), or a seccomp filter forbids it");
        return true;
    case -ESRCH:
    case -ESTALE:
        /* What was listed is no longer so: a new listing will tell. */
        looks_add(d, vm->owner->pid, clock_now_ns() + STALE_RETRY_MS * NSEC_PER_MSEC);
        return r == -ESRCH;
    }
    return false;
}

static int borrow(struct discovery *d, struct found_vm *vm, int pidfd, const struct kvm_file *file,
                  struct borrowed *ret_borrowed, struct trouble *trouble)
{
    struct statsfd_error error;
    char id[ID_BYTES];
    const struct schema *schema;
    CLEANUP_FD int fd = -1;

    int r = broker_borrow(d->broker, pidfd, file, &fd);
    if (r < 0) {
        blame(trouble, UNREADABLE_BAD_STATS, "a statistics fd cannot be borrowed: %s",
              strerror(-r));
        return r;
    }
    r = statsfd_open(fd, file->vcpu < 0 ? SCOPE_VM : SCOPE_VCPU, &d->store->schemas, &schema, id,
                     sizeof id, &error);
    if (r < 0) {
        blame(trouble, UNREADABLE_BAD_STATS, "%s", error.message);
        return r;
    }
    learn_creator(vm, id);
    *ret_borrowed = (struct borrowed){.file = *file, .schema = schema, .fd = steal_fd(&fd)};
    return 0;
}

/*
 * Borrows what `wanted` names; ret_borrowed has room for n. Returns 0 when at least one came and
 * nothing fatal happened, else -EAGAIN with *trouble.
 */
static int borrow_all(struct discovery *d, struct found_vm *vm, int pidfd,
                      const struct kvm_file *wanted, size_t n, struct borrowed *ret_borrowed,
                      size_t *ret_n, struct trouble *trouble)
{
    size_t got = 0;
    bool fatal = false;

    blame_no_stats(vm, trouble); /* if every fd turns out to be closed meanwhile */
    for (size_t i = 0; i < n && !fatal; i++) {
        int r = d->fds_exhausted ? -EMFILE
                                 : borrow(d, vm, pidfd, &wanted[i], &ret_borrowed[got], trouble);
        if (r == 0)
            got++;
        else
            fatal = is_fatal(d, vm, r, trouble);
    }
    if (got > 0 && !fatal) {
        *ret_n = got;
        return 0;
    }
    for (size_t i = 0; i < got; i++)
        ret_borrowed[i].fd = fd_close(ret_borrowed[i].fd);
    return -EAGAIN;
}

/* --- handing on --- */

void attach_drop(struct discovery *d, struct found_vm *vm)
{
    if (vm->handle) {
        d->sink.vm_remove(d->sink.ctx, vm->handle);
        d->sink_changed = d->roster_changed = true;
    }
    vm->handle = NULL;
    free(vm->targets);
    vm->targets = NULL;
    vm->n_targets = 0;
}

static int add_vm(struct discovery *d, struct found_vm *vm, int pidfd, struct trouble *trouble)
{
    const struct discovery_vm spec = {
        .name = vm->identity.name,
        .uuid = vm->identity.uuid,
        .vmm = vm->identity.vmm,
        .machine = vm->identity.machine,
        .unit = vm->identity.unit,
        .pid = vm->owner->pid,
        .start_wall_ns = vm->owner->start_wall_ns,
        .created_ns = vm->created_ns,
        .n_vcpus = vm->n_vcpus,
    };
    int r = d->sink.vm_add(d->sink.ctx, &spec, (void *)(uintptr_t)vm->id, pidfd, &vm->handle);
    if (r == -ENOSPC) {
        d->vms_full = true;
        blame(trouble, UNREADABLE_LIMIT, "limits.max_vms VMs are read already");
    } else if (r < 0) {
        blame(trouble, UNREADABLE_LIMIT, "%s", r == -ENOMEM ? "out of memory" : strerror(-r));
    }
    if (r < 0)
        vm->handle = NULL;
    return r;
}

static int target_compare(const void *a, const void *b)
{
    return file_compare(&((const struct found_target *)a)->file,
                        &((const struct found_target *)b)->file);
}

/* Consumes the fds. Returns 0, or -errno with *trouble. */
static int add_targets(struct discovery *d, struct found_vm *vm, struct borrowed *borrowed,
                       size_t n, struct trouble *trouble)
{
    struct found_target *targets = reallocarray(vm->targets, vm->n_targets + n, sizeof *targets);
    int r = targets ? 0 : -ENOMEM;
    if (targets)
        vm->targets = targets;
    for (size_t i = 0; i < n; i++) {
        if (r < 0) {
            borrowed[i].fd = fd_close(borrowed[i].fd);
            continue;
        }
        int fd = steal_fd(&borrowed[i].fd);
        r = d->sink.target_add(d->sink.ctx, vm->handle, borrowed[i].file.vcpu, borrowed[i].schema,
                               TARGET_SOURCE_STATSFD, fd);
        if (r == 0)
            vm->targets[vm->n_targets++] =
                (struct found_target){.file = borrowed[i].file, .same_open_file = true};
        else if (r == -EEXIST)
            r = 0;
    }
    if (targets)
        qsort(vm->targets, vm->n_targets, sizeof *vm->targets, target_compare);
    d->sink_changed = d->roster_changed = true;
    if (r == -ENOSPC)
        blame(trouble, UNREADABLE_LIMIT, "it has more vCPUs than limits.max_vcpus_per_vm");
    else if (r < 0)
        blame(trouble, UNREADABLE_LIMIT, "%s", r == -ENOMEM ? "out of memory" : strerror(-r));
    return r;
}

/* Borrows `wanted` and hands it on; a VM that is new to the sink is added. Returns 0 or -errno. */
static int attach(struct discovery *d, struct found_vm *vm, const struct kvm_file *wanted, size_t n,
                  struct trouble *trouble)
{
    CLEANUP_FREE struct borrowed *borrowed = calloc(n, sizeof *borrowed);
    CLEANUP_FD int pidfd = -1;
    size_t got = 0;

    if (!borrowed) {
        blame(trouble, UNREADABLE_LIMIT, "out of memory");
        return -ENOMEM;
    }
    if (!vm->handle && d->vms_full) {
        blame(trouble, UNREADABLE_LIMIT, "limits.max_vms VMs are read already");
        return -ENOSPC;
    }
    int r = open_owner(d, vm->owner, &pidfd);
    if (r < 0) {
        blame_no_stats(vm, trouble);
        (void)is_fatal(d, vm, r, trouble);
        return r;
    }
    r = borrow_all(d, vm, pidfd, wanted, n, borrowed, &got, trouble);
    if (r < 0)
        return r;
    if (!vm->handle)
        r = add_vm(d, vm, steal_fd(&pidfd), trouble);
    if (r < 0) {
        for (size_t i = 0; i < got; i++)
            borrowed[i].fd = fd_close(borrowed[i].fd);
        return r;
    }
    return add_targets(d, vm, borrowed, got, trouble);
}

/* --- keeping up --- */

static int our_fd(struct discovery *d, const struct found_vm *vm, const struct found_target *target)
{
    return d->sink.target_fd(d->sink.ctx, vm->handle, target->file.vcpu);
}

/* `files[0 … n-1]` are the owner's stats files of this target: which of them is it? */
static void keep_target(struct discovery *d, const struct found_vm *vm, struct found_target *target,
                        const struct kvm_file *files, size_t n)
{
    int ours = our_fd(d, vm, target);
    for (size_t i = 0; i < n && ours >= 0; i++) {
        if (broker_still_there(d->broker, vm->owner->pid, &files[i], ours) > 0) {
            target->file = files[i];
            target->same_open_file = true;
            return;
        }
    }
    target->file = files[0];
    target->same_open_file = false;
}

/* How many of the sorted files are of the same target as the first. */
static size_t run_length(const struct kvm_file *files, size_t n)
{
    size_t length = 1;
    while (length < n && files[length].vcpu == files[0].vcpu)
        length++;
    return length;
}

/*
 * Compares what is read with what there is, both by vcpu_id: what has vanished is let go, and what
 * is new is left in `files`, whose number is returned.
 */
static size_t keep_targets(struct discovery *d, struct found_vm *vm, struct kvm_file *files,
                           size_t n)
{
    size_t kept = 0, fresh = 0, t = 0;
    for (size_t i = 0; i < n;) {
        size_t length = run_length(files + i, n - i);
        struct kvm_file first = files[i];
        for (; t < vm->n_targets && vm->targets[t].file.vcpu < first.vcpu; t++)
            d->sink.target_remove(d->sink.ctx, vm->handle, vm->targets[t].file.vcpu);
        if (t < vm->n_targets && vm->targets[t].file.vcpu == first.vcpu) {
            vm->targets[kept] = vm->targets[t++];
            keep_target(d, vm, &vm->targets[kept++], files + i, length);
        } else {
            files[fresh++] = first;
        }
        i += length;
    }
    for (; t < vm->n_targets; t++)
        d->sink.target_remove(d->sink.ctx, vm->handle, vm->targets[t].file.vcpu);
    if (kept != vm->n_targets)
        d->sink_changed = d->roster_changed = true;
    vm->n_targets = kept;
    return fresh;
}

static void set_vcpus(struct discovery *d, struct found_vm *vm, uint32_t n)
{
    if (vm->n_vcpus == n)
        return;
    vm->n_vcpus = n;
    d->roster_changed = true;
    if (!vm->handle)
        return;
    d->sink.vm_set_vcpus(d->sink.ctx, vm->handle, n);
    d->sink_changed = true;
}

void attach_refresh(struct discovery *d, struct found_vm *vm)
{
    CLEANUP_FREE struct kvm_file *files = NULL;
    struct trouble trouble = {.reason = UNREADABLE_NOT};
    uint32_t n_vcpus = 0;
    size_t n = 0;

    /* With several VMs nobody knows whose vCPUs they are. */
    if ((vm->owner->n_holdings == 1 && count_vcpus(&vm->owner->files, &n_vcpus) < 0) ||
        collect_stats(&vm->owner->files, &files, &n) < 0)
        return; /* memory is short: as before, for now */
    set_vcpus(d, vm, n_vcpus);
    if (!may_be_read(d, vm, &trouble)) {
        attach_drop(d, vm);
        conclude(d, vm, &trouble);
        return;
    }
    bool is_new = !vm->handle;
    size_t fresh = keep_targets(d, vm, files, n);
    int r = fresh ? attach(d, vm, files, fresh, &trouble) : 0;
    if (r < 0 && (is_new || vm->n_targets == 0))
        attach_drop(d, vm);
    if (vm->handle)
        trouble = (struct trouble){.reason = UNREADABLE_NOT}; /* with what there is */
    conclude(d, vm, &trouble);
}

int attach_verify(struct discovery *d, const struct found_vm *vm)
{
    for (size_t i = 0; i < vm->n_targets; i++) {
        const struct found_target *target = &vm->targets[i];
        int ours = target->same_open_file ? our_fd(d, vm, target) : -1;
        int r = broker_still_there(d->broker, vm->owner->pid, &target->file, ours);
        if (r <= 0)
            return r;
    }
    return 1;
}

bool attach_is_replaced(struct discovery *d, const struct found_vm *vm,
                        const struct kvm_file_list *now)
{
    bool others = false;
    for (size_t t = 0; t < vm->n_targets; t++) {
        const struct found_target *target = &vm->targets[t];
        int ours = target->same_open_file ? our_fd(d, vm, target) : -1;
        for (size_t i = 0; ours >= 0 && i < now->n; i++) {
            if (!is_stats(&now->files[i]) || now->files[i].vcpu != target->file.vcpu)
                continue;
            int r = broker_same_file(d->broker, d->self, ours, vm->owner->pid, now->files[i].fd);
            if (r > 0 || r == -ENOSYS)
                return false;
            others = true;
        }
    }
    return others;
}
