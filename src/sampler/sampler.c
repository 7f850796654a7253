/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop. Within one batch of epoll events VMMs that exited come first (their fds are to go at
 * once), then ticks, and the inbox last: adopting a plan can send objects to the reaper that an
 * event of the same batch still names.
 */
#include "sampler.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/epoll.h>

#include "clock.h"
#include "group.h"
#include "record.h"
#include "recorder.h"
#include "statsfd.h"

enum {
    EVENTS_MAX = 64,
};
/* New VMs in a group whose next tick is further off than this are read at once. */
#define AT_ONCE_NS NSEC_PER_SEC
/* No recorder's address. */
#define RECORD_NOTHING ((uintptr_t)1)

struct sampler {
    struct watch watch; /* of the inbox */
    struct store *store;
    struct reaper *reaper;
    struct mailbox inbox;  /* plans */
    struct mailbox events; /* for discovery */
    int epoll_fd;
    atomic_bool stopping;
    atomic_uint asked, answered; /* signs of life; THREADS: asked by any, answered by the sampler */
    bool running;                /* THREADS: whoever starts and stops */
    pthread_t thread;
    struct dumper *dumper;     /* borrowed; NULL: none */
    struct recorder *recorder; /* a reference; NULL: nothing is recorded */
    /* Set by others, taken by the sampler: a reference, RECORD_NOTHING, or 0: no change. */
    _Atomic uintptr_t next_recorder;
    unsigned n_groups; /* slots below this may be in use */
    struct group groups[RINGS_MAX];
};

/* The group that is due and has the shortest interval below `below_ns`; NULL: none is. */
static struct group *most_urgent(struct sampler *sampler, int64_t now_ns, int64_t below_ns)
{
    struct group *found = NULL;
    for (unsigned i = 0; i < sampler->n_groups; i++) {
        struct group *group = &sampler->groups[i];
        if (group->interval_ns && !group->adopting && group->interval_ns < below_ns &&
            group_deadline_ns(group) <= now_ns) {
            found = group;
            below_ns = group->interval_ns;
        }
    }
    return found;
}

/*
 * Serves every group that is due by now and faster than `running`, and is itself called between the
 * slices of theirs: the recursion goes to ever shorter intervals, so it ends. What becomes due
 * meanwhile waits for the next call: a group whose sweep takes longer than its interval is always
 * due again, and the loop must get back to its other events.
 */
static void serve_due(void *ctx, const struct group *running)
{
    struct sampler *sampler = ctx;
    struct group *group;
    if (running && sampler->n_groups < 2)
        return;
    int64_t below_ns = running ? running->interval_ns : INT64_MAX;
    int64_t due_ns = clock_now_ns();
    while ((group = most_urgent(sampler, due_ns, below_ns)))
        group_serve(group, clock_now_ns(), serve_due, sampler);
}

/* Everything of this VM is let go: no more reads, no more showing, and the fds to the reaper. */
static void let_go(struct sampler *sampler, struct sampled_vm *vm, int64_t exited_ns)
{
    if (vm->let_go)
        return;
    vm->let_go = true;
    vm->exited_ns = exited_ns;
    record_end(vm, sampler->dumper);
    atomic_store_explicit(&vm->vm->gone, true, memory_order_release);
    if (vm->group)
        group_mute_vm(vm->group, vm);
    (void)epoll_ctl(sampler->epoll_fd, EPOLL_CTL_DEL, vm->pidfd, NULL);
    reaper_post(sampler->reaper, &vm->close_item);
}

static void vmm_exited(struct sampler *sampler, struct sampled_vm *vm)
{
    let_go(sampler, vm, clock_now_ns());
    if (vm->exited)
        mailbox_post(&sampler->events, &vm->exited->letter);
    vm->exited = NULL;
}

static struct retired_vcpu *find_retired(const struct sampled_vm *vm, int32_t vcpu)
{
    struct retired_vcpu *retired = vm->retired;
    while (retired && retired->vcpu != vcpu)
        retired = retired->next;
    return retired;
}

/*
 * A vCPU that leaves keeps its share in its VM's sums: it is read a last time, where that is
 * possible. Without memory for it, the exposition will keep the sums from falling.
 */
