/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stats fds that the VMM has handed over. What was given stays where it is; the sink gets
 * duplicates.
 */
#include "attach_internal.h"

#include <fcntl.h>
#include <string.h>

static bool is_among(const struct kvm_file *files, size_t n, int32_t vcpu)
{
    for (size_t i = 0; i < n; i++) {
        if (files[i].vcpu == vcpu)
            return true;
    }
    return false;
}

/* Whether the target is to be read by what was given from now on. */
static bool is_wanted(struct discovery *d, const struct found_vm *vm, struct ways ways,
                      const struct kvm_file *files, size_t n, int32_t vcpu)
{
    const struct found_target *there = attach_find_target(vm, vcpu);
    bool goes_on = false; /* as it is read now */
    if (!there)
        return true;
    switch (there->source) {
    case TARGET_SOURCE_HANDOFF:
        return false;
    case TARGET_SOURCE_STATSFD:
        goes_on = is_among(files, n, vcpu);
        break;
    case TARGET_SOURCE_BPF:
        goes_on = ways.bpf;
        break;
    case TARGET_SOURCES:
        break;
    }
    return !goes_on || attach_replaces(d, vm, there, TARGET_SOURCE_HANDOFF);
}

static int duplicate(struct discovery *d, struct found_vm *vm, const struct given_file *given,
                     struct borrowed *ret_copy, struct trouble *trouble)
{
    *ret_copy = (struct borrowed){
        .file = {.fd = -1, .vcpu = given->vcpu},
        .fd = d->fds_exhausted ? -1 : fcntl(given->fd, F_DUPFD_CLOEXEC, 0),
    };
    if (ret_copy->fd < 0) {
        int r = d->fds_exhausted ? -EMFILE : -errno;
        (void)attach_is_fatal(d, vm, r, trouble);
        return r;
    }
    int r = attach_open_stats(d, vm, ret_copy, trouble);
    if (r < 0)
        ret_copy->fd = fd_close(ret_copy->fd);
    return r;
}

/* All that is wanted, or nothing when something of ours is short. */
static int duplicate_all(struct discovery *d, struct found_vm *vm, struct ways ways,
                         const struct kvm_file *files, size_t n, struct borrowed *copies,
                         size_t *ret_n, struct trouble *trouble)
{
    const struct given_vm *given = vm->given;
    size_t got = 0;
    for (size_t i = 0; i < given->n; i++) {
        if (!is_wanted(d, vm, ways, files, n, given->files[i].vcpu))
            continue;
        int r = duplicate(d, vm, &given->files[i], &copies[got], trouble);
        if (r == 0)
            got++;
        if (r == 0 || r == -EBADMSG)
            continue; /* a single one that is malformed leaves the others alone */
        while (got-- > 0)
            copies[got].fd = fd_close(copies[got].fd);
        return r;
    }
    *ret_n = got;
    return 0;
}

static int add_vm(struct discovery *d, struct found_vm *vm, struct trouble *trouble)
{
    int pidfd = -1;
    int r = attach_open_owner(d, vm->owner, &pidfd);
    if (r < 0) {
        attach_blame(trouble, UNREADABLE_PERMISSION, "its VMM cannot be watched: %s", strerror(-r));
        (void)attach_is_fatal(d, vm, r, trouble);
        return r;
    }
    return attach_add_vm(d, vm, pidfd, trouble);
}

int attach_given_files(struct discovery *d, struct found_vm *vm, struct ways ways,
                       const struct kvm_file *files, size_t n, struct trouble *trouble)
{
    size_t got = 0;
    int r = 0;
    if (!ways.given)
        return 0;
    CLEANUP_FREE struct borrowed *copies = calloc(vm->given->n, sizeof *copies);
    if (!copies) {
        attach_blame(trouble, UNREADABLE_LIMIT, "out of memory");
        return -ENOMEM;
    }
    if (!vm->handle && d->vms_full) {
        attach_blame(trouble, UNREADABLE_LIMIT, "limits.max_vms VMs are read already");
        return -ENOSPC;
    }
    r = attach_make_safe(d, vm, trouble);
    if (r == 0)
        r = duplicate_all(d, vm, ways, files, n, copies, &got, trouble);
    if (r < 0 || got == 0)
        return r;
    if (!vm->handle)
        r = add_vm(d, vm, trouble);
    if (r == 0)
        return attach_add_targets(d, vm, TARGET_SOURCE_HANDOFF, copies, got, trouble);
    for (size_t i = 0; i < got; i++)
        copies[i].fd = fd_close(copies[i].fd);
    return r;
}

void attach_drop_taken_back(struct discovery *d, struct found_vm *vm)
{
    bool allowed = attach_is_given(d, vm);
    size_t kept = 0;
    for (size_t i = 0; i < vm->n_targets; i++) {
        const struct found_target target = vm->targets[i];
        if (target.source == TARGET_SOURCE_HANDOFF &&
            !(allowed && given_find_file(vm->given, target.file.vcpu))) {
            d->sink.target_remove(d->sink.ctx, vm->handle, target.file.vcpu);
            d->sink_changed = d->roster_changed = true;
        } else {
            vm->targets[kept++] = target;
        }
    }
    vm->n_targets = kept;
}
