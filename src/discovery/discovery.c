/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The thread: it waits for the kernel's events, the sampler's, and for the time of the next look;
 * after each round what has changed is handed on once.
 */
#include "internal.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

/*
 * When to look at a process after the kernel has said that it made a VM. The event comes before the
 * VMM has the VM's fd; vCPUs and stats fds follow as the VMM likes.
 */
static const int64_t look_delays_ns[] = {
    5 * NSEC_PER_MSEC,
    20 * NSEC_PER_MSEC,
    100 * NSEC_PER_MSEC,
    500 * NSEC_PER_MSEC,
};

enum {
    EVENTS_AT_ONCE = 8,
    UEVENTS_AT_ONCE = 4096, /* before the looks get their turn */
    /*
     * At most: a layout and a roster of 1,000 VMs take a few milliseconds to make, and a VM that is
     * started comes in pieces.
     */
    HAND_ON_EVERY_MS = 100,
    /* After events were lost, or one that names no process: soon, but not for each of many. */
    HURRY_MS = 100,
    HURRY_AT_MOST_EVERY_MS = 1000,
    LISTING_NS_PER_FD = 2500, /* see procscan.c */
    LOOK_SHARE = 20,          /* 5 % of a core for one process */
    LOOK_ROUNDS_MAX = 8, /* that one look causes another, before the thread has begun to wait */
    RETRY_MS = 1000,     /* after memory was short */
};

/* --- looks --- */

static struct look *looks_find(struct discovery *d, pid_t pid)
{
    for (size_t i = 0; i < d->n_looks; i++) {
        if (d->looks[i].pid == pid)
            return &d->looks[i];
    }
    return NULL;
}

static struct look *looks_get(struct discovery *d, pid_t pid)
{
    struct look *look = looks_find(d, pid);
    if (look)
        return look;
    if (d->n_looks == d->looks_capacity) {
        size_t larger = d->looks_capacity ? d->looks_capacity * 2 : 64;
        struct look *looks = reallocarray(d->looks, larger, sizeof *looks);
        if (!looks)
            return NULL; /* the next rescan will find it */
        d->looks = looks;
        d->looks_capacity = larger;
    }
    look = &d->looks[d->n_looks++];
    *look = (struct look){
        .pid = pid,
        .stage = ARRAY_LEN(look_delays_ns),
        .due_ns = INT64_MAX,
    };
    return look;
}

void looks_add(struct discovery *d, pid_t pid, int64_t due_ns)
{
    struct look *look = looks_get(d, pid);
    if (look)
        look->due_ns = MIN_OF(look->due_ns, due_ns);
}

bool looks_pending(const struct discovery *d, pid_t pid)
{
    for (size_t i = 0; i < d->n_looks; i++) {
        if (d->looks[i].pid == pid)
            return true;
    }
    return false;
}

/*
 * A process that makes VMs without end is not listed without end: between two listings it has
 * LOOK_SHARE times what one costs.
 */
int64_t looks_earliest_ns(const struct process *process)
{
    int64_t rest_ns = (int64_t)process->mark.n_fds * LISTING_NS_PER_FD * LOOK_SHARE;
    return process->listed ? process->listed_ns + rest_ns : 0;
}

static void looks_start(struct discovery *d, const struct process *process, int64_t event_ns)
{
    struct look *look = looks_get(d, process->pid);
    if (!look)
        return;
    look->stage = 0;
    look->event_ns = event_ns;
    look->due_ns = MIN_OF(look->due_ns, event_ns + look_delays_ns[0]);
    look->due_ns = MAX_OF(look->due_ns, looks_earliest_ns(process));
}

static int64_t looks_next_due(const struct discovery *d)
{
    int64_t due_ns = INT64_MAX;
    for (size_t i = 0; i < d->n_looks; i++)
        due_ns = MIN_OF(due_ns, d->looks[i].due_ns);
    return due_ns;
}

/* The last look at a process for now: what the kernel said is of no use for later VMs. */
static void looks_end(struct discovery *d, struct look *look)
{
    pid_t pid = look->pid;
    *look = d->looks[--d->n_looks];
    procscan_look(d, pid, true);
    struct process *process = processes_find(d, pid);
    if (process)
        process->creation_ns = process->creator_tid = 0;
    d->log_due = true; /* it has settled */
}

