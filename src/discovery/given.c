/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two steps: what comes over the socket is only noted (given_collect), and once the kernel's events
 * have been read, too, it is found out what it means (given_settle). The kernel tells of a VM
 * before its VMM can, so a VM that is given is then no news.
 *
 * Which VM it is, the VM's own file tells exactly, where it was given along. Otherwise it can only
 * be the one VM of its process.
 */
#include "given.h"

#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>

#include "given_internal.h"

enum {
    EVENTS_AT_ONCE = 64,
    /* A VMM gives a VM back just before it closes it. */
    LOOK_AFTER_GONE_MS = 50,
    FDS_PER_VM = 1,   /* of its process */
    FDS_PER_FILE = 2, /* one is kept here, one is read */
    /* Longer than the client library waits before it connects again: a process may have two. */
    FORGET_AFTER_MS = 10000,
    LEFT_TO_OTHERS = 8, /* one in so many VMs and fds no single user gets */
};

/* --- the table --- */

static struct given_vm *find(struct given *given, uint64_t peer, uint64_t number)
{
    for (struct given_vm *vm = given->vms; vm; vm = vm->next) {
        if (vm->peer == peer && vm->number == number)
            return vm;
    }
    return NULL;
}

static struct given_file *find_file(const struct given_vm *vm, int32_t vcpu)
{
    for (size_t i = 0; vm && i < vm->n; i++) {
        if (vm->files[i].vcpu == vcpu)
            return &vm->files[i];
    }
    return NULL;
}

const struct given_file *given_find_file(const struct given_vm *vm, int32_t vcpu)
{
    return find_file(vm, vcpu);
}

int given_pidfd(const struct given_vm *vm)
{
    return vm->process->pidfd;
}

pid_t given_pid(const struct given_vm *vm)
{
    return vm->process->pid;
}

void given_touch(struct given *given, struct given_vm *vm)
{
    if (!vm->changed)
        vm->changed_ns = clock_now_ns();
    vm->changed = true;
    given->changed = true;
}

static void free_process(struct given *given, struct given_process *process)
{
    struct given_process **at = &given->processes;
    while (*at != process)
        at = &(*at)->next;
    *at = process->next;
    /* The connection may have the same open file: closing ours alone would leave the watch. */
    (void)epoll_ctl(given->epoll_fd, EPOLL_CTL_DEL, process->pidfd, NULL);
    process->pidfd = fd_close(process->pidfd);
    free(process);
}

/* Its pidfd is one for all VMs of a process. */
static struct given_process *get_process(struct given *given, const struct handoff_peer *peer)
{
    for (struct given_process *process = given->processes; process; process = process->next) {
        if (process->pid == peer->pid && !process->exited)
            return process;
    }
    struct given_process *process = calloc(1, sizeof *process);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = process};
    if (!process)
        return NULL;
    process->pid = peer->pid;
    process->forget_ns = INT64_MAX;
    process->pidfd = fcntl(peer->pidfd, F_DUPFD_CLOEXEC, 0);
    if (process->pidfd < 0 ||
        epoll_ctl(given->epoll_fd, EPOLL_CTL_ADD, process->pidfd, &event) < 0) {
        (void)fd_close(process->pidfd);
        free(process);
        return NULL;
    }
    process->next = given->processes;
    given->processes = process;
    return process;
}

void given_free_vm(struct given *given, struct given_vm *vm)
{
    struct given_vm **at = &given->vms;
    while (*at && *at != vm)
        at = &(*at)->next;
    if (*at) {
        *at = vm->next;
        given->n_vms--;
        vm->process->n_vms--;
    }
    given_unstore_vm(given, vm);
    for (size_t i = 0; i < vm->n; i++)
        handoff_close_fd(given->handoff, vm->files[i].fd);
    handoff_close_fd(given->handoff, vm->pin_fd);
    free(vm->files);
    free(vm->name);
    free(vm->uuid);
    if (vm->process && vm->process->n_vms == 0)
        free_process(given, vm->process);
    free(vm);
}

int given_add_file(struct given_vm *vm, int32_t vcpu, int fd)
{
    size_t at = 0;
    if (vm->n == vm->capacity) {
        size_t larger = vm->capacity ? vm->capacity * 2 : 4;
        struct given_file *files = reallocarray(vm->files, larger, sizeof *files);
        if (!files)
            return -ENOMEM;
        vm->files = files;
        vm->capacity = larger;
    }
    while (at < vm->n && vm->files[at].vcpu < vcpu)
        at++;
    memmove(vm->files + at + 1, vm->files + at, (vm->n - at) * sizeof *vm->files);
    vm->files[at] = (struct given_file){.vcpu = vcpu, .fd = fd};
    vm->n++;
    return 0;
}

