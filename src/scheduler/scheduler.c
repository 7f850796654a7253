/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop: letters, looks for threads that are due, and on the grid a reading of all of them. A VM
 * that is new is read at once, not at the next tick, which may be an hour off.
 *
 * What a kept-open file costs the kernel is a page, once it has been read; opening it for each
 * reading costs five times a reading. So files are kept open while there are plenty: half of what
 * the process may have is left to the statistics' own.
 */
#include <poll.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "internal.h"

enum {
    /* Looks that were in vain before, in one round: reading all threads' names takes up to a
     * millisecond a VM. */
    LOOKS_AGAIN_MAX = 16,
    COUNT_EVERY_MS = 1000, /* the threads of each process */
};

/* linux/proc_ns.h: PROC_PID_INIT_INO */
#define INITIAL_PID_NAMESPACE_INODE 0xeffffffcu

void scheduler_say(struct scheduler *s, enum scheduler_trouble trouble, int error)
{
    if (s->noticed[trouble])
        return;
    s->noticed[trouble] = true;
    if (s->notice)
        s->notice(trouble, error);
}

/* --- VMs and vCPUs --- */

static void vm_release(struct sched_vm *vm)
{
    for (uint32_t i = 0; i < vm->n; i++) {
        if (vm->vcpus[i].tid)
            bind_release(&vm->vcpus[i]);
    }
}

static void vm_free(const struct scheduler *s, struct sched_vm *vm)
{
    vm_release(vm);
    read_drop_peaks(s, vm);
    free(vm->vcpus);
    free(vm);
}

