/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VMs of processes whose fds we may not list: without CAP_SYS_PTRACE, BPF still shows which VMs
 * they hold. What is known of such a VM is the address of its kernel object. After it has been
 * closed, another may come to stand there; so who made it has to be the same too, and the kernel's
 * word of its end is taken at once.
 */
#include "attach_internal.h"

bool denied_can_ask(struct discovery *d)
{
    return attach_allows_bpf(d->config) && kernelview_opens(d->kernelview);
}

static struct found_vm *find_holding(const struct vmm *vmm, uint64_t kvm)
{
    for (size_t i = 0; vmm && i < vmm->n_holdings; i++) {
        if (vmm->holdings[i].vm->kvm == kvm)
            return vmm->holdings[i].vm;
    }
    return NULL;
}

/* What was known of it by the kernel's word, or was given, before BPF could be asked. */
static struct found_vm *find_earlier(struct discovery *d, const struct vmm *vmm,
                                     const struct bpf_kvm_file *file)
{
    for (size_t i = 0; vmm && i < vmm->n_holdings; i++) {
        struct found_vm *vm = vmm->holdings[i].vm;
        uint64_t kvm;
        if (vm->key_fd >= 0 || vm->kvm)
            continue;
        if (vm->given ? kernelview_find(d->kernelview, d->self, vm->given->pin_fd, &kvm) == 0 &&
                            kvm == file->kvm
                      : vm->creator_tid == file->owner)
            return vm;
    }
    return NULL;
}

/*
 * The process to which a VM counts: of those that have its vCPUs or made it, the one that made it,
 * else the first. NULL when that is nobody, or somebody whose fds may be listed: then it is found
 * by those.
 */
static struct process *find_owner(struct discovery *d, const struct bpf_kvm_file *files, size_t n)
{
    struct process *owner = NULL;
    for (size_t i = 0; i < n; i++) {
        pid_t pid = (pid_t)files[i].tgid;
        struct process *process = pid == d->self ? NULL : processes_find(d, pid);
        if (!process || process == owner)
            continue;
        bool made_it = pid == files[i].owner || proc_has_thread(d->proc, pid, files[i].owner);
        if (!made_it && !files[i].vcpu)
            continue; /* it has been given the VM: a monitor like us */
        if (!process->denied)
            return NULL;
        if (!owner || made_it)
            owner = process;
    }
    return owner;
}

static void add(struct discovery *d, struct process *process, const struct bpf_kvm_file *file)
{
    struct found_vm *vm = find_earlier(d, process->vmm, file);
    if (!vm && look_add_denied(d, process, &vm) < 0)
        return; /* memory is short: the next pass tries again */
    vm->kvm = file->kvm;
    vm->creator_tid = file->owner;
    attach_refresh(d, vm);
}

/* All files of one VM. */
static void take_vm(struct discovery *d, const struct bpf_kvm_file *files, size_t n)
{
    struct process *process = find_owner(d, files, n);
    if (!process)
        return;
    struct found_vm *vm = find_holding(process->vmm, files->kvm);
    if (vm && vm->creator_tid != files->owner) {
        look_undo_denied(d, vm);
        vm = NULL;
    }
    if (vm)
        attach_refresh(d, vm);
    else
        add(d, process, files);
}

static bool is_there(const struct bpf_kvm_file *files, size_t n, const struct found_vm *vm)
{
    for (size_t i = 0; i < n; i++) {
        if (files[i].kvm == vm->kvm && files[i].tgid == (uint32_t)vm->owner->pid)
            return true;
    }
    return false;
}

void denied_settle(struct discovery *d)
{
    size_t n;
    const struct bpf_kvm_file *files = kernelview_files(d->kernelview, &n);

    for (size_t i = d->n_vms; i-- > 0;) {
        struct found_vm *vm = d->vms[i];
        if (vm->kvm && !is_there(files, n, vm) && !look_is_ending(d, vm->owner))
            look_undo_denied(d, vm);
    }
    for (size_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && files[end].kvm == files[i].kvm;)
            end++;
        take_vm(d, files + i, end - i);
    }
}

/* Of several by one maker the pass tells which it was, by its absence. */
void denied_closed(struct discovery *d, struct found_vm *vm)
{
    unsigned same_maker = 0;
    for (size_t i = 0; i < d->n_vms; i++)
        same_maker +=
            d->vms[i]->kvm && d->vms[i]->creator_tid == vm->creator_tid && !vm_is_held(d->vms[i]);
    if (same_maker == 1 && !look_is_ending(d, vm->owner))
        look_undo_denied(d, vm);
    d->denied_pending = true;
}