static void drop_file(struct given *given, struct given_vm *vm, const struct given_file *file)
{
    size_t at = (size_t)(file - vm->files);
    handoff_close_fd(given->handoff, file->fd);
    vm->n--;
    memmove(vm->files + at, vm->files + at + 1, (vm->n - at) * sizeof *vm->files);
}

/* --- what comes from the socket --- */

bool given_same_file(struct discovery *d, int a, int b)
{
    return a >= 0 && b >= 0 && broker_same_file(d->broker, d->self, a, d->self, b) > 0;
}

/* The same VM, given by this process on a connection that has ended. */
static struct given_vm *find_earlier(struct given *given, const struct handoff_peer *peer,
                                     const struct handoff_vm *vm)
{
    for (struct given_vm *other = given->vms; other; other = other->next) {
        const struct given_file *stats = given_find_file(other, -1);
        if (other->peer == 0 && other->process->pid == peer->pid && !other->process->exited &&
            (given_same_file(given->d, other->pin_fd, vm->vm_fd) ||
             (stats && given_same_file(given->d, stats->fd, vm->stats_fd))))
            return other;
    }
    return NULL;
}

/* Under another number: then it is no news, and takes no place of another's VM. */
static bool is_given_here(const struct given *given, const struct handoff_peer *peer,
                          const struct handoff_vm *vm)
{
    for (const struct given_vm *other = given->vms; other; other = other->next) {
        const struct given_file *stats = given_find_file(other, -1);
        if (other->peer == peer->id &&
            (given_same_file(given->d, other->pin_fd, vm->vm_fd) ||
             (stats && given_same_file(given->d, stats->fd, vm->stats_fd))))
            return true;
    }
    return false;
}

/* Whether there is room for more files of this user's, the newest of which is `fd`. */
static bool has_room(const struct given *given, uid_t uid, size_t vms, int fd)
{
    size_t most_vms = given->d->config->limits.max_vms, most_fds = broker_fds_most();
    size_t n_vms = 0, n_fds = 0;
    for (const struct given_vm *vm = given->vms; vm; vm = vm->next) {
        if (vm->uid != uid)
            continue;
        n_vms++;
        n_fds += FDS_PER_VM + FDS_PER_FILE * (vm->n + (vm->pin_fd >= 0));
    }
    return given->n_vms + vms <= most_vms && n_vms + vms <= most_vms - most_vms / LEFT_TO_OTHERS &&
           n_fds < most_fds - most_fds / LEFT_TO_OTHERS && !broker_fds_are_short(fd);
}

struct given_vm *given_add_vm(struct given *given, const struct handoff_peer *peer,
                              const struct handoff_vm *spec)
{
    struct given_vm *vm = calloc(1, sizeof *vm);
    if (!vm)
        return NULL;
    vm->pin_fd = -1;
    vm->peer = peer->id;
    vm->uid = peer->uid;
    vm->number = spec->vm;
    vm->name = strdup(spec->name);
    vm->uuid = strdup(spec->uuid);
    vm->process = get_process(given, peer);
    if (!vm->name || !vm->uuid || !vm->process) {
        given_free_vm(given, vm);
        return NULL;
    }
    vm->process->n_vms++;
    vm->next = given->vms;
    given->vms = vm;
    given->n_vms++;
    return vm;
}

static int vm_given(void *ctx, const struct handoff_peer *peer, const struct handoff_vm *spec)
{
    struct given *given = ctx;
    if (find(given, peer->id, spec->vm))
        return -EEXIST;
    struct given_vm *vm = find_earlier(given, peer, spec);
    if (vm) {
        /* Nobody will notice: what is given again is what we have. */
        vm->peer = peer->id;
        vm->number = spec->vm;
        struct given_file *stats = find_file(vm, -1);
        if (stats)
            stats->late = false;
        handoff_close_fd(given->handoff, spec->stats_fd);
        handoff_close_fd(given->handoff, spec->vm_fd);
        return 0;
    }
    if (is_given_here(given, peer, spec))
        return -EEXIST;
    if (!has_room(given, peer->uid, 1, MAX_OF(spec->stats_fd, spec->vm_fd)))
        return -ENOSPC;
    vm = given_add_vm(given, peer, spec);
    if (!vm)
        return -ENOMEM;
    if (given_add_file(vm, -1, spec->stats_fd) < 0) {
        given_free_vm(given, vm);
        return -ENOMEM;
    }
    vm->pin_fd = spec->vm_fd;
    given_store_vm(given, vm);
    given_touch(given, vm);
    return 0;
}

