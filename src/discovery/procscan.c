/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which processes to look at. Listing the fds of 1,000 VMMs that hold 110 fds each takes 250 ms
 * (getdents 0.7 µs and readlink 1.6 µs an fd, Linux 6.18), 5 % of a core if done every 5 s;
 * getdents alone takes a third of that and tells nothing that a mark does not. So a rescan reads
 * each process's mark (2.6 µs) and lists only
 *
 *   - processes not seen before,
 *   - VMMs whose number of fds has changed, and VMMs whose known KVM files are no longer what they
 *     were (kcmp(), 0.9 µs each: exact),
 *   - of all others some, in turn, as a budget allows: first those whose mark has changed, then
 *     those listed longest ago. A VM made by any of them has been announced by a uevent; this is
 *     for what a mark cannot show, one fd closed and another opened, and for kernels before 6.2,
 *     where the number of fds is not told. A VMM's number of threads (a QEMU's I/O threads come and
 *     go all the time) and a server's number of connections are no reason to be listed every time.
 */
#include "internal.h"

#include <string.h>

enum {
    /*
     * Fds listed a second for those others: 0.1 % of a core. 1,000 VMMs of 110 fds come round in
     * under 5 minutes, 100 in 30 seconds.
     */
    BUDGET_FDS_PER_SECOND = 400,
    /* Without fd counts it is all there is besides uevents: 1,000 VMMs in 35 s for 0.8 % of a core.
     */
    BUDGET_FDS_PER_SECOND_UNCOUNTED = 3200,
    /* The kernel knows of more VMs than we do: until everybody has been listed once more. */
    BUDGET_FDS_PER_SECOND_SEARCHING = 3200,
    /* What opening a process's fd directory costs, in fds. */
    BUDGET_FDS_PER_LISTING = 4,
    /* What was listed for a reason was listed: its turn is later. But not put off for ever. */
    BUDGET_DEBT_S = 60,
    /* A change of the mark counts as much as not having been listed for that long. */
    CHANGE_AGES_S = 60,
};

