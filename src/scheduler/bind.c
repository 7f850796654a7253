/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which thread runs which vCPU. Three witnesses, best first:
 *
 * - The kernel's own word, by BPF: the thread that last called KVM_RUN for the vCPU. It counts once
 *   it is a thread of the process.
 * - The statistics file's id, "kvm-<tid>/vcpu-<n>": the thread that made the vCPU. QEMU's vCPU
 *   threads make their own, in other VMMs the main thread makes all. So it counts once the thread's
 *   name is that of a vCPU's thread.
 * - The names alone. Their numbers are the VMM's count and not vcpu_ids (an APIC id has holes), but
 *   both go up together. So they count only where there are as many such threads as vCPUs, and
 *   where they contradict nothing that is known.
 *
 * A thread that was found once stays the vCPU's until it ends or BPF names another. What has been
 * told is used up when it has been looked at: a tid that is given out again must not be believed
 * twice.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "internal.h"

enum {
    COMM_BYTES = 64,
    PATH_BYTES = 32,
    /* The wait before the second look, doubled at each: from the first ms of a VM's life, when its
     * threads have no names yet, to a minute. */
    AGAIN_MS = 32,
    AGAIN_DOUBLINGS = 11,
    MISSES_HIDDEN = 4, /* looks in vain at a process after which it must be hidden from us */
};

/* A thread whose name is that of a vCPU's thread. */
struct named {
    pid_t tid;
    int32_t number;
};

/* One look. */
struct look {
    struct scheduler *s;
    struct sched_vm *vm;
    struct proc task; /* /proc/PID/task, as if it were a /proc of its own */
    bool listed;
    size_t n;
    struct named *named; /* by number; owned */
    bool in_order;       /* the i-th of them is the i-th vCPU's, if names count */
};

static void look_deinit(struct look *look)
{
    proc_close(&look->task);
    free(look->named);
}

void bind_release(struct sched_vcpu *vcpu)
{
    vcpu->former = read_total(vcpu);
    vcpu->base = vcpu->last = (struct times){0};
    vcpu->fd = fd_close(vcpu->fd);
    vcpu->tid = 0;
    vcpu->fresh = false;
    vcpu->nothing_read = 0;
    vcpu->observed_ns = 0;
}

static struct sched_vcpu *vcpu_of_thread(const struct sched_vm *vm, pid_t tid)
{
    for (uint32_t i = 0; i < vm->n; i++) {
        if (vm->vcpus[i].tid == tid)
            return &vm->vcpus[i];
    }
    return NULL;
}

/*
 * Whether the thread was there already when the vCPU was last read with another: then what it has
 * run until now was not for this vCPU. A thread that is new has run for nobody else.
 */
static bool was_anothers(const struct look *look, const struct sched_vcpu *vcpu,
                         const struct proc_stat *stat)
{
    int64_t tick_ns = NSEC_PER_SEC / look->task.ticks_per_second;
    return vcpu->known && stat->start_ticks + 1 < (uint64_t)(vcpu->read_boot_ns / tick_ns);
}

/* Opens its schedstat, if files are left for that. Returns 0 or -errno. */
static int open_times(const struct look *look, pid_t tid, int *ret_fd)
{
    struct scheduler *s = look->s;
    CLEANUP_FD int fd = -1;
    int r = schedstat_open(look->task.dir_fd, tid, &fd);
    if (r == -EMFILE || r == -ENFILE || fd >= s->fd_limit) {
        scheduler_say(s, SCHEDULER_FDS_SHORT, r);
        *ret_fd = -1;
        return 0;
    }
    if (r == -EACCES || r == -EPERM)
        scheduler_say(s, SCHEDULER_FORBIDDEN, r);
    if (r < 0)
        return r;
    *ret_fd = steal_fd(&fd);
    return 0;
}

/* Returns 0, -ESRCH (it is no thread of the process) or another -errno. */
static int bind_thread(struct look *look, struct sched_vcpu *vcpu, pid_t tid)
{
    struct proc_stat stat;
    CLEANUP_FD int fd = -1;
    int opened = open_times(look, tid, &fd);
    int r = proc_stat_read(&look->task, tid, &stat);
    if (r == 0 && opened == -ENOENT)
        scheduler_say(look->s, SCHEDULER_NO_SCHEDSTAT, 0);
    r = r < 0 ? r : opened;
    if (r < 0)
        return r;
    struct sched_vcpu *other = vcpu_of_thread(look->vm, tid);
    if (other)
        bind_release(other);
    if (vcpu->tid)
        bind_release(vcpu);
    struct times times = {0};
    if (was_anothers(look, vcpu, &stat))
        r = fd >= 0 ? schedstat_read(fd, &times)
                    : schedstat_read_once(look->s->proc, look->vm->pid, tid, &times);
    if (r < 0)
        return r;
    vcpu->base = vcpu->last = times;
    vcpu->tid = tid;
    vcpu->start_ticks = stat.start_ticks;
    vcpu->fd = steal_fd(&fd);
    look->vm->just_bound = true;
    return 0;
}

