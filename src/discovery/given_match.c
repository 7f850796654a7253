/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which VM it is that was given: the VM's own file tells exactly, where it was given along.
 * Otherwise it can only be the one VM of its process.
 */
#include "given_internal.h"

#include <string.h>

static size_t count_unmatched(const struct given *given, const struct given_process *process)
{
    size_t n = 0;
    for (const struct given_vm *vm = given->vms; vm; vm = vm->next)
        n += vm->process == process && !vm->vm;
    return n;
}

static bool key_is_a_vm_file(const struct found_vm *vm)
{
    const struct kvm_file_list *files = &vm->owner->files;
    for (size_t i = 0; i < files->n; i++) {
        if (files->files[i].fd == vm->key_fd)
            return files->files[i].kind == KVM_FILE_VM;
    }
    return false;
}

/* The one VM of its process, if it has one and nothing speaks against it. */
static struct found_vm *find_only_one(const struct given *given, const struct given_vm *vm,
                                      const struct process *process)
{
    const struct vmm *vmm = process->vmm;
    if (!vmm || vmm->n_holdings != 1 || count_unmatched(given, vm->process) != 1)
        return NULL;
    struct found_vm *found = vmm->holdings[0].vm;
    /* The VM's own file has been compared: it is another one. */
    if (found->given || (vm->pin_fd >= 0 && !process->denied && key_is_a_vm_file(found)))
        return NULL;
    return found;
}

/* Its fds may not be listed: by BPF's word, by the kernel's, or because it was given. */
static struct found_vm *find_denied(struct discovery *d, const struct given_vm *vm,
                                    struct process *process)
{
    struct found_vm *found = NULL;
    uint64_t kvm;
    if (vm->pin_fd >= 0 && denied_can_ask(d)) {
        if (kernelview_find(d->kernelview, d->self, vm->pin_fd, &kvm) < 0) {
            d->denied_pending = true; /* the next pass will tell */
            return NULL;
        }
        for (size_t i = 0; i < d->n_vms; i++) {
            if (d->vms[i]->kvm == kvm && !d->vms[i]->given)
                return d->vms[i];
        }
    }
    for (size_t i = 0; process->vmm && i < process->vmm->n_holdings; i++) {
        found = process->vmm->holdings[i].vm;
        if (found->key_fd < 0 && !found->kvm && !found->given)
            return found;
    }
    return look_add_denied(d, process, &found) < 0 ? NULL : found;
}

/* Where their files cannot be compared with the process's own, they still can with each other. */
static bool is_given_already(const struct given *given, const struct given_vm *vm)
{
    const struct given_file *stats = given_find_file(vm, -1);
    for (const struct given_vm *other = given->vms; other; other = other->next) {
        const struct given_file *others = given_find_file(other, -1);
        if (other != vm && other->vm && other->process == vm->process &&
            (given_same_file(given->d, other->pin_fd, vm->pin_fd) ||
             (stats && others && given_same_file(given->d, others->fd, stats->fd))))
            return true;
    }
    return false;
}

static struct found_vm *find_match(struct given *given, struct given_vm *vm)
{
    struct discovery *d = given->d;
    struct found_vm *found = NULL;
    vm->twice = false;
    struct process *process = processes_find(d, vm->process->pid);
    if (!process)
        return NULL;
    if (vm->pin_fd >= 0 && vms_find(d, d->self, vm->pin_fd, NULL, &found) < 0)
        found = NULL;
    if (found) {
        vm->twice = found->given != NULL; /* then the other one serves */
        return vm->twice ? NULL : found;
    }
    vm->twice = is_given_already(given, vm);
    if (vm->twice)
        return NULL;
    found = find_only_one(given, vm, process);
    return found || !process->denied ? found : find_denied(d, vm, process);
}

/* What the VMM calls it counts where nothing else tells. Returns whether it does. */
static bool take_hint(char **name, const char *hint)
{
    char *copy = **name || !*hint ? NULL : strdup(hint);
    if (!copy)
        return false;
    free(*name);
    *name = copy;
    return true;
}

static void match(struct given *given, struct given_vm *vm, struct found_vm *found)
{
    bool named = take_hint(&found->identity.name, vm->name);
    named = take_hint(&found->identity.uuid, vm->uuid) || named;
    /* A name is for a VM's whole life: it begins anew. */
    if (named)
        attach_drop(given->d, found);
    vm->vm = found;
    found->given = vm;
}

/* Whether it is known for certain that its process does not hold that VM. */
static bool is_over(const struct given_vm *vm, const struct process *process)
{
    if (!process || !process->listed || process->denied)
        return false;
    return !process->vmm || (vm->pin_fd >= 0 && !vm->twice);
}

/*
 * A look at its process, unless there was one since this was given. One that has many files is not
 * listed at each of many messages. Returns whether that has been done.
 */
static bool look_for(struct given *given, const struct given_vm *vm)
{
    struct discovery *d = given->d;
    pid_t pid = vm->process->pid;
    struct process *process = processes_get(d, pid);
    bool knew = process && process->gave_vm;
    /* It has made the VM: who only keeps it for others does not hand it over. */
    if (process)
        process->gave_vm = true;
    if (knew && process->listed) {
        int64_t due_ns = looks_earliest_ns(process);
        if (process->listed_ns >= vm->changed_ns)
            return true;
        if (clock_now_ns() < due_ns) {
            looks_add(d, pid, due_ns);
            return false;
        }
    }
    procscan_look(d, pid, true);
    return true;
}

/* Returns whether it is over with it. */
static bool settle_unmatched(struct given *given, struct given_vm *vm)
{
    struct discovery *d = given->d;
    pid_t pid = vm->process->pid;
    struct process *process = processes_find(d, pid);
    struct found_vm *found = process ? find_match(given, vm) : NULL;
    if (!found) {
        if (!look_for(given, vm)) {
            vm->changed = given->changed = true; /* after that look */
            return false;
        }
        found = find_match(given, vm);
        process = processes_find(d, pid);
    }
    if (found) {
        match(given, vm, found);
        return false;
    }
    return is_over(vm, process);
}

void given_settle(struct given *given)
{
    struct given_vm *vm = given->vms;
    if (!given->changed)
        return;
    given->changed = false;
    given->pass++;
    while (vm) {
        if (!vm->changed || vm->pass == given->pass) {
            vm = vm->next;
            continue;
        }
        vm->changed = false;
        vm->pass = given->pass;
        if (!vm->vm && settle_unmatched(given, vm))
            given_free_vm(given, vm); /* its process has no VM at all */
        else if (vm->vm)
            attach_refresh(given->d, vm->vm);
        else if (given->d->denied_pending)
            given_touch(given, vm); /* until BPF has told */
        vm = given->vms;            /* a look may have ended others */
    }
}