/* The first process whose pid is not below. */
static size_t lower_bound(const struct discovery *d, pid_t pid)
{
    size_t low = 0, high = d->n_processes;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (d->processes[middle].pid < pid)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct process *processes_find(struct discovery *d, pid_t pid)
{
    size_t at = lower_bound(d, pid);
    return at < d->n_processes && d->processes[at].pid == pid ? &d->processes[at] : NULL;
}

struct process *processes_get(struct discovery *d, pid_t pid)
{
    size_t at = lower_bound(d, pid);
    if (at < d->n_processes && d->processes[at].pid == pid)
        return &d->processes[at];
    if (d->n_processes == d->processes_capacity) {
        size_t larger = d->processes_capacity ? d->processes_capacity * 2 : 256;
        struct process *processes = reallocarray(d->processes, larger, sizeof *processes);
        if (!processes)
            return NULL;
        d->processes = processes;
        d->processes_capacity = larger;
    }
    memmove(d->processes + at + 1, d->processes + at, (d->n_processes - at) * sizeof *d->processes);
    d->processes[at] = (struct process){.pid = pid};
    d->n_processes++;
    return &d->processes[at];
}

static void vmm_free(struct vmm *vmm)
{
    if (!vmm)
        return;
    kvm_file_list_free(&vmm->files);
    free(vmm->holdings);
    free(vmm);
}

void processes_drop_vmm(struct discovery *d, struct process *process, const char *why)
{
    struct vmm *vmm = process->vmm;
    process->vmm = NULL;
    for (size_t i = 0; vmm && i < vmm->n_holdings; i++)
        vms_let_go(d, vmm->holdings[i].vm, vmm, why);
    vmm_free(vmm);
}

void processes_forget(struct discovery *d, struct process *process, const char *why)
{
    processes_drop_vmm(d, process, why);
    size_t at = (size_t)(process - d->processes);
    d->n_denied -= process->denied;
    d->n_processes--;
    memmove(process, process + 1, (d->n_processes - at) * sizeof *process);
}

void processes_free(struct discovery *d)
{
    for (size_t i = 0; i < d->n_processes; i++)
        vmm_free(d->processes[i].vmm);
    free(d->processes);
}

/* The pid's process as it is now: one that had the pid before is forgotten. NULL: none. */
static struct process *current_process(struct discovery *d, pid_t pid, struct proc_mark *ret_mark)
{
    struct process *process = processes_find(d, pid);
    struct proc_stat stat;

    int r = proc_mark_read(d->proc, pid, ret_mark);
    if (process && r == 0 && process->has_start && process->mark.inode != ret_mark->inode) {
        r = proc_stat_read(d->proc, pid, &stat);
        if (r == 0 && stat.start_ticks != process->start_ticks) {
            processes_forget(d, process, "its VMM has exited");
            process = NULL;
        } else {
            process->mark.inode = ret_mark->inode;
        }
    }
    if (r == -ESRCH && process)
        processes_forget(d, process, "its VMM has exited");
    if (r < 0)
        return NULL;
    return process ? process : processes_get(d, pid);
}

void procscan_look(struct discovery *d, pid_t pid, bool always)
{
    struct proc_mark mark;
    if (pid == d->self)
        return;
    struct process *process = current_process(d, pid, &mark);
    if (!process)
        return;
    bool unchanged = process->listed && d->counts_fds && mark.n_fds == process->mark.n_fds &&
                     mark.n_threads == process->mark.n_threads;
    if (always || !unchanged)
        look_at_process(d, process, &mark);
}

static bool files_are_the_same(struct discovery *d, const struct vmm *vmm)
{
    for (size_t i = 0; i < vmm->n_holdings; i++) {
        struct found_vm *vm = vmm->holdings[i].vm;
        if (vm->owner == vmm && vm->handle && attach_verify(d, vm) <= 0)
            return false;
    }
    return true;
}

struct turn {
    pid_t pid;
    int64_t since_ns; /* when it was listed, or earlier for one that has changed */
    struct proc_mark mark;
};

/*
 * One process of a rescan: looked at now, for which the cost is returned in fds, or written to
 * *ret_turn (its pid is 0 otherwise).
 */
static int64_t rescan_one(struct discovery *d, pid_t pid, bool everything, struct turn *ret_turn)
{
    struct proc_mark mark;
    ret_turn->pid = 0;
    struct process *process = current_process(d, pid, &mark);
    if (!process)
        return 0;

    bool fds_changed = mark.n_fds != process->mark.n_fds;
    bool changed = fds_changed || mark.n_threads != process->mark.n_threads;
    bool now;
    if (d->counts_fds && mark.n_fds == 0 && !process->vmm) {
        /* A kernel thread or a zombie: there is nothing to list. */
        process->mark = mark;
        return 0;
    }
    if (process->vmm)
        now = fds_changed || !files_are_the_same(d, process->vmm);
    else
        now = !process->listed;
    if (now || (everything && (changed || !d->counts_fds))) {
        look_at_process(d, process, &mark);
        return mark.n_fds + BUDGET_FDS_PER_LISTING;
    }
    *ret_turn = (struct turn){
        .pid = pid,
        .since_ns = process->listed_ns - (changed ? CHANGE_AGES_S * NSEC_PER_SEC : 0),
        .mark = mark,
    };
    return 0;
}

static int turn_compare(const void *a, const void *b)
{
    const struct turn *x = a, *y = b;
    return (x->since_ns > y->since_ns) - (x->since_ns < y->since_ns);
}

/* Those that are not urgent, the longest unseen first; what they cost may be owed to the next. */
static void take_turns(struct discovery *d, struct turn *turns, size_t n)
{
    if (d->fds_budget <= 0)
        return;
    qsort(turns, n, sizeof *turns, turn_compare);
    for (size_t i = 0; i < n && d->fds_budget > 0; i++) {
        struct process *process = processes_find(d, turns[i].pid);
        if (!process)
            continue;
        look_at_process(d, process, &turns[i].mark);
        d->fds_budget -= turns[i].mark.n_fds + BUDGET_FDS_PER_LISTING;
    }
}

/* Those in the table of whose pid there is no process any more. */
static void forget_vanished(struct discovery *d, const pid_t *pids, size_t n)
{
    size_t k = n;
    for (size_t i = d->n_processes; i-- > 0;) {
        while (k > 0 && pids[k - 1] > d->processes[i].pid)
            k--;
        if (k == 0 || pids[k - 1] != d->processes[i].pid)
            processes_forget(d, &d->processes[i], "its VMM has exited");
    }
}

/* What failed for want of something may succeed now. */
static void retry(struct discovery *d)
{
    bool bpf_may_work = kernelview_is_due(d->kernelview);
    for (size_t i = 0; i < d->n_vms; i++) {
        enum unreadable_reason reason = d->vms[i]->reason;
        if (reason == UNREADABLE_FD_LIMIT || reason == UNREADABLE_LIMIT ||
            reason == UNREADABLE_PERMISSION || bpf_may_work)
            attach_refresh(d, d->vms[i]);
    }
}

/* VMs may be passed on to a process that never made one, of which no event tells. */
static bool is_searching(struct discovery *d, int64_t now_ns)
{
    if (d->kernel_count.vms < 0 || (uint64_t)d->kernel_count.vms <= d->n_vms) {
        d->searching_since_ns = 0;
        return false;
    }
    if (d->searching_since_ns == 0)
        d->searching_since_ns = now_ns;
    for (size_t i = 0; i < d->n_processes; i++) {
        if (d->processes[i].listed && d->processes[i].listed_ns < d->searching_since_ns)
            return true;
    }
    return false; /* they are where we may not look */
}

/* What may be spent on turns: it grows with the time passed, and what was overspent is owed. */
static void earn_budget(struct discovery *d)
{
    int64_t now_ns = clock_now_ns();
    int64_t passed_ns = d->rescanned_ns ? now_ns - d->rescanned_ns : 0;
    int64_t rate = is_searching(d, now_ns) ? BUDGET_FDS_PER_SECOND_SEARCHING
                   : d->counts_fds         ? BUDGET_FDS_PER_SECOND
                                           : BUDGET_FDS_PER_SECOND_UNCOUNTED;
    int64_t earned = rate * (passed_ns / NSEC_PER_MSEC) / 1000;
    d->fds_budget = MIN_OF(d->fds_budget + earned, earned);
    d->fds_budget = MAX_OF(d->fds_budget, -rate * BUDGET_DEBT_S);
    d->rescanned_ns = now_ns;
}

int procscan_rescan(struct discovery *d, bool everything)
{
    CLEANUP_FREE pid_t *pids = NULL;
    CLEANUP_FREE struct turn *turns = NULL;
    size_t n_pids, n_turns = 0;

    d->fds_exhausted = d->vms_full = false;
    int r = proc_list(d->proc, &pids, &n_pids);
    if (r < 0)
        return r;
    turns = reallocarray(NULL, n_pids + 1, sizeof *turns);
    if (!turns)
        return -ENOMEM;
    earn_budget(d);
    forget_vanished(d, pids, n_pids);
    for (size_t i = 0; i < n_pids; i++) {
        if (pids[i] == d->self)
            continue;
        int64_t cost = rescan_one(d, pids[i], everything, &turns[n_turns]);
        n_turns += turns[n_turns].pid != 0;
        d->fds_budget -= cost;
    }
    take_turns(d, turns, n_turns);
    retry(d);
    return 0;
}