static void retire(struct sampled_target *target)
{
    const struct schema *schema = target->schema;
    struct sampled_vm *vm = target->vm;
    struct retired_vcpu *retired = target->retirement;
    const uint8_t *last = group_last_reading(target).block;
    if (!retired)
        return;
    bool read = target->fd >= 0 && !target->closing &&
                statsfd_pread(target->fd, retired->block, schema->data_bytes,
                              schema->data_offset) == (ssize_t)schema->data_bytes;
    if (!read && !last)
        return;
    if (!read)
        memcpy(retired->block, last, schema->data_bytes);

    struct retired_vcpu *before = find_retired(vm, target->vcpu);
    if (before && before->schema == schema) {
        memcpy(before->block, retired->block, schema->data_bytes);
    } else if (!before) {
        retired->next = vm->retired;
        vm->retired = steal_ptr(&target->retirement);
    }
}

static void watch_vmm(struct sampler *sampler, struct sampled_vm *vm)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &vm->watch};
    /*
     * Fails only when the kernel's limit on watches is reached; then discovery's next look finds
     * the VMM gone.
     */
    (void)epoll_ctl(sampler->epoll_fd, EPOLL_CTL_ADD, vm->pidfd, &event);
}

static bool wants_sweep(const struct group *group, const struct group_plan *plan)
{
    return plan->at_once || (plan->news && group_deadline_ns(group) - clock_now_ns() > AT_ONCE_NS);
}

/*
 * Until an adoption is over, the sweeps that are part of it let only those groups through that go
 * on as they were. Of the others, a frame may be waiting for its publication, and what is in their
 * newest may be carried over by a group that is not swept yet.
 */
static void mark_adopting(struct sampler *sampler, const struct plan *plan)
{
    for (unsigned i = 0; i < RINGS_MAX; i++)
        sampler->groups[i].adopting = sampler->groups[i].fresh;
    for (unsigned i = 0; i < plan->n_groups; i++)
        sampler->groups[plan->groups[i]->slot].adopting = true;
}

/*
 * The groups of a plan take their new layouts; those with newcomers that should not wait are read,
 * and all that was read is published as one generation. Groups that end do so last: the others may
 * carry over blocks from their frames.
 */
static void adopt_groups(struct sampler *sampler, struct plan *plan)
{
    struct frame *frames[RINGS_MAX] = {NULL};
    mark_adopting(sampler, plan);
    for (unsigned i = 0; i < plan->n_groups; i++)
        group_plan_carry(plan->groups[i]);
    for (unsigned i = 0; i < plan->n_groups; i++) {
        struct group *group = &sampler->groups[plan->groups[i]->slot];
        sampler->n_groups = MAX_OF(sampler->n_groups, plan->groups[i]->slot + 1);
        if (plan->groups[i]->layout->n_vms)
            group_adopt(group, steal_ptr(&plan->groups[i]));
    }
    for (unsigned i = 0; i < RINGS_MAX; i++) {
        struct group *group = &sampler->groups[i];
        if (group->now && group->fresh && wants_sweep(group, group->now))
            frames[i] = group_sweep(group, clock_now_ns(), serve_due, sampler);
    }
    atomic_fetch_add(&sampler->store->generation, 1);
    for (unsigned i = 0; i < RINGS_MAX; i++) {
        if (frames[i])
            group_publish(&sampler->groups[i], frames[i]);
    }
    for (unsigned i = 0; i < plan->n_groups; i++) {
        if (plan->groups[i])
            group_end(&sampler->groups[plan->groups[i]->slot]);
    }
    for (unsigned i = 0; i < RINGS_MAX; i++)
        sampler->groups[i].adopting = false;
    atomic_fetch_add(&sampler->store->generation, 1);
}

/* Discovery can see that a VMM has gone before we do: among many, or where it is not watched. */
static bool has_exited(const struct sampled_vm *vm)
{
    struct pollfd pollfd = {.fd = vm->pidfd, .events = POLLIN};
    return !vm->let_go && poll(&pollfd, 1, 0) == 1 && pollfd.revents & POLLIN;
}

