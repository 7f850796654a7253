/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the files that a process holds to the VMs that it holds: as many as it has distinct open
 * files kvm-vm. What was known of the process before is carried over as far as it still is true, so
 * that a VM that goes on being there goes on being sampled.
 */
#include "internal.h"

#include <string.h>

enum {
    ENDING_S = 60, /* longer than the memory of any VM takes */
};

static const char why_exited[] = "its VMM has exited";

/* A kvm-vm fd (or what stands for one) and the VM it is: equal group, same open file. */
struct key {
    int fd;
    size_t group;
};

struct keys {
    struct discovery *d;
    pid_t pid;
    size_t n, n_groups;
    struct key *keys; /* owned */
};

static void keys_free(struct keys *keys)
{
    free(keys->keys);
}

static int key_compare(const void *a, const void *b, void *context)
{
    const struct key *x = a, *y = b;
    const struct keys *keys = context;
    int order;
    /* A file that cannot be compared counts as one of its own. */
    if (broker_order_files(keys->d->broker, keys->pid, x->fd, keys->pid, y->fd, &order) < 0)
        return (x->fd > y->fd) - (x->fd < y->fd);
    return order;
}

/*
 * A VMM may close its kvm-vm fd and go on with its vCPUs: then one of those stands for the VM.
 * Those of several VMs could not be told apart any more, but nobody does that.
 */
static int keys_collect(struct discovery *d, pid_t pid, const struct kvm_file_list *list,
                        struct keys *ret_keys)
{
    struct keys keys = {.d = d, .pid = pid};
    size_t first_vcpu = list->n;

    keys.keys = calloc(list->n ? list->n : 1, sizeof *keys.keys);
    if (!keys.keys)
        return -ENOMEM;
    for (size_t i = 0; i < list->n; i++) {
        if (list->files[i].kind == KVM_FILE_VM)
            keys.keys[keys.n++].fd = list->files[i].fd;
        else if (list->files[i].kind == KVM_FILE_VCPU && first_vcpu == list->n)
            first_vcpu = i;
    }
    if (keys.n == 0 && first_vcpu < list->n)
        keys.keys[keys.n++].fd = list->files[first_vcpu].fd;
    if (keys.n > 1)
        qsort_r(keys.keys, keys.n, sizeof *keys.keys, key_compare, &keys);
    for (size_t i = 0; i < keys.n; i++) {
        bool same = i > 0 &&
                    broker_same_file(d->broker, pid, keys.keys[i - 1].fd, pid, keys.keys[i].fd) > 0;
        keys.n_groups += !same;
        keys.keys[i].group = keys.n_groups - 1;
    }
    *ret_keys = keys;
    return 0;
}

/* The group of an fd, or n_groups when it is none of the keys. */
static size_t keys_group(const struct keys *keys, int fd)
{
    for (size_t i = 0; i < keys->n; i++) {
        if (keys->keys[i].fd == fd)
            return keys->keys[i].group;
    }
    return keys->n_groups;
}

static int keys_first_fd(const struct keys *keys, size_t group)
{
    for (size_t i = 0; i < keys->n; i++) {
        if (keys->keys[i].group == group)
            return keys->keys[i].fd;
    }
    return -1;
}

/*
 * Which of the VMs held before is which group now: by the fd's number, and where there was one and
 * is one, those two. Holdings that have become one are removed from `vmm`.
 */
static void carry_over(struct discovery *d, struct vmm *vmm, const struct keys *keys,
                       struct holding *now)
{
    bool only_one = vmm->n_holdings == 1 && keys->n_groups == 1;
    size_t left = 0;
    for (size_t i = 0; i < vmm->n_holdings; i++) {
        struct holding *held = &vmm->holdings[i];
        struct found_vm *vm = held->vm;
        size_t group = only_one ? 0 : keys_group(keys, held->fd);
        bool replaced = vm->owner == vmm && attach_is_replaced(d, vm, &vmm->files);
        if (group == keys->n_groups || now[group].vm || replaced)
            vmm->holdings[left++] = *held;
        else
            now[group].vm = vm;
    }
    vmm->n_holdings = left;
}

static void take_creation(struct process *process, struct found_vm *vm)
{
    vm->created_ns = process->creation_ns;
    vm->creator_tid = process->creator_tid;
    process->creation_ns = 0;
    process->creator_tid = 0;
}

