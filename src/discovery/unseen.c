/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a full look cannot see, and why: said once, and again when it has changed for the better.
 * Silence would be the worst answer to a host whose VMs do not show up.
 */
#include "internal.h"

#include <inttypes.h>

enum {
    /* VMs come and go while a look lasts; what is missing from so many in a row is missing. */
    MISSING_LOOKS = 3,
};

/* VMs of processes whose fds may not be listed: a pass of BPF is cheap, and tells. */
static void say_denied(struct discovery *d)
{
    const char *plural = d->n_denied == 1 ? "" : "es";
    if (!d->n_denied || !attach_looks_at_files(d->config))
        return;
    bool can_ask = denied_can_ask(d);
    d->denied_pending = d->denied_pending || can_ask;
    if (!d->denied_said && can_ask)
        log_info("discovery",
                 "the files of %u process%s may not be listed: VMs there are found and read by "
                 "BPF's pass over all files, which takes longer than reading VMs that can be held; "
                 "that would take CAP_SYS_PTRACE, and kernel.yama.ptrace_scope below 3",
                 d->n_denied, plural);
    else if (!d->denied_said)
        log_warn("discovery",
                 "the files of %u process%s may not be listed, VMs there are found by the "
                 "kernel's events alone and cannot be read: it takes CAP_SYS_PTRACE, and "
                 "kernel.yama.ptrace_scope below 3",
                 d->n_denied, plural);
    d->denied_said = true;
}

static void say_hidden(struct discovery *d)
{
    bool hidden = proc_hides_others(d->proc);
    if (hidden && !d->hidden_said)
        log_warn("discovery",
                 "/proc hides other users' processes (hidepid, ProtectProc): their "
                 "VMs are not seen, and not read though they are handed over; it takes "
                 "CAP_SYS_PTRACE, or ProtectProc=default, or the group of that mount's "
                 "gid= option");
    else if (!hidden && d->hidden_said)
        log_info("discovery", "/proc shows other users' processes again");
    d->hidden_said = hidden;
}

/* The kernel counts its VMs: those of all processes, also of name spaces that we are not in. */
static void say_missing(struct discovery *d)
{
    bool missing = d->kernel_count.vms > 0 && (uint64_t)d->kernel_count.vms > d->n_vms;
    d->missing_looks = missing ? MIN_OF(d->missing_looks + 1, MISSING_LOOKS + 1u) : 0;
    if (d->missing_looks == MISSING_LOOKS)
        log_warn("discovery",
                 "the kernel says that %" PRId64 " VMs are alive, and %zu are seen: the others are "
                 "of processes that are hidden from us or in another PID name space, or are held "
                 "after their VMM's end",
                 d->kernel_count.vms, d->n_vms);
}

void unseen_say(struct discovery *d)
{
    say_denied(d);
    say_hidden(d);
    say_missing(d);
}
