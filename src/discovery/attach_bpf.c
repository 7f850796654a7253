/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BPF: the VM is held by a borrowed kvm-vm file first, its objects are looked up after that, all
 * new VMs' by one pass: so an address is never used that was seen before its VM was held. A VM
 * that may not be held is read while its files are visited, and by those alone.
 */
#include "attach_internal.h"

#include <fcntl.h>
#include <string.h>

/* The VM's own file: as its VMM gave it, or borrowed. */
static int take_pin(struct discovery *d, const struct found_vm *vm, int pidfd, int *ret_fd)
{
    if (vm->given && vm->given->pin_fd >= 0) {
        *ret_fd = fcntl(vm->given->pin_fd, F_DUPFD_CLOEXEC, 0);
        return *ret_fd < 0 ? -errno : 0;
    }
    return attach_key_file(vm) ? broker_borrow_pin(d->broker, pidfd, attach_key_file(vm), ret_fd)
                               : -EBADF;
}

int attach_pin(struct discovery *d, struct found_vm *vm, struct trouble *trouble)
{
    CLEANUP_FD int pidfd = -1;
    CLEANUP_FD int fd = -1;

    if (!vm->handle && d->vms_full) {
        attach_blame(trouble, UNREADABLE_LIMIT, "limits.max_vms VMs are read already");
        return -ENOSPC;
    }
    attach_blame(trouble, UNREADABLE_PERMISSION, "its VM's own fd cannot be borrowed");
    int r = attach_open_owner(d, vm->owner, &pidfd);
    if (r == 0)
        r = d->fds_exhausted ? -EMFILE : take_pin(d, vm, pidfd, &fd);
    if (r < 0) {
        (void)attach_is_fatal(d, vm, r, trouble);
        return r;
    }
    if (!vm->handle)
        r = attach_add_vm(d, vm, steal_fd(&pidfd), trouble);
    if (r < 0)
        return r;
    vm->pin_fd = fd;
    d->sink.vm_pin(d->sink.ctx, vm->handle, steal_fd(&fd));
    d->sink_changed = d->roster_changed = true;
    return 0;
}

/* Makes a VM known to the sink that cannot be pinned. Returns 0, or -errno with *trouble. */
static int join_unpinned(struct discovery *d, struct found_vm *vm, struct trouble *trouble)
{
    CLEANUP_FD int pidfd = -1;
    if (vm->handle)
        return 0;
    int r = attach_open_owner(d, vm->owner, &pidfd);
    if (r < 0) {
        attach_blame(trouble, UNREADABLE_PERMISSION, "its VMM cannot be watched: %s", strerror(-r));
        (void)attach_is_fatal(d, vm, r, trouble);
        return r;
    }
    return attach_add_vm(d, vm, steal_fd(&pidfd), trouble);
}

/* To be read by BPF, from the next pass on. */
void attach_want_blocks(struct discovery *d, struct found_vm *vm, struct trouble *trouble)
{
    bool can_pin = !vm->kvm || (vm->given && vm->given->pin_fd >= 0);
    int r = vm->pin_fd >= 0 ? 0 : can_pin ? attach_pin(d, vm, trouble) : -EPERM;
    if (attach_is_forbidden(r))
        r = join_unpinned(d, vm, trouble);
    if (r < 0)
        return;
    vm->kernel_pending = d->kernel_pending = true;
}

static int add_block(struct discovery *d, struct found_vm *vm, const struct kernel_block *block)
{
    const struct found_target *there = attach_find_target(vm, block->vcpu);
    bool by_files = vm->pin_fd < 0;
    /* Read by BPF already, but the other way: since, the VM has been pinned, or is no more. */
    bool other_way = there && there->source == TARGET_SOURCE_BPF && there->by_files != by_files;
    if (there && !other_way && !attach_replaces(d, vm, there, TARGET_SOURCE_BPF))
        return 0;
    const struct schema *schema =
        kernelview_schema(d->kernelview, block->vcpu < 0 ? SCOPE_VM : SCOPE_VCPU);
    int r = d->sink.target_add_bpf(d->sink.ctx, vm->handle, block->vcpu, schema, block->address,
                                   by_files ? &block->wanted : NULL);
    if (r < 0)
        return r == -EEXIST ? 0 : r;
    attach_note_target(vm, &(struct found_target){
                               .source = TARGET_SOURCE_BPF,
                               .by_files = by_files,
                               .file = {.fd = -1, .vcpu = block->vcpu},
                           });
    d->sink_changed = d->roster_changed = true;
    return 0;
}

/* Which thread runs the vCPU, if that is news. */
static void tell_thread(struct discovery *d, struct found_vm *vm, const struct kernel_block *block)
{
    struct found_target *target = attach_find_target(vm, block->vcpu);
    if (!target || block->vcpu < 0)
        return;
    vm->lacks_tids = vm->lacks_tids || block->tid <= 0;
    if (block->tid <= 0 || block->tid == target->tid)
        return;
    target->tid = block->tid;
    attach_tell_tid(d, vm, block->vcpu, DISCOVERY_TID_RUNS, block->tid);
}