static void looks_run(struct discovery *d, int64_t now_ns)
{
    for (size_t i = 0; i < d->n_looks;) {
        struct look *look = &d->looks[i];
        if (look->due_ns > now_ns) {
            i++;
            continue;
        }
        bool first = look->stage == 0;
        while (look->stage < ARRAY_LEN(look_delays_ns) &&
               look->event_ns + look_delays_ns[look->stage] <= now_ns)
            look->stage++;
        if (look->stage == ARRAY_LEN(look_delays_ns)) {
            looks_end(d, look);
            i = 0; /* the table has changed under us */
            continue;
        }
        look->due_ns = look->event_ns + look_delays_ns[look->stage];
        procscan_look(d, look->pid, first);
        i++;
    }
    vms_settle(d);
}

/* --- events --- */

static void hurry(struct discovery *d)
{
    int64_t soon_ns = clock_now_ns() + HURRY_MS * NSEC_PER_MSEC;
    soon_ns = MAX_OF(soon_ns, d->rescanned_ns + HURRY_AT_MOST_EVERY_MS * NSEC_PER_MSEC);
    d->rescan_due_ns = MIN_OF(d->rescan_due_ns, soon_ns);
}

static void vm_created(struct discovery *d, const struct uevent *event)
{
    pid_t tgid;
    int64_t now_ns = clock_now_ns();
    bool is_known = event->tid > 0 && proc_tgid(d->proc, event->tid, &tgid) == 0;
    if (is_known && tgid == d->self)
        return;
    kernelview_hurry(d->kernelview);
    if (!is_known) {
        hurry(d); /* its thread is gone, or we are in another PID name space */
        return;
    }
    struct process *process = processes_get(d, tgid);
    if (!process)
        return;
    process->n_made++;
    process->creation_ns = now_ns;
    process->creator_tid = event->tid;
    looks_start(d, process, now_ns);
}

/* One of a VMM's VMs is no more: none that is held by us. */
static void vm_destroyed(struct discovery *d, const struct uevent *event)
{
    pid_t tgid;
    struct process *maker = event->tid > 0 && proc_tgid(d->proc, event->tid, &tgid) == 0
                                ? processes_find(d, tgid)
                                : NULL;
    if (maker && maker->n_made)
        maker->n_made--;
    for (size_t i = 0; i < d->n_vms; i++) {
        struct found_vm *vm = d->vms[i];
        bool may_be = vm->creator_tid == event->tid && !vm_is_held(vm);
        if (may_be && vm->kvm) {
            denied_closed(d, vm);
            return;
        }
        if (may_be && vm->key_fd < 0) {
            /* We only have the kernel's word for it, and now for its end. */
            look_undo_denied(d, vm);
            return;
        }
        if (!vm->handle && (vm->creator_tid == event->tid || vm->owner->pid == event->tid))
            looks_add(d, vm->owner->pid, clock_now_ns());
    }
}

static void events_were_lost(struct discovery *d)
{
    /* One line for the first and for each power of two: it may be a storm. */
    d->events_lost++;
    if ((d->events_lost & (d->events_lost - 1)) == 0)
        log_warn("discovery",
                 "kernel events were lost (%" PRIu64 " times so far), looking at all "
                 "processes",
                 d->events_lost);
    d->look_at_everything = true;
    d->kernel_count.vms = -1;
    d->roster_changed = true;
    hurry(d);
}

static void collect_uevents(struct discovery *d)
{
    for (int i = 0; i < UEVENTS_AT_ONCE; i++) {
        struct uevent event;
        int r = uevents_receive(d->uevents_fd, &event);
        if (r == -ENOBUFS) {
            events_were_lost(d);
            continue;
        }
        if (r < 0)
            return;
        if (r == 0)
            continue;
        if (kernel_count_take(&d->kernel_count, &event, clock_now_ns()))
            d->roster_changed = true;
        switch (event.kind) {
        case UEVENT_VM_CREATED:
            vm_created(d, &event);
            break;
        case UEVENT_VM_DESTROYED:
            vm_destroyed(d, &event);
            break;
        }
    }
}

/* What the sink calls `owner` is the VM's number: one that is no more is nobody's. */
static struct found_vm *vm_of(struct discovery *d, void *owner)
{
    return vms_by_id(d, (uint64_t)(uintptr_t)owner);
}

void discovery_vm_exited(struct discovery *d, void *owner)
{
    struct found_vm *vm = vm_of(d, owner);
    struct process *process = vm ? processes_find(d, vm->owner->pid) : NULL;
    /* By now the pid may be another process', which the next look will find. */
    if (process && process->vmm == vm->owner)
        processes_forget(d, process, "its VMM has exited");
}

static struct found_target *target_of(struct found_vm *vm, int32_t vcpu)
{
    for (size_t i = 0; vm && i < vm->n_targets; i++) {
        if (vm->targets[i].file.vcpu == vcpu)
            return &vm->targets[i];
    }
    return NULL;
}