static void adopt(struct sampler *sampler, struct plan *plan)
{
    for (size_t i = 0; i < plan->n_leaving_vms; i++) {
        struct sampled_vm *vm = plan->leaving_vms[i];
        let_go(sampler, vm, has_exited(vm) ? clock_now_ns() : 0);
    }
    record_changes(plan);
    for (size_t i = 0; i < plan->n_leaving_targets; i++) {
        const struct sampled_target *target = plan->leaving_targets[i];
        if (!target->vm->let_go && !target->superseded)
            retire(plan->leaving_targets[i]);
    }
    adopt_groups(sampler, plan);
    for (size_t i = 0; i < plan->n_joining; i++)
        watch_vmm(sampler, plan->joining[i]);
    for (size_t i = 0; i < plan->n_leaving_targets; i++)
        reaper_post(sampler->reaper, &plan->leaving_targets[i]->free_item);
    for (size_t i = 0; i < plan->n_leaving_vms; i++)
        reaper_post(sampler->reaper, &plan->leaving_vms[i]->free_item);
    reaper_post(sampler->reaper, &plan->reapable);
}

static void adopt_all(struct sampler *sampler)
{
    struct letter *letter = mailbox_collect(&sampler->inbox);
    while (letter) {
        struct letter *next = letter->next;
        adopt(sampler, (struct plan *)letter);
        letter = next;
    }
}

/* What the old one counts in its last tick must not stay: only now it counts no more. */
static void take_recorder(struct sampler *sampler)
{
    struct selfstats *self = &sampler->store->self;
    uintptr_t next = atomic_exchange(&sampler->next_recorder, 0);
    if (!next)
        return;
    struct recorder *old = sampler->recorder;
    sampler->recorder = next == RECORD_NOTHING ? NULL : (struct recorder *)next;
    for (unsigned i = 0; i < RINGS_MAX; i++)
        sampler->groups[i].recorder = sampler->recorder;
    atomic_store_explicit(&self->recorder_bytes, 0, memory_order_relaxed);
    atomic_store_explicit(&self->recorder_since_ns, sampler->recorder ? clock_now_ns() : 0,
                          memory_order_relaxed);
    if (old)
        reaper_post(sampler->reaper, recorder_reapable(old));
}

static void clear_timer(const struct group *group)
{
    uint64_t expirations;
    /* Only its wake-up is of use: ticks are told from the clock. */
    ssize_t n = read(group->timer_fd, &expirations, sizeof expirations);
    (void)n;
}

static void handle(struct sampler *sampler, const struct epoll_event *events, int n)
{
    bool inbox = false;
    for (int i = 0; i < n; i++) {
        struct watch *watch = events[i].data.ptr;
        switch (watch->kind) {
        case WATCH_INBOX:
            inbox = true;
            break;
        case WATCH_TIMER:
            clear_timer(CONTAINER_OF(watch, struct group, watch));
            break;
        case WATCH_VMM:
            vmm_exited(sampler, CONTAINER_OF(watch, struct sampled_vm, watch));
            break;
        }
    }
    if (inbox)
        take_recorder(sampler);
    serve_due(sampler, NULL);
    if (inbox)
        adopt_all(sampler);
}

static void *sampler_main(void *arg)
{
    struct sampler *sampler = arg;
    struct epoll_event events[EVENTS_MAX];
    (void)pthread_setname_np(pthread_self(), "kvmstatd-sample");
    while (!atomic_load_explicit(&sampler->stopping, memory_order_relaxed)) {
        int n = epoll_wait(sampler->epoll_fd, events, EVENTS_MAX, -1);
        unsigned asked = atomic_load_explicit(&sampler->asked, memory_order_relaxed);
        handle(sampler, events, n);
        /* Only now: what it was asked is whether it comes round. */
        atomic_store_explicit(&sampler->answered, asked, memory_order_relaxed);
    }
    return NULL;
}

int sampler_new(struct store *store, struct reaper *reaper, struct sampler **ret_sampler)
{
    CLEANUP(cleanup_sampler_free) struct sampler *sampler = calloc(1, sizeof *sampler);
    if (!sampler)
        return -ENOMEM;
    sampler->watch.kind = WATCH_INBOX;
    sampler->store = store;
    sampler->reaper = reaper;
    sampler->inbox.event_fd = sampler->events.event_fd = -1;
    for (unsigned i = 0; i < RINGS_MAX; i++)
        sampler->groups[i].timer_fd = -1;
    sampler->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (sampler->epoll_fd < 0)
        return -errno;
    int r = mailbox_init(&sampler->inbox);
    if (r == 0)
        r = mailbox_init(&sampler->events);
    if (r < 0)
        return r;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &sampler->watch};
    if (epoll_ctl(sampler->epoll_fd, EPOLL_CTL_ADD, sampler->inbox.event_fd, &event) < 0)
        return -errno;
    for (unsigned i = 0; i < RINGS_MAX; i++) {
        struct group *group = &sampler->groups[i];
        r = group_init(group, store, reaper, &sampler->events, i);
        if (r < 0)
            return r;
        event.data.ptr = &group->watch;
        if (epoll_ctl(sampler->epoll_fd, EPOLL_CTL_ADD, group->timer_fd, &event) < 0)
            return -errno;
    }
    *ret_sampler = steal_ptr(&sampler);
    return 0;
}

