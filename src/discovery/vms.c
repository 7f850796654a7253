/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One VM once, however many processes hold it. Which VM a kvm-vm file is, only kcmp() tells, and
 * that for two files at a time. But kcmp() also orders open files, so the table is kept in that
 * order and a VM is found by log2(n) comparisons, 0.9 µs each.
 *
 * The order is by files that other processes may close at any time. A comparison that fails falls
 * back to asking all. A number that has silently become another file misleads a search, so that a
 * VM may come to stand in the table twice: once that number is found out, the table is sorted anew
 * and the two are made one.
 */
#include "internal.h"

#include <string.h>

static int order_to(struct discovery *d, pid_t pid, int fd, const struct found_vm *vm,
                    int *ret_order)
{
    return broker_order_files(d->broker, pid, fd, vm->owner->pid, vm->key_fd, ret_order);
}

/* Returns 0 with the place where the file stands or would stand, or -errno. */
static int search(struct discovery *d, pid_t pid, int fd, size_t *ret_at, bool *ret_equal)
{
    size_t low = 0, high = d->n_ordered;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order;
        int r = order_to(d, pid, fd, d->vms[middle], &order);
        if (r < 0)
            return r;
        if (order == 0) {
            *ret_at = middle;
            *ret_equal = true;
            return 0;
        }
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    *ret_at = low;
    *ret_equal = false;
    return 0;
}

/* The same where some VM's own file cannot be compared: those are passed over. */
static void search_all(struct discovery *d, pid_t pid, int fd, const struct found_vm *except,
                       size_t *ret_at, bool *ret_equal)
{
    size_t at = d->n_ordered;
    for (size_t i = d->n_ordered; i-- > 0;) {
        int order;
        if (d->vms[i] == except || order_to(d, pid, fd, d->vms[i], &order) < 0)
            continue;
        if (order == 0) {
            *ret_at = i;
            *ret_equal = true;
            return;
        }
        if (order < 0)
            at = i;
    }
    *ret_at = at;
    *ret_equal = false;
}

int vms_find(struct discovery *d, pid_t pid, int fd, const struct found_vm *except,
             struct found_vm **ret_vm)
{
    size_t at = 0;
    bool equal = false;
    int order;

    *ret_vm = NULL;
    int r = search(d, pid, fd, &at, &equal);
    if (r == -ENOSYS)
        return 0; /* then each file counts as a VM of its own */
    /* It is not found where it stands itself: its key was another file when it was put there. */
    if (r == 0 && !equal && except && except->in_order)
        d->order_is_doubtful = true;
    if (r == 0 && equal && d->vms[at] == except) {
        /* What is the same file stands beside it. */
        size_t first = at ? at - 1 : 0, last = MIN_OF(at + 1, d->n_ordered - 1);
        equal = false;
        for (size_t i = first; i <= last && !equal; i++) {
            equal = i != at && order_to(d, pid, fd, d->vms[i], &order) == 0 && order == 0;
            if (equal)
                at = i;
        }
    } else if (r < 0) {
        /* Is it this file or that of a VM in the table that cannot be compared? */
        r = broker_order_files(d->broker, pid, fd, pid, fd, &order);
        if (r < 0)
            return r == -EBADF ? -ESRCH : r;
        search_all(d, pid, fd, except, &at, &equal);
    }
    if (equal)
        *ret_vm = d->vms[at];
    return 0;
}

/* The caller has made room. */
static void insert(struct discovery *d, struct found_vm *vm)
{
    size_t at = d->n_vms;
    bool equal = false;
    int order, r = -EBADF;

    if (vm->key_fd >= 0)
        r = broker_order_files(d->broker, vm->owner->pid, vm->key_fd, vm->owner->pid, vm->key_fd,
                               &order);
    vm->in_order = r == 0;
    if (vm->in_order) {
        if (search(d, vm->owner->pid, vm->key_fd, &at, &equal) < 0)
            search_all(d, vm->owner->pid, vm->key_fd, NULL, &at, &equal);
        d->n_ordered++;
    }
    memmove(d->vms + at + 1, d->vms + at, (d->n_vms - at) * sizeof *d->vms);
    d->vms[at] = vm;
    d->n_vms++;
}

static void take_out(struct discovery *d, struct found_vm *vm)
{
    size_t at = 0;
    while (d->vms[at] != vm)
        at++;
    d->n_vms--;
    d->n_ordered -= vm->in_order;
    memmove(d->vms + at, d->vms + at + 1, (d->n_vms - at) * sizeof *d->vms);
}