static void say_what(int32_t vcpu, char *to, size_t size)
{
    if (vcpu < 0)
        (void)snprintf(to, size, "its own statistics");
    else
        (void)snprintf(to, size, "vCPU %d", (int)vcpu);
}

void discovery_read_failed(struct discovery *d, void *owner, int32_t vcpu, int error)
{
    struct found_vm *vm = vm_of(d, owner);
    struct found_target *target = target_of(vm, vcpu);
    char what[32], label[128];

    if (!target || target->failing)
        return;
    if (error == -ESRCH) {
        /* Its files are closed, so it has gone: the look will tell with what. */
        looks_add(d, vm->owner->pid, clock_now_ns());
        return;
    }
    target->failing = true;
    say_what(vcpu, what, sizeof what);
    report_label(vm, label, sizeof label);
    log_warn("discovery", "VM %s (pid %d): %s cannot be read (%s), looking again now",
             vm->log.label ? vm->log.label : label, (int)vm->owner->pid, what,
             error ? strerror(-error) : "short read");
    looks_add(d, vm->owner->pid, clock_now_ns());
}

/* --- rounds --- */

static void rescan(struct discovery *d)
{
    int r = procscan_rescan(d, d->look_at_everything);
    d->rescan_due_ns = clock_now_ns() + d->config->discovery.rescan_ns;
    if (r < 0) {
        if (r != d->rescan_error)
            log_warn("discovery",
                     "cannot look at all processes: %s, looking again in %" PRId64 " ms",
                     strerror(-r), d->config->discovery.rescan_ns / NSEC_PER_MSEC);
        d->rescan_error = r;
        return;
    }
    d->rescan_error = 0;
    d->look_at_everything = false;
    unseen_say(d);
    attach_ask_for_tids(d);
}

/*
 * How long it took to find a VM is told once: the sink knows now. One that is let go and read again
 * hours later was not hours in being found.
 */
static void forget_creations(struct discovery *d)
{
    for (size_t i = 0; i < d->n_vms; i++) {
        if (d->vms[i]->handle)
            d->vms[i]->created_ns = 0;
    }
}

/*
 * Hands on what has changed. Returns when it has to be called again: INT64_MAX when all has been
 * said.
 */
static int64_t finish(struct discovery *d)
{
    given_settle(d->given);
    attach_settle(d);
    given_settle(d->given); /* those that BPF had to find */
    attach_settle(d);
    int64_t now_ns = clock_now_ns();
    int64_t due_ns = d->handed_on_ns + HAND_ON_EVERY_MS * NSEC_PER_MSEC;
    if (!d->sink_changed && !d->roster_changed && !d->log_due)
        return INT64_MAX;
    if (d->handed_on_ns && now_ns < due_ns)
        return due_ns;
    d->handed_on_ns = now_ns;
    if (d->sink_changed) {
        if (d->sink.commit(d->sink.ctx) < 0)
            return now_ns + RETRY_MS * NSEC_PER_MSEC;
        forget_creations(d);
        d->sink_changed = false;
        d->roster_changed = true;
    }
    report_log(d);
    d->log_due = false;
    if (d->roster_changed && report_publish(d) < 0)
        return now_ns + RETRY_MS * NSEC_PER_MSEC;
    d->roster_changed = false;
    return INT64_MAX;
}

static void first_look(struct discovery *d)
{
    discovery_take_change(d);
    d->roster_changed = true; /* an empty one is news too */
    rescan(d);
    for (int i = 0; i < LOOK_ROUNDS_MAX; i++) {
        looks_run(d, clock_now_ns());
        if (looks_next_due(d) > clock_now_ns())
            break;
    }
}

static void wait_until(struct discovery *d, int64_t due_ns)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    int timeout_ms = -1;
    if (due_ns != INT64_MAX) {
        int64_t left_ns = MAX_OF(due_ns - clock_now_ns(), 0);
        timeout_ms = (int)MIN_OF((left_ns + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC, INT32_MAX);
    }
    /* All sources are cheap to ask, so which of them woke us does not matter. */
    (void)epoll_wait(d->epoll_fd, events, EVENTS_AT_ONCE, timeout_ms);
    uint64_t count;
    ssize_t n = read(d->wake_fd, &count, sizeof count);
    (void)n; /* EAGAIN: it was not that */
}

