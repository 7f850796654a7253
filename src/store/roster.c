/* SPDX-License-Identifier: Apache-2.0 */
#include "roster.h"

const char *roster_reason_name(enum unreadable_reason reason)
{
    static const char *const names[UNREADABLE_REASONS] = {
        [UNREADABLE_NOT] = "",
        [UNREADABLE_NO_STATS_FD] = "no_stats_fd",
        [UNREADABLE_AMBIGUOUS] = "ambiguous",
        [UNREADABLE_PERMISSION] = "permission",
        [UNREADABLE_BAD_STATS] = "bad_stats",
        [UNREADABLE_FD_LIMIT] = "fd_limit",
        [UNREADABLE_LIMIT] = "limit",
        [UNREADABLE_UNSAFE_KERNEL] = "unsafe_kernel",
        [UNREADABLE_DISABLED] = "disabled",
    };
    return names[reason];
}

void roster_unref(struct roster *roster)
{
    if (!roster || atomic_fetch_sub_explicit(&roster->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < roster->n_vms; i++) {
        struct roster_vm *vm = &roster->vms[i];
        free(vm->vm);
        free(vm->name);
        free(vm->uuid);
        free(vm->vmm);
        free(vm->machine);
        free(vm->unit);
        free(vm->detail);
    }
    free(roster->vms);
    free(roster);
}

void roster_slot_init(struct roster_slot *slot)
{
    (void)pthread_mutex_init(&slot->lock, NULL);
    slot->current = NULL;
}

void roster_slot_deinit(struct roster_slot *slot)
{
    roster_unref(slot->current);
    slot->current = NULL;
    (void)pthread_mutex_destroy(&slot->lock);
}

void roster_publish(struct roster_slot *slot, struct roster *roster)
{
    (void)pthread_mutex_lock(&slot->lock);
    struct roster *old = slot->current;
    slot->current = roster;
    (void)pthread_mutex_unlock(&slot->lock);
    roster_unref(old);
}

struct roster *roster_get(struct roster_slot *slot)
{
    (void)pthread_mutex_lock(&slot->lock);
    struct roster *roster = slot->current;
    if (roster)
        atomic_fetch_add_explicit(&roster->refs, 1, memory_order_relaxed);
    (void)pthread_mutex_unlock(&slot->lock);
    return roster;
}