static void found_vm_free(struct found_vm *vm)
{
    identity_free(&vm->identity);
    free(vm->targets);
    free(vm->detail);
    free(vm->log.label);
    free(vm);
}

/* Memory short: the old identity stays, which may be none. */
static int read_identity(struct discovery *d, struct found_vm *vm, const struct vmm *owner)
{
    struct identity identity;
    int r = identity_read(d->proc, owner->pid, &identity);
    if (r < 0)
        return r;
    identity_free(&vm->identity);
    vm->identity = identity;
    return 0;
}

int vms_add(struct discovery *d, struct vmm *owner, int key_fd, struct found_vm **ret_vm)
{
    if (d->n_vms == d->vms_capacity) {
        size_t larger = d->vms_capacity ? d->vms_capacity * 2 : 64;
        struct found_vm **vms = reallocarray(d->vms, larger, sizeof(struct found_vm *));
        if (!vms)
            return -ENOMEM;
        d->vms = vms;
        d->vms_capacity = larger;
    }
    struct found_vm *vm = calloc(1, sizeof *vm);
    if (!vm)
        return -ENOMEM;
    vm->detail = strdup("");
    if (!vm->detail || read_identity(d, vm, owner) < 0) {
        found_vm_free(vm);
        return -ENOMEM;
    }
    vm->id = ++d->next_vm_id;
    vm->owner = owner;
    vm->key_fd = key_fd;
    vm->pin_fd = -1;
    insert(d, vm);
    d->roster_changed = true;
    *ret_vm = vm;
    return 0;
}

void vms_set_key(struct discovery *d, struct found_vm *vm, struct vmm *owner, int key_fd)
{
    take_out(d, vm);
    if (vm->owner != owner)
        (void)read_identity(d, vm, owner);
    vm->owner = owner;
    vm->key_fd = key_fd;
    vm->kvm = 0; /* it is known by a file now */
    insert(d, vm);
    d->roster_changed = true;
}

struct found_vm *vms_by_id(struct discovery *d, uint64_t id)
{
    for (size_t i = 0; i < d->n_vms; i++) {
        if (d->vms[i]->id == id)
            return d->vms[i];
    }
    return NULL;
}

/* A process's start and pid: what is less is older. */
static bool is_older(const struct vmm *a, const struct vmm *b)
{
    return a->start_ticks != b->start_ticks ? a->start_ticks < b->start_ticks : a->pid < b->pid;
}

static struct vmm *oldest_other_holder(struct discovery *d, const struct found_vm *vm, int *ret_fd)
{
    struct vmm *best = NULL;
    for (size_t i = 0; i < d->n_processes; i++) {
        struct vmm *vmm = d->processes[i].vmm;
        for (size_t k = 0; vmm && vmm != vm->owner && k < vmm->n_holdings; k++) {
            if (vmm->holdings[k].vm == vm && (!best || is_older(vmm, best))) {
                best = vmm;
                *ret_fd = vmm->holdings[k].fd;
            }
        }
    }
    return best;
}

static void hand_over(struct discovery *d, struct found_vm *vm, struct vmm *owner, int fd)
{
    attach_drop(d, vm);
    vms_set_key(d, vm, owner, fd);
    vm->log.said = false;
}

void vms_let_go(struct discovery *d, struct found_vm *vm, struct vmm *vmm, const char *why)
{
    int fd = -1;
    if (vm->owner != vmm)
        return;
    struct vmm *other = oldest_other_holder(d, vm, &fd);
    if (other) {
        hand_over(d, vm, other, fd);
        /* What it held when last listed may be old news: the look decides. */
        looks_add(d, other->pid, clock_now_ns());
        return;
    }
    report_gone(d, vm, why);
    attach_drop(d, vm);
    given_unmatch(d->given, vm);
    take_out(d, vm);
    found_vm_free(vm);
    d->roster_changed = true;
}

/* A VMM has its VM's vCPUs; a monitor that holds VMs, as kvmstatd does, has none. */
static bool runs_vcpus(const struct vmm *vmm)
{
    for (size_t i = 0; i < vmm->files.n; i++) {
        if (vmm->files.files[i].kind == KVM_FILE_VCPU)
            return true;
    }
    return false;
}