void sampler_set_dumper(struct sampler *sampler, struct dumper *dumper)
{
    sampler->dumper = dumper;
}

void sampler_set_recorder(struct sampler *sampler, struct recorder *recorder)
{
    uintptr_t next = recorder ? (uintptr_t)recorder_ref(recorder) : RECORD_NOTHING;
    uintptr_t untaken = atomic_exchange(&sampler->next_recorder, next);
    if (untaken && untaken != RECORD_NOTHING)
        recorder_unref((struct recorder *)untaken);
    mailbox_ring(&sampler->inbox);
}

int sampler_set_cpus(struct sampler *sampler, const int *cpus, size_t n_cpus)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    for (size_t i = 0; i < n_cpus; i++)
        CPU_SET((size_t)cpus[i], &set);
    if (n_cpus == 0 && sched_getaffinity(getpid(), sizeof set, &set) < 0)
        return -errno;
    return -pthread_setaffinity_np(sampler->thread, sizeof set, &set);
}

int sampler_start(struct sampler *sampler, const int *cpus, size_t n_cpus)
{
    atomic_store(&sampler->stopping, false);
    int r = -pthread_create(&sampler->thread, NULL, sampler_main, sampler);
    if (r < 0)
        return r;
    sampler->running = true;
    r = n_cpus ? sampler_set_cpus(sampler, cpus, n_cpus) : 0;
    if (r < 0)
        sampler_stop(sampler);
    return r;
}

void sampler_stop(struct sampler *sampler)
{
    if (!sampler->running)
        return;
    atomic_store(&sampler->stopping, true);
    mailbox_ring(&sampler->inbox);
    (void)pthread_join(sampler->thread, NULL);
    sampler->running = false;
}

void sampler_ask(struct sampler *sampler)
{
    atomic_fetch_add(&sampler->asked, 1);
    mailbox_ring(&sampler->inbox);
}

bool sampler_answered(const struct sampler *sampler)
{
    return atomic_load(&sampler->asked) == atomic_load(&sampler->answered);
}

static void free_events(struct mailbox *events)
{
    struct letter *letter = mailbox_collect(events);
    while (letter) {
        struct letter *next = letter->next;
        free(letter);
        letter = next;
    }
}

void sampler_free(struct sampler *sampler)
{
    if (!sampler)
        return;
    sampler_stop(sampler);
    /* What leaves with a plan nobody has adopted yet is to be released too: adopt it. */
    if (sampler->inbox.event_fd >= 0)
        adopt_all(sampler);
    take_recorder(sampler);
    recorder_unref(sampler->recorder);
    for (unsigned i = 0; i < RINGS_MAX; i++) {
        if (sampler->groups[i].timer_fd >= 0)
            group_deinit(&sampler->groups[i]);
    }
    if (sampler->events.event_fd >= 0)
        free_events(&sampler->events);
    mailbox_deinit(&sampler->inbox);
    mailbox_deinit(&sampler->events);
    (void)fd_close(sampler->epoll_fd);
    free(sampler);
}

void sampler_run_once(struct sampler *sampler)
{
    struct epoll_event events[EVENTS_MAX];
    take_recorder(sampler);
    adopt_all(sampler);
    /* VMMs that have exited meanwhile, and the first tick of each group, which is due at once. */
    int n = epoll_wait(sampler->epoll_fd, events, EVENTS_MAX, 0);
    handle(sampler, events, n);
}

void sampler_submit(struct sampler *sampler, struct plan *plan)
{
    mailbox_post(&sampler->inbox, &plan->letter);
}

struct mailbox *sampler_events(struct sampler *sampler)
{
    return &sampler->events;
}