void bind_close(struct sched_vm *vm)
{
    for (uint32_t i = 0; i < vm->n; i++) {
        vm->vcpus[i].fd = fd_close(vm->vcpus[i].fd);
        vm->vcpus[i].fresh = false;
        vm->vcpus[i].observed_ns = 0;
    }
    vm->closed = true;
}

static void open_again(struct look *look)
{
    for (uint32_t i = 0; i < look->vm->n; i++) {
        struct sched_vcpu *vcpu = &look->vm->vcpus[i];
        struct proc_stat stat;
        if (vcpu->tid && (open_times(look, vcpu->tid, &vcpu->fd) < 0 ||
                          proc_stat_read(&look->task, vcpu->tid, &stat) < 0 ||
                          stat.start_ticks != vcpu->start_ticks))
            bind_release(vcpu);
    }
    look->vm->closed = false;
}

/* --- by the kernel's word --- */

static void take_running(struct look *look)
{
    for (uint32_t i = 0; i < look->vm->n; i++) {
        struct sched_vcpu *vcpu = &look->vm->vcpus[i];
        pid_t tid = vcpu->hints[THREAD_HINT_RUNS];
        vcpu->hints[THREAD_HINT_RUNS] = 0;
        if (vcpu->wanted && tid && tid != vcpu->tid && bind_thread(look, vcpu, tid) == 0)
            vcpu->hints[THREAD_HINT_MADE] = 0;
    }
}

/* --- by names --- */

static int named_compare(const void *a, const void *b)
{
    const struct named *x = a, *y = b;
    if (x->number != y->number)
        return x->number < y->number ? -1 : 1;
    return (x->tid > y->tid) - (x->tid < y->tid);
}

/* The threads that have a vCPU thread's name. Returns 0 or -errno. */
static int list_named(struct look *look)
{
    CLEANUP_FREE pid_t *tids = NULL;
    size_t n;
    int r = proc_list(&look->task, &tids, &n);
    if (r < 0)
        return r;
    look->named = calloc(n + 1, sizeof *look->named);
    if (!look->named)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        CLEANUP_FREE char *name = NULL;
        size_t len;
        if (proc_read(&look->task, tids[i], "comm", COMM_BYTES, &name, &len) < 0)
            continue; /* it has just ended */
        name[strcspn(name, "\n")] = '\0';
        int32_t number = thread_names_number(look->vm->names, name);
        if (number >= 0)
            look->named[look->n++] = (struct named){.tid = tids[i], .number = number};
    }
    qsort(look->named, look->n, sizeof *look->named, named_compare);
    look->listed = true;
    return 0;
}

/* With two VMs in one process, names do not tell whose thread it is. */
static bool is_alone_in_process(const struct scheduler *s, const struct sched_vm *vm)
{
    for (size_t i = 0; i < s->n_vms; i++) {
        if (s->vms[i] != vm && s->vms[i]->pid == vm->pid)
            return false;
    }
    return true;
}

static uint32_t count_wanted(const struct sched_vm *vm)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < vm->n; i++)
        n += vm->vcpus[i].wanted;
    return n;
}

/* Whether there is one such thread for each of the VM's vCPUs, all of which are known. */
static bool are_in_order(const struct look *look)
{
    const struct sched_vm *vm = look->vm;
    if (!vm->names || look->n == 0 || look->n != count_wanted(vm) || look->n != vm->vm_vcpus)
        return false;
    for (size_t i = 1; i < look->n; i++) {
        if (look->named[i].number == look->named[i - 1].number)
            return false;
    }
    return is_alone_in_process(look->s, vm);
}

/* Whether what is bound is what the names say. */
static bool names_agree(const struct look *look)
{
    size_t place = 0;
    for (uint32_t i = 0; i < look->vm->n; i++) {
        const struct sched_vcpu *vcpu = &look->vm->vcpus[i];
        if (vcpu->wanted && vcpu->tid && vcpu->tid != look->named[place].tid)
            return false;
        place += vcpu->wanted;
    }
    return true;
}

static bool is_named(const struct look *look, pid_t tid)
{
    for (size_t i = 0; i < look->n; i++) {
        if (look->named[i].tid == tid)
            return true;
    }
    return false;
}

/* Whether two vCPUs claim the thread to have made them. */
static bool made_several(const struct sched_vm *vm, pid_t tid)
{
    unsigned n = 0;
    for (uint32_t i = 0; i < vm->n; i++)
        n += vm->vcpus[i].wanted && vm->vcpus[i].hints[THREAD_HINT_MADE] == tid;
    return n > 1;
}