void vms_join(struct discovery *d, struct found_vm *vm, struct vmm *vmm, int fd)
{
    bool owner_runs = runs_vcpus(vm->owner);
    if (owner_runs != runs_vcpus(vmm)) {
        if (!owner_runs)
            hand_over(d, vm, vmm, fd);
        return;
    }
    pid_t tid = vm->creator_tid;
    if (tid && proc_has_thread(d->proc, vm->owner->pid, tid))
        return;
    if ((tid && proc_has_thread(d->proc, vmm->pid, tid)) || is_older(vmm, vm->owner))
        hand_over(d, vm, vmm, fd);
}

/* Those of the process's holdings that are `twin` by `vm`'s file; returns that file or -1. */
static int move_holding(struct discovery *d, struct vmm *vmm, const struct found_vm *twin,
                        struct found_vm *vm)
{
    size_t left = 0;
    int fd = -1;
    bool has = false;
    for (size_t i = 0; i < vmm->n_holdings; i++)
        has = has || vmm->holdings[i].vm == vm;
    for (size_t i = 0; i < vmm->n_holdings; i++) {
        struct holding held = vmm->holdings[i];
        if (held.vm == twin && vms_is_held_by(d, vm, vmm, held.fd) > 0) {
            fd = held.fd;
            if (has)
                continue; /* it is held once */
            held.vm = vm;
            has = true;
        }
        vmm->holdings[left++] = held;
    }
    vmm->n_holdings = left;
    return fd;
}

void vms_unite(struct discovery *d, struct found_vm *twin, struct found_vm *vm,
               const struct vmm *looking)
{
    struct vmm *owner = twin->owner;
    bool owner_has_moved = owner == looking;
    int64_t now_ns = clock_now_ns();
    for (size_t i = 0; i < d->n_processes; i++) {
        struct vmm *vmm = d->processes[i].vmm;
        int fd = vmm && vmm != looking ? move_holding(d, vmm, twin, vm) : -1;
        if (fd < 0)
            continue;
        owner_has_moved = owner_has_moved || vmm == owner;
        if (vm->owner != vmm)
            vms_join(d, vm, vmm, fd);
        looks_add(d, vmm->pid, now_ns);
    }
    d->order_is_doubtful = true;
    if (owner_has_moved)
        vms_let_go(d, twin, owner, "it is another process' too");
}

static int vm_compare(const void *a, const void *b, void *context)
{
    const struct found_vm *const *x = a, *const *y = b;
    struct discovery *d = context;
    int order;
    if (order_to(d, (*x)->owner->pid, (*x)->key_fd, *y, &order) < 0)
        return ((*x)->id > (*y)->id) - ((*x)->id < (*y)->id);
    return order;
}

int vms_is_held_by(struct discovery *d, const struct found_vm *vm, const struct vmm *vmm, int fd)
{
    int order;
    int r = order_to(d, vmm->pid, fd, vm, &order);
    return r < 0 ? r : order == 0;
}

/* A process that does not own what it is thought to hold has to hold it all the same. */
static void doubt_holders(struct discovery *d, int64_t now_ns)
{
    for (size_t i = 0; i < d->n_processes; i++) {
        const struct vmm *vmm = d->processes[i].vmm;
        for (size_t k = 0; vmm && k < vmm->n_holdings; k++) {
            const struct holding *holding = &vmm->holdings[k];
            if (holding->vm->owner != vmm && vms_is_held_by(d, holding->vm, vmm, holding->fd) == 0)
                looks_add(d, vmm->pid, now_ns);
        }
    }
}

static bool order_holds(struct discovery *d)
{
    for (size_t i = 1; i < d->n_ordered; i++) {
        int order;
        if (order_to(d, d->vms[i - 1]->owner->pid, d->vms[i - 1]->key_fd, d->vms[i], &order) < 0 ||
            order >= 0)
            return false;
    }
    return true;
}

void vms_settle(struct discovery *d)
{
    int64_t now_ns = clock_now_ns();
    if (!d->order_is_doubtful)
        return;
    d->order_is_doubtful = false;
    if (!order_holds(d))
        qsort_r(d->vms, d->n_ordered, sizeof *d->vms, vm_compare, d);
    for (size_t i = 1; i < d->n_ordered; i++) {
        if (vms_is_held_by(d, d->vms[i - 1], d->vms[i]->owner, d->vms[i]->key_fd) > 0)
            looks_add(d, d->vms[i]->owner->pid, now_ns);
    }
    doubt_holders(d, now_ns);
}

void vms_free(struct discovery *d)
{
    for (size_t i = 0; i < d->n_vms; i++)
        found_vm_free(d->vms[i]);
    free(d->vms);
}
