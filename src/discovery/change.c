/* SPDX-License-Identifier: Apache-2.0 */
/*
 * New configurations: what can fail is prepared on the thread that wants the change, so that it can
 * be called off; the thread of discovery takes it over at its next turn. Of several that come
 * before that, only the last counts.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "attach_internal.h"
#include "given.h"
#include "handoff_socket.h"

struct discovery_change {
    struct config *config; /* a reference */
    struct handoff_prepared handoff;
};

void discovery_wake(struct discovery *d)
{
    uint64_t one = 1;
    ssize_t n = write(d->wake_fd, &one, sizeof one);
    (void)n; /* EAGAIN: it is awake */
}

void discovery_change_free(struct discovery_change *change)
{
    if (!change)
        return;
    handoff_prepared_free(&change->handoff);
    config_unref(change->config);
    free(change);
}

int discovery_prepare(const struct discovery *d, const struct config *former, struct config *config,
                      struct discovery_change **ret_change, struct config_error *ret_error)
{
    CLEANUP(cleanup_discovery_change_free)
    struct discovery_change *change = calloc(1, sizeof *change);
    if (!change) {
        (void)snprintf(ret_error->message, sizeof ret_error->message, "discovery: out of memory");
        return -ENOMEM;
    }
    change->config = config_ref(config);
    change->handoff = HANDOFF_PREPARED_INIT;
    int r = given_prepare(d->given, former, config, &change->handoff, ret_error);
    if (r < 0)
        return r;
    *ret_change = steal_ptr(&change);
    return 0;
}

void discovery_adopt(struct discovery *d, struct discovery_change *change)
{
    struct discovery_change *missed = atomic_exchange(&d->change, NULL);
    /* A socket that was opened for a configuration nobody has seen is still the right one. */
    if (missed && change->handoff.socket.fd < 0 &&
        strcmp(missed->config->handoff.socket, change->config->handoff.socket) == 0) {
        change->handoff.socket = missed->handoff.socket;
        missed->handoff.socket = HANDOFF_SOCKET_INIT;
    }
    discovery_change_free(missed);
    atomic_store(&d->change, change);
    discovery_wake(d);
}

/* --- on the thread of discovery --- */

/* Limits are for those that come: nobody is cut off for one that was lowered. */
static void say_what_stays(const struct discovery *d, const struct config *config)
{
    uint32_t n_read = 0, n_large = 0;
    for (size_t i = 0; i < d->n_vms; i++) {
        n_read += d->vms[i]->handle != NULL;
        n_large += d->vms[i]->handle && d->vms[i]->n_targets > config->limits.max_vcpus_per_vm + 1;
    }
    if (n_read > config->limits.max_vms)
        log_warn("discovery",
                 "limits.max_vms is lower than the %" PRIu32 " VMs that are read: "
                 "they stay, and no others come before they have gone",
                 n_read);
    if (n_large)
        log_warn("discovery",
                 "limits.max_vcpus_per_vm is lower than what %" PRIu32 " VMs have: "
                 "their vCPUs are read further",
                 n_large);
}

/* What was read at the operator's risk is not any more, where that is one. */
static void drop_unsafe(struct discovery *d)
{
    for (size_t i = 0; i < d->n_vms; i++) {
        struct found_vm *vm = d->vms[i];
        bool by_file = false;
        for (size_t j = 0; j < vm->n_targets; j++)
            by_file = by_file || vm->targets[j].source != TARGET_SOURCE_BPF;
        if (vm->handle && by_file && vm->pin_fd < 0 && broker_safety(d->broker) != STATS_FDS_HOLD)
            attach_drop(d, vm);
    }
}

void discovery_take_change(struct discovery *d)
{
    CLEANUP(cleanup_discovery_change_free)
    struct discovery_change *change = atomic_exchange(&d->change, NULL);
    if (!change)
        return;
    struct config *former = d->config, *config = config_ref(change->config);
    d->config = config;
    given_set_config(d->given, config, &change->handoff);
    d->sink.set_config(d->sink.ctx, config);
    d->fds_exhausted = d->vms_full = false;
    if (former->discovery.unsafe_kernel_allow && !config->discovery.unsafe_kernel_allow)
        drop_unsafe(d);
    for (size_t i = 0; i < d->n_vms; i++)
        attach_refresh(d, d->vms[i]);
    say_what_stays(d, config);
    d->sink_changed = d->roster_changed = true;
    d->rescan_due_ns = d->rescanned_ns + config->discovery.rescan_ns;
    config_unref(former);
}