static void *discovery_main(void *arg)
{
    struct discovery *d = arg;
    (void)pthread_setname_np(pthread_self(), "discovery");
    while (sem_wait(&d->go) < 0)
        ; /* EINTR */
    if (atomic_load(&d->stopping))
        return NULL;
    given_restore(d->given);
    first_look(d);
    while (!atomic_load(&d->stopping)) {
        int64_t due_ns = finish(d);
        if (!d->sink_changed && d->rescan_error == 0)
            atomic_store(&d->store->self.looked_once, true);
        due_ns = MIN_OF(due_ns, MIN_OF(d->rescan_due_ns, looks_next_due(d)));
        due_ns = MIN_OF(due_ns, given_due_ns(d->given));
        wait_until(d, due_ns);

        /* Before the kernel's word of the same VMs is read: then it is there. */
        given_collect(d->given);
        if (d->uevents_fd >= 0)
            collect_uevents(d);
        if (d->sink.events_fd >= 0)
            d->sink.collect_events(d->sink.ctx, d);
        discovery_take_change(d);
        int64_t now_ns = clock_now_ns();
        if (now_ns >= d->rescan_due_ns)
            rescan(d);
        looks_run(d, clock_now_ns());
    }
    return NULL;
}

/* --- life --- */

int discovery_new(struct store *store, const struct proc *proc, struct broker *broker,
                  struct config *config, const struct discovery_sink *sink,
                  struct discovery **ret_discovery)
{
    CLEANUP(cleanup_discovery_free) struct discovery *d = calloc(1, sizeof *d);
    if (!d)
        return -ENOMEM;
    d->uevents_fd = d->epoll_fd = d->wake_fd = -1;
    (void)sem_init(&d->go, 0, 0);
    d->store = store;
    d->proc = proc;
    d->broker = broker;
    d->config = config_ref(config);
    d->sink = *sink;
    d->self = getpid();
    d->counts_fds = proc_counts_fds(proc);
    d->kernel_count.vms = -1;
    int r = kernelview_new(broker, store, &d->kernelview);
    if (r == 0)
        r = given_new(d, &d->given);
    if (r < 0)
        return r;
    d->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (d->wake_fd < 0)
        return -errno;
    d->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (d->epoll_fd < 0)
        return -errno;
    *ret_discovery = steal_ptr(&d);
    return 0;
}

void discovery_take_passed(struct discovery *d, struct passed_fds *passed)
{
    given_take_passed(d->given, passed);
}

static int watch(struct discovery *d, int fd)
{
    struct epoll_event event = {.events = EPOLLIN};
    return epoll_ctl(d->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

int discovery_spawn(struct discovery *d)
{
    sigset_t all, before;

    /* Before the first look, so that no VM is made between the two. */
    d->uevents_error = uevents_open(&d->uevents_fd);
    /* Signals are the main thread's. */
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int r = -pthread_create(&d->thread, NULL, discovery_main, d);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    d->spawned = r == 0;
    return r;
}

int discovery_start(struct discovery *d)
{
    int r = d->spawned ? 0 : discovery_spawn(d);
    if (r == 0)
        r = watch(d, d->wake_fd);
    if (r == 0 && d->sink.events_fd >= 0)
        r = watch(d, d->sink.events_fd);
    if (r == 0)
        r = given_start(d->given);
    if (r == 0)
        r = watch(d, given_epoll_fd(d->given));
    if (r < 0)
        return r;
    r = d->uevents_error < 0 ? d->uevents_error : watch(d, d->uevents_fd);
    if (r < 0)
        log_warn("discovery",
                 "no events from the kernel (%s): new VMs are found by the look every %" PRId64
                 " ms",
                 strerror(-r), d->config->discovery.rescan_ns / NSEC_PER_MSEC);
    if (!d->counts_fds)
        log_info("discovery", "this kernel (before 6.2) does not tell how many fds a process has: "
                              "what no event tells of is found within a minute");
    (void)sem_post(&d->go);
    return 0;
}

void discovery_stop(struct discovery *d)
{
    if (!d->spawned)
        return;
    atomic_store(&d->stopping, true);
    discovery_wake(d);
    (void)sem_post(&d->go);
    (void)pthread_join(d->thread, NULL);
    d->spawned = false;
}

void discovery_free(struct discovery *d)
{
    if (!d)
        return;
    discovery_stop(d);
    vms_free(d);
    given_free(d->given);
    kernelview_free(d->kernelview);
    processes_free(d);
    free(d->looks);
    discovery_change_free(atomic_exchange(&d->change, NULL));
    config_unref(d->config);
    d->uevents_fd = fd_close(d->uevents_fd);
    d->epoll_fd = fd_close(d->epoll_fd);
    d->wake_fd = fd_close(d->wake_fd);
    (void)sem_destroy(&d->go);
    free(d);
}

int discovery_look_once(struct discovery *d)
{
    first_look(d);
    if (d->rescan_error < 0)
        return d->rescan_error;
    if (finish(d) != INT64_MAX)
        return -ENOMEM;
    atomic_store(&d->store->self.looked_once, true);
    return 0;
}