/* The VM of a group that was not held before, or is found to be another process' too. */
static int resolve(struct discovery *d, struct process *process, struct holding *holding)
{
    struct vmm *vmm = process->vmm;
    struct found_vm *mine = holding->vm, *other;

    /* What was taken for another process' VM, by a number that had become another file. */
    if (mine && mine->owner != vmm && vms_is_held_by(d, mine, vmm, holding->fd) == 0)
        mine = holding->vm = NULL;
    int r = vms_find(d, vmm->pid, holding->fd, mine, &other);
    if (r < 0)
        return r;
    if (other) {
        holding->vm = other;
        if (process->creation_ns && other->creator_tid == 0)
            take_creation(process, other);
        if (mine)
            vms_unite(d, mine, other, vmm);
        if (other->owner != vmm)
            vms_join(d, other, vmm, holding->fd);
        return 0;
    }
    if (mine) {
        if (mine->owner == vmm && mine->key_fd != holding->fd) {
            d->order_is_doubtful = true;
            vms_set_key(d, mine, vmm, holding->fd);
        }
        return 0;
    }
    r = vms_add(d, vmm, holding->fd, &holding->vm);
    if (r < 0)
        return r;
    take_creation(process, holding->vm);
    return 0;
}

static bool is_held(const struct holding *holdings, size_t n, const struct found_vm *vm)
{
    for (size_t i = 0; i < n; i++) {
        if (holdings[i].vm == vm)
            return true;
    }
    return false;
}

/* The process holds VMs, by vmm->files. Returns 0 or -errno: then it is to be listed again. */
static int take_stock(struct discovery *d, struct process *process)
{
    struct vmm *vmm = process->vmm;
    CLEANUP(keys_free) struct keys keys = {0};
    struct holding *now;
    int r = keys_collect(d, vmm->pid, &vmm->files, &keys);
    if (r < 0)
        return r;
    now = calloc(keys.n_groups + 1, sizeof *now);
    if (!now)
        return -ENOMEM;

    carry_over(d, vmm, &keys, now);
    for (size_t i = 0; i < vmm->n_holdings; i++) {
        /* For a while its number may have been another file. */
        d->order_is_doubtful = true;
        vms_let_go(d, vmm->holdings[i].vm, vmm, "its VMM has closed it");
    }
    free(vmm->holdings);
    vmm->holdings = now;
    vmm->n_holdings = 0;
    for (size_t i = 0; i < keys.n_groups; i++) {
        struct holding holding = {.fd = keys_first_fd(&keys, i), .vm = now[i].vm};
        /* Its number may be gone, but the VM need not be. */
        if (holding.vm && holding.vm->owner == vmm && keys_group(&keys, holding.vm->key_fd) == i)
            holding.fd = holding.vm->key_fd;
        int e = resolve(d, process, &holding);
        if (e < 0)
            r = e;
        /* Files that changed under the look can make two groups one VM: it is held once. */
        if (holding.vm && !is_held(now, vmm->n_holdings, holding.vm))
            now[vmm->n_holdings++] = holding;
    }
    return r;
}

static int become_vmm(struct process *process)
{
    process->vmm = calloc(1, sizeof *process->vmm);
    if (!process->vmm)
        return -ENOMEM;
    process->vmm->pid = process->pid;
    process->vmm->start_ticks = process->start_ticks;
    process->vmm->start_wall_ns = process->start_wall_ns;
    return 0;
}

/*
 * A VMM is who has vCPUs, or who made the VM by the kernel's word: KVM takes orders from the
 * maker's address space alone. (Our kind makes VMs, too, to ask the kernel by, and closes them at
 * once: made and no more counts for nothing.) Whoever else holds a kvm-vm file has been given it (a
 * monitor like us, to keep the VM's memory valid), and whoever holds statistics files alone is
 * another monitor. To take those for VMMs would be worse than noise: two monitors would hold each
 * other's fds, and the VM, for ever.
 */
static bool is_vmm(const struct process *process, const struct kvm_file_list *list)
{
    bool holds_vm = false;
    for (size_t i = 0; i < list->n; i++) {
        if (list->files[i].kind == KVM_FILE_VCPU)
            return true;
        holds_vm = holds_vm || list->files[i].kind == KVM_FILE_VM;
    }
    return holds_vm && (process->n_made || process->gave_vm);
}

static void refresh_owned(struct discovery *d, struct vmm *vmm)
{
    for (size_t i = 0; i < vmm->n_holdings; i++) {
        if (vmm->holdings[i].vm->owner == vmm)
            attach_refresh(d, vmm->holdings[i].vm);
    }
}

