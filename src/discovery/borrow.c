/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stats fds: borrowed from the VMM through a pidfd, so that they are of the process that was
 * listed, and handed on to the sink, which owns them from then on.
 */
#include "attach_internal.h"

#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>

#include "statsfd.h"

enum {
    ID_BYTES = 64,
    STALE_RETRY_MS = 20,
};

/* Returns 0 with a pidfd of that very process, or -errno. */
int attach_open_owner(struct discovery *d, const struct vmm *owner, int *ret_pidfd)
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

/*
 * "kvm-<tid>" or "kvm-<tid>/vcpu-<n>": the thread that made the object, in the initial pid
 * namespace.
 */
static void learn_creator(struct found_vm *vm, struct borrowed *borrowed, const char *id)
{
    int tid;
    if (sscanf(id, "kvm-%d", &tid) != 1 || tid <= 0)
        return;
    borrowed->creator_tid = tid;
    if (vm->creator_tid == 0)
        vm->creator_tid = tid;
}

void attach_tell_tid(struct discovery *d, const struct found_vm *vm, int32_t vcpu,
                     enum discovery_tid what, pid_t tid)
{
    if (!d->sink.vcpu_tid || vcpu < 0 || tid <= 0)
        return;
    d->sink.vcpu_tid(d->sink.ctx, vm->handle, vcpu, what, tid);
    d->sink_changed = true;
}

/*
 * What an error of borrowing means for the whole VM. Returns whether it is the end of the attempt.
 */