/* Returns whether the names contradict one of them: then neither is to be believed. */
static bool take_makers(struct look *look)
{
    bool contradicted = false;
    size_t place = 0;
    for (uint32_t i = 0; i < look->vm->n; i++) {
        struct sched_vcpu *vcpu = &look->vm->vcpus[i];
        pid_t tid = vcpu->hints[THREAD_HINT_MADE];
        size_t at = place;
        place += vcpu->wanted;
        if (!vcpu->wanted || vcpu->tid || !tid || !look->s->initial_pid_namespace)
            continue;
        if (!proc_has_thread(look->s->proc, look->vm->pid, tid)) {
            vcpu->hints[THREAD_HINT_MADE] = 0;
            continue;
        }
        if (!is_named(look, tid) || vcpu_of_thread(look->vm, tid) || made_several(look->vm, tid))
            continue; /* its name may be to come */
        if (look->in_order && look->named[at].tid != tid)
            contradicted = true;
        else if (bind_thread(look, vcpu, tid) == 0)
            vcpu->hints[THREAD_HINT_MADE] = 0;
    }
    return contradicted;
}

static void take_names(struct look *look)
{
    size_t place = 0;
    if (!look->in_order || !names_agree(look))
        return;
    for (uint32_t i = 0; i < look->vm->n; i++) {
        struct sched_vcpu *vcpu = &look->vm->vcpus[i];
        if (!vcpu->wanted)
            continue;
        if (!vcpu->tid && bind_thread(look, vcpu, look->named[place].tid) < 0)
            return; /* it has just ended: the next look tells */
        place++;
    }
}

/* --- looking --- */

static bool lacks_threads(const struct sched_vm *vm)
{
    for (uint32_t i = 0; i < vm->n; i++) {
        if (vm->vcpus[i].wanted && !vm->vcpus[i].tid)
            return true;
    }
    return false;
}

/* /proc/PID/task of this very process. Returns 0 or -errno. */
static int open_task(struct look *look)
{
    const struct sched_vm *vm = look->vm;
    char path[PATH_BYTES];
    struct proc_stat stat;
    (void)snprintf(path, sizeof path, "%d/task", (int)vm->pid);
    look->task = *look->s->proc;
    look->task.dir_fd = openat(look->s->proc->dir_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (look->task.dir_fd < 0)
        return errno == ENOENT ? -ESRCH : -errno;
    /* A process starts with its first thread, which has the process's number. */
    int r = proc_stat_read(&look->task, vm->pid, &stat);
    if (r < 0)
        return r;
    return stat.start_ticks == vm->start_ticks ? 0 : -ESRCH;
}

static void find_threads(struct look *look)
{
    struct sched_vm *vm = look->vm;
    if (vm->closed)
        open_again(look);
    take_running(look);
    if (!lacks_threads(vm) || list_named(look) < 0)
        return;
    look->in_order = are_in_order(look);
    if (!take_makers(look))
        take_names(look);
    vm->all_named_bound = look->n > 0;
    for (size_t i = 0; i < look->n && vm->all_named_bound; i++)
        vm->all_named_bound = vcpu_of_thread(vm, look->named[i].tid) != NULL;
}

void bind_look(struct scheduler *s, struct sched_vm *vm, int64_t now_ns)
{
    CLEANUP(look_deinit) struct look look = {.s = s, .vm = vm, .task.dir_fd = -1};
    vm->all_named_bound = false;
    int r = open_task(&look);
    if (r == 0) {
        vm->seen = true;
        find_threads(&look);
    }
    /* One that has ended is taken out; one that is there and was never seen is hidden. */
    bool hidden = r == -ESRCH && !vm->seen && vm->misses >= MISSES_HIDDEN;
    if (r == -EACCES || r == -EPERM || hidden)
        scheduler_say(s, SCHEDULER_FORBIDDEN, r);
    if (r == 0 && !lacks_threads(vm)) {
        vm->misses = 0;
        vm->look_due_ns = INT64_MAX;
        return;
    }
    vm->look_due_ns =
        now_ns + ((AGAIN_MS * NSEC_PER_MSEC) << MIN_OF(vm->misses, (unsigned)AGAIN_DOUBLINGS));
    vm->misses++;
}

void bind_count(struct scheduler *s, struct sched_vm *vm, int64_t now_ns)
{
    char path[PATH_BYTES];
    struct stat stat;
    if (!lacks_threads(vm))
        return;
    (void)snprintf(path, sizeof path, "%d/task", (int)vm->pid);
    if (fstatat(s->proc->dir_fd, path, &stat, 0) < 0 || stat.st_nlink == vm->n_threads)
        return;
    vm->n_threads = stat.st_nlink;
    vm->look_due_ns = now_ns;
}