static size_t vm_place(const struct scheduler *s, uint64_t id)
{
    size_t low = 0, high = s->n_vms;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (s->vms[middle]->id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct sched_vm *vm_find(const struct scheduler *s, uint64_t id)
{
    size_t at = vm_place(s, id);
    return at < s->n_vms && s->vms[at]->id == id ? s->vms[at] : NULL;
}

/* The VM of a letter, made if it is new. NULL: no memory. */
static struct sched_vm *vm_get(struct scheduler *s, const struct facts *facts)
{
    struct sched_vm *vm = vm_find(s, facts->vm_id);
    if (vm)
        return vm;
    if (s->n_vms == s->vms_capacity) {
        size_t larger = MAX_OF(s->vms_capacity * 2, (size_t)64);
        struct sched_vm **grown = reallocarray(s->vms, larger, sizeof(struct sched_vm *));
        if (!grown)
            return NULL;
        s->vms = grown;
        s->vms_capacity = larger;
    }
    vm = calloc(1, sizeof *vm);
    if (!vm)
        return NULL;
    vm->id = facts->vm_id;
    vm->pid = facts->pid;
    vm->start_ticks = facts->start_ticks;
    vm->names = facts->names;
    size_t at = vm_place(s, vm->id);
    memmove(s->vms + at + 1, s->vms + at, (s->n_vms - at) * sizeof *s->vms);
    s->vms[at] = vm;
    s->n_vms++;
    return vm;
}

static void vm_end(struct scheduler *s, uint64_t id)
{
    size_t at = vm_place(s, id);
    struct sched_vm *vm = vm_find(s, id);
    if (!vm)
        return;
    vm_free(s, vm);
    s->n_vms--;
    memmove(s->vms + at, s->vms + at + 1, (s->n_vms - at) * sizeof *s->vms);
}

/* The vCPUs that the VM has had and those of the letter, by id. Returns 0 or -ENOMEM. */
static int merge_vcpus(struct sched_vm *vm, const struct facts *facts)
{
    struct sched_vcpu *merged = calloc((size_t)vm->n + facts->n + 1, sizeof *merged);
    uint32_t n = 0, had = 0;
    if (!merged)
        return -ENOMEM;
    for (uint32_t i = 0; i < facts->n; i++) {
        const struct vcpu_facts *fact = &facts->vcpus[i];
        while (had < vm->n && vm->vcpus[had].id < fact->id) {
            merged[n] = vm->vcpus[had++];
            merged[n++].wanted = false;
        }
        if (had < vm->n && vm->vcpus[had].id == fact->id)
            merged[n] = vm->vcpus[had++];
        else
            merged[n] = (struct sched_vcpu){.id = fact->id, .fd = -1};
        merged[n].wanted = true;
        for (unsigned h = 0; h < THREAD_HINTS; h++) {
            if (fact->hint_is_new[h])
                merged[n].hints[h] = fact->hints[h];
        }
        n++;
    }
    while (had < vm->n) {
        merged[n] = vm->vcpus[had++];
        merged[n++].wanted = false;
    }
    free(vm->vcpus);
    vm->vcpus = merged;
    vm->n = n;
    for (uint32_t i = 0; i < n; i++) {
        if (!merged[i].wanted && merged[i].tid)
            bind_release(&merged[i]);
    }
    return 0;
}

static void take_facts(struct scheduler *s, const struct facts *facts)
{
    if (facts->removed) {
        vm_end(s, facts->vm_id);
        return;
    }
    struct sched_vm *vm = vm_get(s, facts);
    if (!vm)
        return;
    vm->vm_vcpus = facts->vm_vcpus;
    if (merge_vcpus(vm, facts) < 0)
        return;
    vm->misses = 0;
    vm->look_due_ns = 0;
}

static void take_letters(struct scheduler *s)
{
    struct letter *letter = mailbox_collect(&s->inbox);
    while (letter) {
        struct letter *next = letter->next;
        struct facts *facts = CONTAINER_OF(letter, struct facts, letter);
        take_facts(s, facts);
        free(facts);
        letter = next;
    }
}

/* --- configuration --- */

static int64_t next_tick(const struct scheduler *s, int64_t now_ns)
{
    /* On a grid of the clock's, so that a reload that changes nothing moves no tick. */
    return s->interval_ns ? (now_ns / s->interval_ns + 1) * s->interval_ns : INT64_MAX;
}

/* Peaks are kept as long as they mean the same. */
static bool windows_are(const struct scheduler *s, const struct config *config)
{
    bool same = s->n_windows == config->bursts.n_windows &&
                s->peaks_by_vcpu == (config->bursts.scope == CONFIG_SCOPE_VCPU);
    for (size_t i = 0; same && i < s->n_windows; i++)
        same = s->windows_ns[i] == config->bursts.windows_ns[i];
    return same;
}

/* Without memory for them there are no windows. */
static void set_windows(struct scheduler *s, const struct config *config)
{
    for (size_t i = 0; i < s->n_vms; i++)
        read_drop_peaks(s, s->vms[i]);
    free(s->windows_ns);
    s->n_windows = 0;
    s->windows_ns = calloc(config->bursts.n_windows + 1, sizeof *s->windows_ns);
    s->peaks_by_vcpu = config->bursts.scope == CONFIG_SCOPE_VCPU;
    for (size_t i = 0; s->windows_ns && i < config->bursts.n_windows; i++)
        s->windows_ns[s->n_windows++] = config->bursts.windows_ns[i];
}

static void apply_config(struct scheduler *s, int64_t now_ns)
{
    if (!windows_are(s, s->config))
        set_windows(s, s->config);
    if (s->interval_ns == s->config->scheduler.interval_ns)
        return;
    s->interval_ns = s->config->scheduler.interval_ns;
    s->due_ns = next_tick(s, now_ns);
    for (size_t i = 0; i < s->n_vms; i++) {
        struct sched_vm *vm = s->vms[i];
        if (!s->interval_ns)
            bind_close(vm);
        vm->misses = 0;
        vm->look_due_ns = 0;
    }
    if (!s->interval_ns)
        cputimes_publish(&s->store->cputimes, NULL);
}

static void take_config(struct scheduler *s, int64_t now_ns)
{
    struct config *config = atomic_exchange(&s->new_config, NULL);
    if (!config)
        return;
    config_unref(s->config);
    s->config = config;
    apply_config(s, now_ns);
}

void scheduler_set_config(struct scheduler *s, struct config *config)
{
    config_unref(atomic_exchange(&s->new_config, config_ref(config)));
    mailbox_ring(&s->inbox);
}

/* --- rounds --- */

/*
 * Looks that are due; returns when the next one is. Those that were in vain before take turns: what
 * is left over waits for the next count.
 */
static int64_t look_for_threads(struct scheduler *s, int64_t now_ns)
{
    int64_t due_ns = INT64_MAX;
    unsigned again = 0;
    size_t first = s->n_vms ? s->look_cursor % s->n_vms : 0;
    for (size_t i = 0; i < s->n_vms; i++) {
        struct sched_vm *vm = s->vms[(first + i) % s->n_vms];
        bool is_due = vm->look_due_ns <= now_ns;
        if (is_due && vm->misses && again == LOOKS_AGAIN_MAX) {
            due_ns = MIN_OF(due_ns, s->count_due_ns);
            continue;
        }
        if (is_due) {
            again += vm->misses > 0;
            bind_look(s, vm, now_ns);
            /* Whoever has had no turn stands in front the next time. */
            if (again == LOOKS_AGAIN_MAX)
                s->look_cursor = first + i + 1;
        }
        due_ns = MIN_OF(due_ns, vm->look_due_ns);
    }
    return due_ns;
}

static void count_threads(struct scheduler *s, int64_t now_ns)
{
    s->count_due_ns = now_ns + COUNT_EVERY_MS * NSEC_PER_MSEC;
    for (size_t i = 0; i < s->n_vms; i++)
        bind_count(s, s->vms[i], now_ns);
}

/* Returns when there is something to do again. */
static int64_t serve(struct scheduler *s, bool at_once)
{
    int64_t now_ns = s->now_ns(), boot_ns = clock_read_ns(CLOCK_BOOTTIME);
    take_config(s, now_ns);
    take_letters(s);
    if (!s->interval_ns)
        return INT64_MAX;
    bool tick = at_once || now_ns >= s->due_ns, news = tick;
    for (size_t i = 0; at_once && i < s->n_vms; i++)
        s->vms[i]->look_due_ns = now_ns;
    if (at_once || now_ns >= s->count_due_ns)
        count_threads(s, now_ns);
    int64_t look_due_ns = look_for_threads(s, now_ns);
    for (size_t i = 0; i < s->n_vms; i++) {
        if (!tick && !s->vms[i]->just_bound)
            continue;
        read_vm(s, s->vms[i], boot_ns);
        look_due_ns = MIN_OF(look_due_ns, s->vms[i]->look_due_ns);
        news = true;
    }
    if (news)
        read_publish(s);
    if (tick)
        s->due_ns = next_tick(s, now_ns);
    return MIN_OF(s->due_ns, look_due_ns);
}

static void wait_until(struct scheduler *s, int64_t due_ns)
{
    struct pollfd inbox = {.fd = s->inbox.event_fd, .events = POLLIN};
    int64_t left_ns = MAX_OF(due_ns - s->now_ns(), 0);
    struct timespec timeout = {left_ns / NSEC_PER_SEC, left_ns % NSEC_PER_SEC};
    (void)ppoll(&inbox, 1, due_ns == INT64_MAX ? NULL : &timeout, NULL);
}

static void *scheduler_main(void *arg)
{
    struct scheduler *s = arg;
    (void)pthread_setname_np(pthread_self(), "kvmstatd-sched");
    while (!atomic_load(&s->stopping))
        wait_until(s, serve(s, false));
    return NULL;
}

void scheduler_run_once(struct scheduler *s)
{
    (void)serve(s, true);
}

void scheduler_set_clock(struct scheduler *s, int64_t (*now_ns)(void))
{
    s->now_ns = now_ns;
    s->due_ns = next_tick(s, now_ns());
}

/* --- life --- */

static int fd_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return 0;
    return (int)(MIN_OF(limit.rlim_cur, (rlim_t)INT32_MAX) / 2);
}

/* Ids of statistics count in the initial pid namespace: elsewhere their tids are not ours. */
static bool in_initial_pid_namespace(void)
{
    struct stat ours;
    return stat("/proc/self/ns/pid", &ours) == 0 && ours.st_ino == INITIAL_PID_NAMESPACE_INODE;
}

int scheduler_new(struct store *store, const struct proc *proc, struct config *config,
                  scheduler_notice_fn *notice, struct scheduler **ret_scheduler)
{
    struct scheduler *s = calloc(1, sizeof *s);
    if (!s)
        return -ENOMEM;
    s->store = store;
    s->proc = proc;
    s->notice = notice;
    s->now_ns = clock_now_ns;
    s->config = config_ref(config);
    s->fd_limit = fd_limit();
    s->initial_pid_namespace = in_initial_pid_namespace();
    s->due_ns = INT64_MAX;
    int r = mailbox_init(&s->inbox);
    if (r < 0) {
        config_unref(s->config);
        free(s);
        return r;
    }
    apply_config(s, clock_now_ns());
    *ret_scheduler = s;
    return 0;
}

int scheduler_start(struct scheduler *s)
{
    int r = -pthread_create(&s->thread, NULL, scheduler_main, s);
    s->running = r == 0;
    return r;
}

void scheduler_stop(struct scheduler *s)
{
    if (!s->running)
        return;
    atomic_store(&s->stopping, true);
    mailbox_ring(&s->inbox);
    (void)pthread_join(s->thread, NULL);
    s->running = false;
}

void scheduler_free(struct scheduler *s)
{
    if (!s)
        return;
    scheduler_stop(s);
    for (struct letter *letter = mailbox_collect(&s->inbox), *next; letter; letter = next) {
        next = letter->next;
        free(CONTAINER_OF(letter, struct facts, letter));
    }
    mailbox_deinit(&s->inbox);
    for (size_t i = 0; i < s->n_vms; i++)
        vm_free(s, s->vms[i]);
    free(s->vms);
    free(s->windows_ns);
    feed_free(s);
    config_unref(s->config);
    config_unref(atomic_exchange(&s->new_config, NULL));
    free(s);
}