static int vcpu_given(void *ctx, const struct handoff_peer *peer, const struct handoff_vcpu *spec)
{
    struct given *given = ctx;
    struct given_vm *vm = find(given, peer->id, spec->vm);
    if (!vm)
        return -ENOENT;
    struct given_file *there = find_file(vm, spec->vcpu);
    if (there && there->late) {
        /* Even if it is another open file: it is the same vCPU, and ours reads it. */
        there->late = false;
        handoff_close_fd(given->handoff, spec->stats_fd);
        return 0;
    }
    if (there)
        return -EEXIST;
    if (vm->n > given->d->config->limits.max_vcpus_per_vm ||
        !has_room(given, peer->uid, 0, spec->stats_fd))
        return -ENOSPC;
    int r = given_add_file(vm, spec->vcpu, spec->stats_fd);
    if (r < 0)
        return r;
    given_store_file(given, vm, spec->stats_fd);
    given_touch(given, vm);
    return 0;
}

/* The VM has lost what was given of it. */
static void let_go(struct given *given, struct given_vm *vm)
{
    struct discovery *d = given->d;
    struct found_vm *found = vm->vm;
    pid_t pid = vm->process->pid;
    bool exited = vm->process->exited;
    given_free_vm(given, vm);
    if (!found) {
        looks_add(d, pid, clock_now_ns() + LOOK_AFTER_GONE_MS * NSEC_PER_MSEC);
        return;
    }
    found->given = NULL;
    if (found->key_fd < 0 && !found->kvm && found->creator_tid == 0) {
        look_undo_denied(d, found); /* all we knew of it was that it had been given */
        return;
    }
    /* Another may have been given of the same VM. */
    for (struct given_vm *other = given->vms; other; other = other->next) {
        if (!other->vm)
            given_touch(given, other);
    }
    if (!exited || found->owner->pid != pid)
        attach_refresh(d, found);
    looks_add(d, pid, clock_now_ns() + (exited ? 0 : LOOK_AFTER_GONE_MS * NSEC_PER_MSEC));
}

static int vm_gone(void *ctx, const struct handoff_peer *peer, uint64_t number)
{
    struct given *given = ctx;
    struct given_vm *vm = find(given, peer->id, number);
    if (!vm)
        return -ENOENT;
    let_go(given, vm);
    return 0;
}

static int vcpu_gone(void *ctx, const struct handoff_peer *peer, uint64_t number, int32_t vcpu)
{
    struct given *given = ctx;
    struct given_vm *vm = find(given, peer->id, number);
    const struct given_file *file = given_find_file(vm, vcpu);
    if (!file)
        return -ENOENT;
    drop_file(given, vm, file);
    given_unstore_file(given, vm);
    given_touch(given, vm);
    return 0;
}

/* What it had given before, on a connection that has ended, and has taken back meanwhile. */
static void all_given(void *ctx, const struct handoff_peer *peer)
{
    struct given *given = ctx;
    for (struct given_process *process = given->processes; process; process = process->next) {
        if (process->pid == peer->pid && !process->exited)
            process->forget_ns = clock_now_ns() + FORGET_AFTER_MS * NSEC_PER_MSEC;
    }
}

static void drop_late(struct given *given, struct given_vm *vm)
{
    size_t before = vm->n;
    for (size_t i = vm->n; i-- > 0;) {
        if (vm->files[i].late)
            drop_file(given, vm, &vm->files[i]);
    }
    if (vm->n == before)
        return;
    given_unstore_file(given, vm);
    given_touch(given, vm);
}

static int64_t due_to_forget_ns(const struct given *given)
{
    int64_t due_ns = INT64_MAX;
    for (const struct given_process *process = given->processes; process; process = process->next)
        due_ns = MIN_OF(due_ns, process->forget_ns);
    return due_ns;
}