bool attach_is_fatal(struct discovery *d, const struct found_vm *vm, int r, struct trouble *trouble)
{
    switch (r) {
    case -EPERM:
    case -EACCES:
        attach_blame(
            trouble, UNREADABLE_PERMISSION,
            "its fds may not be borrowed: run kvmstatd as root or with CAP_SYS_PTRACE, and with "
            "kernel.yama.ptrace_scope below 3");
        return true;
    case -EMFILE:
    case -ENFILE:
        d->fds_exhausted = true;
        attach_blame(trouble, UNREADABLE_FD_LIMIT,
                     "kvmstatd has no file descriptors left: raise its limit (LimitNOFILE=)");
        return true;
    case -ENOMEM:
        attach_blame(trouble, UNREADABLE_LIMIT, "out of memory");
        return true;
    case -ENOSYS:
        attach_blame(trouble, UNREADABLE_PERMISSION,
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

int attach_open_stats(struct discovery *d, struct found_vm *vm, struct borrowed *borrowed,
                      struct trouble *trouble)
{
    struct statsfd_error error;
    char id[ID_BYTES];
    int r = statsfd_open(borrowed->fd, borrowed->file.vcpu < 0 ? SCOPE_VM : SCOPE_VCPU,
                         &d->store->schemas, &borrowed->schema, id, sizeof id, &error);
    if (r < 0) {
        attach_blame(trouble, UNREADABLE_BAD_STATS, "%s", error.message);
        return r;
    }
    learn_creator(vm, borrowed, id);
    return 0;
}

static int borrow(struct discovery *d, struct found_vm *vm, int pidfd, const struct kvm_file *file,
                  struct borrowed *ret_borrowed, struct trouble *trouble)
{
    struct borrowed borrowed = {.file = *file, .fd = -1};
    int r = broker_borrow(d->broker, pidfd, file, &borrowed.fd);
    if (r < 0) {
        attach_blame(trouble, UNREADABLE_BAD_STATS, "a statistics fd cannot be borrowed: %s",
                     strerror(-r));
        return r;
    }
    r = attach_open_stats(d, vm, &borrowed, trouble);
    if (r < 0)
        (void)fd_close(borrowed.fd);
    else
        *ret_borrowed = borrowed;
    return r;
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

    attach_blame_no_stats(d, vm, trouble); /* if every fd turns out to be closed meanwhile */
    for (size_t i = 0; i < n && !fatal; i++) {
        int r = d->fds_exhausted ? -EMFILE
                                 : borrow(d, vm, pidfd, &wanted[i], &ret_borrowed[got], trouble);
        if (r == 0)
            got++;
        else
            fatal = attach_is_fatal(d, vm, r, trouble);
    }
    if (got > 0 && !fatal) {
        *ret_n = got;
        return 0;
    }
    for (size_t i = 0; i < got; i++)
        ret_borrowed[i].fd = fd_close(ret_borrowed[i].fd);
    return -EAGAIN;
}

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
    vm->pin_fd = -1; /* the sink closes it */
    vm->kernel_pending = false;
    vm->lacks_tids = false;
}

int attach_add_vm(struct discovery *d, struct found_vm *vm, int pidfd, struct trouble *trouble)
{
    const struct discovery_vm spec = {
        .name = vm->identity.name,
        .uuid = vm->identity.uuid,
        .vmm = vm->identity.vmm,
        .machine = vm->identity.machine,
        .unit = vm->identity.unit,
        .pid = vm->owner->pid,
        .start_ticks = vm->owner->start_ticks,
        .start_wall_ns = vm->owner->start_wall_ns,
        .created_ns = vm->created_ns,
        .n_vcpus = vm->n_vcpus,
    };
    int r = d->sink.vm_add(d->sink.ctx, &spec, (void *)(uintptr_t)vm->id, pidfd, &vm->handle);
    if (r == -ENOSPC) {
        d->vms_full = true;
        attach_blame(trouble, UNREADABLE_LIMIT, "limits.max_vms VMs are read already");
    } else if (r < 0) {
        attach_blame(trouble, UNREADABLE_LIMIT, "%s",
                     r == -ENOMEM ? "out of memory" : strerror(-r));
    }
    if (r < 0)
        vm->handle = NULL;
    return r;
}

static int target_compare(const void *a, const void *b)
{
    return kvm_file_compare(&((const struct found_target *)a)->file,
                            &((const struct found_target *)b)->file);
}

void attach_sort_targets(struct found_vm *vm)
{
    if (vm->n_targets)
        qsort(vm->targets, vm->n_targets, sizeof *vm->targets, target_compare);
}

struct found_target *attach_find_target(const struct found_vm *vm, int32_t vcpu)
{
    for (size_t i = 0; i < vm->n_targets; i++) {
        if (vm->targets[i].file.vcpu == vcpu)
            return &vm->targets[i];
    }
    return NULL;
}

/* The sink has it: so do we. The caller has made room. */
void attach_note_target(struct found_vm *vm, const struct found_target *target)
{
    struct found_target *there = attach_find_target(vm, target->file.vcpu);
    if (there)
        *there = *target;
    else
        vm->targets[vm->n_targets++] = *target;
}

int attach_make_room(struct found_vm *vm, size_t n)
{
    struct found_target *targets = reallocarray(vm->targets, vm->n_targets + n, sizeof *targets);
    if (!targets)
        return -ENOMEM;
    vm->targets = targets;
    return 0;
}

void attach_blame_sink(struct trouble *trouble, int r)
{
    if (r == -ENOSPC)
        attach_blame(trouble, UNREADABLE_LIMIT, "it has more vCPUs than limits.max_vcpus_per_vm");
    else
        attach_blame(trouble, UNREADABLE_LIMIT, "%s",
                     r == -ENOMEM ? "out of memory" : strerror(-r));
}

int attach_add_targets(struct discovery *d, struct found_vm *vm, enum target_source source,
                       struct borrowed *borrowed, size_t n, struct trouble *trouble)
{
    int r = attach_make_room(vm, n);
    for (size_t i = 0; i < n; i++) {
        if (r < 0) {
            borrowed[i].fd = fd_close(borrowed[i].fd);
            continue;
        }
        int fd = steal_fd(&borrowed[i].fd);
        r = d->sink.target_add(d->sink.ctx, vm->handle, borrowed[i].file.vcpu, borrowed[i].schema,
                               source, fd);
        if (r == 0) {
            attach_note_target(vm, &(struct found_target){
                                       .source = source,
                                       .file = borrowed[i].file,
                                       .same_open_file = true,
                                   });
            attach_tell_tid(d, vm, borrowed[i].file.vcpu, DISCOVERY_TID_MADE,
                            borrowed[i].creator_tid);
        } else if (r == -EEXIST) {
            r = 0;
        }
    }
    attach_sort_targets(vm);
    d->sink_changed = d->roster_changed = true;
    if (r < 0)
        attach_blame_sink(trouble, r);
    return r;
}

/* Borrows `wanted` and hands it on; a VM that is new to the sink is added. Returns 0 or -errno. */
int attach_files(struct discovery *d, struct found_vm *vm, const struct kvm_file *wanted, size_t n,
                 struct trouble *trouble)
{
    CLEANUP_FREE struct borrowed *borrowed = calloc(n, sizeof *borrowed);
    CLEANUP_FD int pidfd = -1;
    size_t got = 0;

    if (!borrowed) {
        attach_blame(trouble, UNREADABLE_LIMIT, "out of memory");
        return -ENOMEM;
    }
    if (!vm->handle && d->vms_full) {
        attach_blame(trouble, UNREADABLE_LIMIT, "limits.max_vms VMs are read already");
        return -ENOSPC;
    }
    int r = attach_open_owner(d, vm->owner, &pidfd);
    if (r < 0) {
        attach_blame_no_stats(d, vm, trouble);
        (void)attach_is_fatal(d, vm, r, trouble);
        return r;
    }
    r = borrow_all(d, vm, pidfd, wanted, n, borrowed, &got, trouble);
    if (r < 0)
        return r;
    if (!vm->handle)
        r = attach_add_vm(d, vm, steal_fd(&pidfd), trouble);
    if (r < 0) {
        for (size_t i = 0; i < got; i++)
            borrowed[i].fd = fd_close(borrowed[i].fd);
        return r;
    }
    return attach_add_targets(d, vm, TARGET_SOURCE_STATSFD, borrowed, got, trouble);
}
