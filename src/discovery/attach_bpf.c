/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BPF: the VM is held by a borrowed kvm-vm file first, its objects are looked up after that, all
 * new VMs' by one pass: so an address is never used that was seen before its VM was held.
 */
#include "attach_internal.h"

#include <string.h>

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
        r = d->fds_exhausted ? -EMFILE
                             : broker_borrow_pin(d->broker, pidfd, attach_key_file(vm), &fd);
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

/* To be read by BPF, from the next pass on. */
void attach_want_blocks(struct discovery *d, struct found_vm *vm, struct trouble *trouble)
{
    if (vm->pin_fd < 0 && attach_pin(d, vm, trouble) < 0)
        return;
    vm->kernel_pending = d->kernel_pending = true;
}

static int add_block(struct discovery *d, struct found_vm *vm, const struct kernel_block *block)
{
    const struct found_target *there = attach_find_target(vm, block->vcpu);
    if (there && (there->source == TARGET_SOURCE_BPF || !attach_prefers_bpf(d->config)))
        return 0;
    const struct schema *schema =
        kernelview_schema(d->kernelview, block->vcpu < 0 ? SCOPE_VM : SCOPE_VCPU);
    int r = d->sink.target_add_bpf(d->sink.ctx, vm->handle, block->vcpu, schema, block->address);
    if (r < 0)
        return r == -EEXIST ? 0 : r;
    attach_note_target(vm, &(struct found_target){
                               .source = TARGET_SOURCE_BPF,
                               .file = {.fd = -1, .vcpu = block->vcpu},
                           });
    d->sink_changed = d->roster_changed = true;
    return 0;
}

static int add_blocks(struct discovery *d, struct found_vm *vm, struct trouble *trouble)
{
    CLEANUP_FREE struct kernel_block *blocks = NULL;
    uint64_t kvm;
    size_t n;

    attach_blame(trouble, UNREADABLE_NO_STATS_FD, "BPF does not find the VM, looking again");
    int r = kernelview_find(d->kernelview, vm->pin_fd, &kvm);
    if (r == 0)
        r = kernelview_blocks(d->kernelview, kvm, &blocks, &n);
    if (r == 0)
        r = attach_make_room(vm, n);
    if (r < 0)
        return r;
    attach_set_vcpus(d, vm, (uint32_t)(n - 1));
    for (size_t i = 0; r == 0 && i < n; i++)
        r = add_block(d, vm, &blocks[i]);
    attach_sort_targets(vm);
    if (r < 0)
        attach_blame_sink(trouble, r);
    return r;
}

void attach_settle(struct discovery *d)
{
    if (!d->kernel_pending)
        return;
    d->kernel_pending = false;
    int r = kernelview_refresh(d->kernelview);
    for (size_t i = 0; i < d->n_vms; i++) {
        struct found_vm *vm = d->vms[i];
        struct trouble trouble = {.reason = UNREADABLE_NOT};
        if (!vm->kernel_pending)
            continue;
        vm->kernel_pending = false;
        if (r < 0)
            attach_blame(&trouble, UNREADABLE_NO_STATS_FD,
                         "BPF cannot look at the kernel's VMs: %s", strerror(-r));
        else
            (void)add_blocks(d, vm, &trouble);
        if (vm->n_targets == 0)
            attach_drop(d, vm);
        else
            trouble = (struct trouble){.reason = UNREADABLE_NOT};
        attach_conclude(d, vm, &trouble);
    }
}