static void forget_taken_back(struct given *given)
{
    struct given_vm *next;
    int64_t now_ns = clock_now_ns();
    if (now_ns < due_to_forget_ns(given))
        return;
    for (struct given_vm *vm = given->vms; vm; vm = next) {
        next = vm->next;
        if (now_ns < vm->process->forget_ns)
            continue;
        if (vm->peer == 0)
            let_go(given, vm);
        else
            drop_late(given, vm);
    }
    for (struct given_process *process = given->processes; process; process = process->next) {
        if (now_ns >= process->forget_ns)
            process->forget_ns = INT64_MAX;
    }
}

static void peer_gone(void *ctx, const struct handoff_peer *peer, bool revoked)
{
    struct given *given = ctx;
    struct given_vm *next;
    for (struct given_vm *vm = given->vms; vm; vm = next) {
        next = vm->next;
        if (vm->peer != peer->id)
            continue;
        vm->peer = 0;
        for (size_t i = 0; i < vm->n; i++)
            vm->files[i].late = true;
        if (revoked)
            let_go(given, vm);
    }
}

/* --- processes that end --- */

static void process_exited(struct given *given, struct given_process *process)
{
    struct given_vm *next;
    process->exited = true;
    for (struct given_vm *vm = given->vms; vm; vm = next) {
        next = vm->next;
        if (vm->process == process)
            let_go(given, vm); /* the last one takes the process with it */
    }
}

void given_collect(struct given *given)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    int n = epoll_wait(given->epoll_fd, events, EVENTS_AT_ONCE, 0);
    for (int i = 0; i < n; i++) {
        if (events[i].data.ptr)
            process_exited(given, events[i].data.ptr);
    }
    handoff_dispatch(given->handoff);
    forget_taken_back(given);
}

void given_unmatch(struct given *given, struct found_vm *vm)
{
    if (!vm->given)
        return;
    vm->given->vm = NULL;
    given_touch(given, vm->given); /* it is over, or it has turned out to be another */
    vm->given = NULL;
}

/* --- life --- */

int given_new(struct discovery *d, struct given **ret_given)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    struct given *given = calloc(1, sizeof *given);
    if (!given)
        return -ENOMEM;
    const struct handoff_receiver receiver = {
        .ctx = given,
        .vm_given = vm_given,
        .vcpu_given = vcpu_given,
        .vm_gone = vm_gone,
        .vcpu_gone = vcpu_gone,
        .all_given = all_given,
        .peer_gone = peer_gone,
    };
    given->d = d;
    given->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int r = given->epoll_fd < 0 ? -errno : 0;
    if (r == 0)
        r = handoff_new(d->broker, &d->store->self, d->config, &receiver, &given->handoff);
    if (r == 0 &&
        epoll_ctl(given->epoll_fd, EPOLL_CTL_ADD, handoff_epoll_fd(given->handoff), &event) < 0)
        r = -errno;
    if (r < 0)
        given_free(given);
    else
        *ret_given = given;
    return r;
}

void given_free(struct given *given)
{
    if (!given)
        return;
    /* What is in the store stays there: it is for who comes after us. */
    fdstore_free(given->store);
    given->store = NULL;
    passed_fds_free(&given->restored);
    while (given->vms)
        given_free_vm(given, given->vms);
    handoff_free(given->handoff);
    given->epoll_fd = fd_close(given->epoll_fd);
    free(given);
}

void given_take_passed(struct given *given, struct passed_fds *passed)
{
    int fd = passed_fds_take(passed, PASSED_HANDOFF);
    if (fd >= 0)
        handoff_use_socket(given->handoff, fd);
    given_take_stored(given, passed);
}

int given_start(struct given *given)
{
    int r = handoff_start(given->handoff);
    return r < 0 ? r : fdstore_new(&given->store);
}

int given_prepare(const struct given *given, const struct config *former,
                  const struct config *config, struct handoff_prepared *ret_prepared,
                  struct config_error *ret_error)
{
    return handoff_prepare(given->handoff, former, config, ret_prepared, ret_error);
}

void given_set_config(struct given *given, struct config *config, struct handoff_prepared *prepared)
{
    struct given_vm *next;
    handoff_set_config(given->handoff, config, prepared);
    /* Of connections that are open, it has seen to that. */
    for (struct given_vm *vm = given->vms; vm; vm = next) {
        next = vm->next;
        if (vm->peer == 0 && !handoff_allows(given->handoff, vm->uid))
            let_go(given, vm);
    }
}

int given_epoll_fd(const struct given *given)
{
    return given->epoll_fd;
}

int64_t given_due_ns(const struct given *given)
{
    return MIN_OF(handoff_due_ns(given->handoff), due_to_forget_ns(given));
}