/* Whether BPF has named a thread of it. */
static bool has_tids(const struct found_vm *vm)
{
    for (size_t i = 0; i < vm->n_targets; i++) {
        if (vm->targets[i].tid)
            return true;
    }
    return false;
}

void attach_ask_for_tids(struct discovery *d)
{
    bool lost = d->sink.tids_lost && d->sink.tids_lost(d->sink.ctx);
    for (size_t i = 0; d->sink.vcpu_tid && i < d->n_vms; i++) {
        struct found_vm *vm = d->vms[i];
        if (vm->handle && (vm->lacks_tids || (lost && has_tids(vm))))
            vm->kernel_pending = d->kernel_pending = true;
    }
}

/* Which VM of the kernel's it is, by the last pass. */
static int find_kvm(struct discovery *d, const struct found_vm *vm, uint64_t *ret_kvm)
{
    if (vm->pin_fd >= 0)
        return kernelview_find(d->kernelview, d->self, vm->pin_fd, ret_kvm);
    if (!vm->kvm)
        return kernelview_find(d->kernelview, vm->owner->pid, vm->key_fd, ret_kvm);
    *ret_kvm = vm->kvm;
    return 0;
}

/* Nobody holds the VM for us: a vCPU without files is one that cannot be read any more. */
static void drop_vanished(struct discovery *d, struct found_vm *vm,
                          const struct kernel_block *blocks, size_t n)
{
    size_t kept = 0, b = 0;
    for (size_t i = 0; i < vm->n_targets; i++) {
        const struct found_target target = vm->targets[i];
        while (b < n && blocks[b].vcpu < target.file.vcpu)
            b++;
        if (target.source == TARGET_SOURCE_BPF && (b == n || blocks[b].vcpu != target.file.vcpu)) {
            d->sink.target_remove(d->sink.ctx, vm->handle, target.file.vcpu);
            d->sink_changed = d->roster_changed = true;
            continue;
        }
        vm->targets[kept++] = target;
    }
    vm->n_targets = kept;
}

static int add_blocks(struct discovery *d, struct found_vm *vm, struct trouble *trouble)
{
    CLEANUP_FREE struct kernel_block *blocks = NULL;
    uint64_t kvm;
    size_t n;

    attach_blame(trouble, UNREADABLE_NO_STATS_FD, "BPF does not find the VM, looking again");
    int r = find_kvm(d, vm, &kvm);
    if (r == 0)
        r = kernelview_blocks(d->kernelview, kvm, &blocks, &n);
    if (r == 0)
        r = attach_make_room(vm, n);
    if (r == -ENOENT && vm->pin_fd < 0)
        drop_vanished(d, vm, NULL, 0);
    if (r < 0)
        return r;
    if (vm->pin_fd < 0)
        drop_vanished(d, vm, blocks, n);
    attach_set_vcpus(d, vm, (uint32_t)(n - 1));
    vm->lacks_tids = false;
    for (size_t i = 0; r == 0 && i < n; i++) {
        r = add_block(d, vm, &blocks[i]);
        if (r == 0)
            tell_thread(d, vm, &blocks[i]);
    }
    attach_sort_targets(vm);
    if (r < 0)
        attach_blame_sink(trouble, r);
    return r;
}

/* The pass has ended well or with `r` < 0: what it has found of the VM is handed on. */
static void settle_vm(struct discovery *d, struct found_vm *vm, int r)
{
    struct trouble trouble = {.reason = UNREADABLE_NOT};
    bool is_new = vm->n_targets == 0;
    vm->kernel_pending = false;
    if (vm->pin_fd < 0 && look_is_ending(d, vm->owner))
        return;
    if (r < 0)
        attach_blame(&trouble, UNREADABLE_NO_STATS_FD, "BPF cannot look at the kernel's VMs: %s",
                     strerror(-r));
    else
        r = add_blocks(d, vm, &trouble);
    attach_drop_taken_back(d, vm);
    if (vm->n_targets == 0 || attach_is_half(r, is_new))
        attach_drop(d, vm);
    else
        trouble = (struct trouble){.reason = UNREADABLE_NOT};
    attach_conclude(d, vm, &trouble);
}

void attach_settle(struct discovery *d)
{
    if (!d->kernel_pending && !d->denied_pending)
        return;
    int r = kernelview_refresh(d->kernelview);
    if (d->denied_pending && r == 0)
        denied_settle(d);
    d->kernel_pending = d->denied_pending = false;
    for (size_t i = 0; i < d->n_vms; i++) {
        if (d->vms[i]->kernel_pending)
            settle_vm(d, d->vms[i], r);
    }
}
