/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a VM to its targets. A VM is borrowed whole or not at all where something of ours is short
 * (fds, limits) or forbidden: half a VM's sums would be wrong. So one that comes to have more vCPUs
 * than it may is let go. A single file that is refused leaves the others alone.
 *
 * One vcpu_id is one target, however many stats fds the VMM has for it: it may have duplicated one,
 * or parked the vCPU and plugged it in again (QEMU then has two). As long as the VMM holds the VM,
 * ours reads that vCPU, also when the VMM has closed the one it was borrowed from and has opened
 * another: KVM keeps a vCPU until the VM goes.
 */
#include "attach_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void attach_blame(struct trouble *trouble, enum unreadable_reason reason, const char *format, ...)
{
    va_list args;
    trouble->reason = reason;
    va_start(args, format);
    (void)vsnprintf(trouble->detail, sizeof trouble->detail, format, args);
    va_end(args);
}

void attach_conclude(struct discovery *d, struct found_vm *vm, const struct trouble *trouble)
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

void attach_set_vcpus(struct discovery *d, struct found_vm *vm, uint32_t n)
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

static int file_compare(const void *a, const void *b)
{
    return kvm_file_compare(a, b);
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
        if (kvm_file_is_stats(&list->files[i]))
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

/* A target that no fd stands for any more, or never did. Returns whether it stays. */
static bool keep_without_file(struct discovery *d, struct found_vm *vm,
                              const struct found_target *target, bool by_bpf)
{
    /* What has been taken back goes at the end, when another source has had its chance. */
    if (target->source == TARGET_SOURCE_HANDOFF || (target->source == TARGET_SOURCE_BPF && by_bpf))
        return true;
    d->sink.target_remove(d->sink.ctx, vm->handle, target->file.vcpu);
    d->sink_changed = d->roster_changed = true;
    return false;
}

/*
 * Compares what is read with what there is, both by vcpu_id: what has vanished is let go, and what
 * is new, or could be read by a fd rather than by BPF, is left in `files`, whose number is
 * returned.
 */
static size_t keep_targets(struct discovery *d, struct found_vm *vm, struct kvm_file *files,
                           size_t n, bool by_bpf)
{
    size_t kept = 0, fresh = 0, t = 0;
    for (size_t i = 0; i < n;) {
        size_t length = run_length(files + i, n - i);
        struct kvm_file first = files[i];
        for (; t < vm->n_targets && vm->targets[t].file.vcpu < first.vcpu; t++) {
            if (keep_without_file(d, vm, &vm->targets[t], by_bpf))
                vm->targets[kept++] = vm->targets[t];
        }
        if (t == vm->n_targets || vm->targets[t].file.vcpu != first.vcpu) {
            files[fresh++] = first;
        } else if (vm->targets[t].source != TARGET_SOURCE_STATSFD) {
            const struct found_target *there = &vm->targets[t];
            if ((there->source == TARGET_SOURCE_BPF && !by_bpf) ||
                attach_replaces(d, vm, there, TARGET_SOURCE_STATSFD))
                files[fresh++] = first;
            vm->targets[kept++] = vm->targets[t++];
        } else {
            vm->targets[kept] = vm->targets[t++];
            keep_target(d, vm, &vm->targets[kept++], files + i, length);
        }
        i += length;
    }
    for (; t < vm->n_targets; t++) {
        if (keep_without_file(d, vm, &vm->targets[t], by_bpf))
            vm->targets[kept++] = vm->targets[t];
    }
    vm->n_targets = kept;
    return fresh;
}

/*
 * On a kernel whose stats fds do not keep their VM, they may be read only while we hold the VM by
 * its own file, which does on every kernel. Returns 0, or -errno with *trouble.
 */
int attach_make_safe(struct discovery *d, struct found_vm *vm, struct trouble *trouble)
{
    if (vm->pin_fd >= 0 || d->config->discovery.unsafe_kernel_allow)
        return 0;
    enum stats_fd_safety safety = broker_safety(d->broker);
    if (safety == STATS_FDS_HOLD)
        return 0;
    if (!d->unsafe_said)
        log_warn("discovery", "%s: VMs are read only while their own fd can be held too",
                 safety == STATS_FDS_DO_NOT
                     ? "on this kernel a statistics fd does not keep its VM, so that reading one "
                       "can crash the host"
                     : "it could not be tried whether a statistics fd keeps its VM on this kernel");
    d->unsafe_said = true;
    int r = attach_key_file(vm) || vm->given ? attach_pin(d, vm, trouble) : -EBADF;
    if (r < 0)
        attach_blame(trouble, UNREADABLE_UNSAFE_KERNEL,
                     "reading it could crash this host, whose kernel does not keep a VM for its "
                     "statistics fds, and the VM's own fd cannot be held: %s",
                     strerror(-r));
    return r;
}

static uint32_t count_given(const struct found_vm *vm)
{
    return (uint32_t)(vm->given->n - (given_find_file(vm->given, -1) != NULL));
}

void attach_refresh(struct discovery *d, struct found_vm *vm)
{
    CLEANUP_FREE struct kvm_file *files = NULL;
    struct trouble trouble = {.reason = UNREADABLE_NOT};
    struct ways ways = {0};
    uint32_t n_vcpus = 0;
    size_t n = 0;

    /* With several VMs nobody but BPF knows whose vCPUs they are. */
    if ((vm->owner->n_holdings == 1 && count_vcpus(&vm->owner->files, &n_vcpus) < 0) ||
        collect_stats(&vm->owner->files, &files, &n) < 0)
        return; /* memory is short: as before, for now */
    if (attach_may_read(d, vm, &trouble))
        ways = attach_find_ways(d, vm, &trouble);
    if (ways.given)
        n_vcpus = MAX_OF(n_vcpus, count_given(vm));
    if (!vm->kvm && (!ways.bpf || vm->owner->n_holdings == 1))
        attach_set_vcpus(d, vm, n_vcpus);
    if (!ways.given && !ways.fds && !ways.bpf) {
        attach_drop(d, vm);
        if (trouble.reason == UNREADABLE_DISABLED)
            vm->created_ns = 0; /* it was found: how long it is not wanted is another matter */
        attach_conclude(d, vm, &trouble);
        return;
    }
    bool is_new = !vm->handle;
    if (!ways.fds)
        n = 0;
    int r = attach_given_files(d, vm, ways, files, n, &trouble);
    size_t fresh = keep_targets(d, vm, files, n, ways.bpf);
    if (r == 0 && fresh)
        r = attach_make_safe(d, vm, &trouble);
    if (r == 0 && fresh)
        r = attach_files(d, vm, files, fresh, &trouble);
    bool forbidden =
        trouble.reason == UNREADABLE_PERMISSION || trouble.reason == UNREADABLE_UNSAFE_KERNEL;
    if (attach_is_half(r, is_new) && !(ways.bpf && forbidden)) /* BPF needs no fd */
        attach_drop(d, vm);
    else if (ways.bpf)
        attach_want_blocks(d, vm, &trouble);
    if (vm->kernel_pending)
        return; /* attach_settle() concludes */
    attach_drop_taken_back(d, vm);
    if (vm->n_targets == 0)
        attach_drop(d, vm);
    if (vm->handle)
        trouble = (struct trouble){.reason = UNREADABLE_NOT}; /* with what there is */
    attach_conclude(d, vm, &trouble);
}

int attach_verify(struct discovery *d, const struct found_vm *vm)
{
    const struct kvm_file *key = vm->pin_fd >= 0 ? attach_key_file(vm) : NULL;
    if (key) {
        int r = broker_still_there(d->broker, vm->owner->pid, key, vm->pin_fd);
        if (r <= 0)
            return r;
    }
    for (size_t i = 0; i < vm->n_targets; i++) {
        const struct found_target *target = &vm->targets[i];
        if (target->source != TARGET_SOURCE_STATSFD)
            continue;
        int ours = target->same_open_file ? our_fd(d, vm, target) : -1;
        int r = broker_still_there(d->broker, vm->owner->pid, &target->file, ours);
        if (r <= 0)
            return r;
    }
    return 1;
}

/* We hold the VM's file itself: is it none of the owner's any more? */
static bool pin_is_replaced(struct discovery *d, const struct found_vm *vm, int pin_fd,
                            const struct kvm_file_list *now)
{
    bool others = false;
    for (size_t i = 0; i < now->n; i++) {
        if (kvm_file_is_stats(&now->files[i]))
            continue;
        int r = broker_same_file(d->broker, d->self, pin_fd, vm->owner->pid, now->files[i].fd);
        if (r > 0 || r == -ENOSYS)
            return false;
        others = true;
    }
    return others;
}

bool attach_is_replaced(struct discovery *d, const struct found_vm *vm,
                        const struct kvm_file_list *now)
{
    bool others = false;
    int pin_fd = vm->pin_fd >= 0 || !vm->given ? vm->pin_fd : vm->given->pin_fd;
    if (pin_fd >= 0)
        return pin_is_replaced(d, vm, pin_fd, now);
    for (size_t t = 0; t < vm->n_targets; t++) {
        const struct found_target *target = &vm->targets[t];
        int ours = target->source == TARGET_SOURCE_STATSFD && target->same_open_file
                       ? our_fd(d, vm, target)
                       : -1;
        for (size_t i = 0; ours >= 0 && i < now->n; i++) {
            if (!kvm_file_is_stats(&now->files[i]) || now->files[i].vcpu != target->file.vcpu)
                continue;
            int r = broker_same_file(d->broker, d->self, ours, vm->owner->pid, now->files[i].fd);
            if (r > 0 || r == -ENOSYS)
                return false;
            others = true;
        }
    }
    return others;
}