int look_add_denied(struct discovery *d, struct process *process, struct found_vm **ret_vm)
{
    int r = process->vmm ? 0 : become_vmm(process);
    if (r < 0)
        return r;
    struct vmm *vmm = process->vmm;
    struct holding *holdings =
        reallocarray(vmm->holdings, vmm->n_holdings + 1, sizeof *vmm->holdings);
    if (!holdings)
        return -ENOMEM;
    vmm->holdings = holdings;
    struct holding *holding = &holdings[vmm->n_holdings];
    holding->fd = -1;
    r = vms_add(d, vmm, -1, &holding->vm);
    if (r < 0)
        return r;
    vmm->n_holdings++;
    take_creation(process, holding->vm);
    *ret_vm = holding->vm;
    return 0;
}

void look_undo_denied(struct discovery *d, const struct found_vm *vm)
{
    struct vmm *vmm = vm->owner;
    for (size_t i = 0; i < vmm->n_holdings; i++) {
        struct holding held = vmm->holdings[i];
        if (held.vm != vm)
            continue;
        vmm->holdings[i] = vmm->holdings[--vmm->n_holdings];
        vms_let_go(d, held.vm, vmm, "its VMM has closed it");
        return;
    }
}

/*
 * We may not see what it holds. BPF may tell, in a pass for all such processes; else, if the kernel
 * has said that it made a VM, there is one.
 */
static int look_denied(struct discovery *d, struct process *process)
{
    struct found_vm *vm;
    int r = 0;
    d->n_denied += !process->denied;
    process->denied = true;
    if (!process->vmm && process->creation_ns == 0)
        return 0;
    if (denied_can_ask(d))
        d->denied_pending = true;
    else if (process->creation_ns != 0)
        r = look_add_denied(d, process, &vm);
    if (r < 0 || !process->vmm)
        return r;
    kvm_file_list_free(&process->vmm->files);
    refresh_owned(d, process->vmm);
    return 0;
}

/*
 * Of an exiting process, files and VMs go before it has ended, and with much memory seconds before.
 * Its VMs have not been closed, then: how it has ended will say what became of them. But one whose
 * first thread alone has exited looks the same, may live on, and may have closed them.
 */
bool look_is_ending(struct discovery *d, struct vmm *vmm)
{
    int64_t now_ns = clock_now_ns();
    struct proc_stat stat;
    bool watched = false;
    for (size_t i = 0; i < vmm->n_holdings; i++) {
        const struct found_vm *vm = vmm->holdings[i].vm;
        watched = watched || (vm->owner == vmm && vm->handle);
    }
    if (!watched || proc_stat_read(d->proc, vmm->pid, &stat) < 0 ||
        stat.start_ticks != vmm->start_ticks || !stat.is_ending)
        return false;
    if (!vmm->ending_ns)
        vmm->ending_ns = now_ns;
    return now_ns - vmm->ending_ns < ENDING_S * NSEC_PER_SEC;
}

static int look_listed(struct discovery *d, struct process *process, struct kvm_file_list *list)
{
    int r = 0;
    d->n_denied -= process->denied;
    process->denied = false;
    if (process->vmm && look_is_ending(d, process->vmm))
        return 0;
    if (!is_vmm(process, list)) {
        /* One that has ended has no fds left, but is still there until it is reaped. */
        d->order_is_doubtful = d->order_is_doubtful || (process->vmm && list->n_fds);
        processes_drop_vmm(d, process, list->n_fds ? "its VMM has closed it" : why_exited);
        return 0;
    }
    if (!process->vmm)
        r = become_vmm(process);
    if (r < 0)
        return r;
    kvm_file_list_free(&process->vmm->files);
    process->vmm->files = *list;
    *list = (struct kvm_file_list){0};
    r = take_stock(d, process);
    refresh_owned(d, process->vmm);
    return r;
}

void look_at_process(struct discovery *d, struct process *process, const struct proc_mark *mark)
{
    CLEANUP(kvm_file_list_free) struct kvm_file_list list = {0};
    struct proc_stat stat;
    int r = 0;

    if (!process->has_start) {
        /* Before the listing: what is listed then belongs to this process or to a later one. */
        r = proc_stat_read(d->proc, process->pid, &stat);
        if (r == 0) {
            process->has_start = true;
            process->start_ticks = stat.start_ticks;
            process->start_wall_ns = stat.start_wall_ns;
        }
    }
    if (r == 0)
        r = broker_list(d->broker, process->pid, &list);
    if (r == -ESRCH) {
        processes_forget(d, process, why_exited);
        return;
    }
    if (r == -EACCES || r == -EPERM)
        r = look_denied(d, process);
    else if (r == 0)
        r = look_listed(d, process, &list);
    /* After a failure of ours it counts as not seen, so that the next rescan tries again. */
    process->listed = r == 0;
    process->mark = *mark;
    process->listed_ns = clock_now_ns();
}
