/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was given outlives us in systemd's store. A VMM's library gives everything again by itself,
 * but that takes a moment, and a VMM that gave by a single message does not. What comes back is as
 * what was given on a connection that has ended: the VMM may give it once more and it stays the
 * same.
 *
 * The files say themselves what they are, by the kernel's word. What the VMM calls its VM goes into
 * a file in memory of its own.
 */
#include "given_internal.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>

#include "kvmstats/handoff-protocol.h"

enum {
    HINT_BYTES = KVMSTATD_HANDOFF_NAME_BYTES_MAX + 1 + KVMSTATD_HANDOFF_UUID_BYTES + 1,
};

/* --- to the store --- */

/* Name and uuid, each with its NUL; it cannot be changed any more. Returns an fd or -errno. */
static int make_hint(const struct given_vm *vm)
{
    const struct {
        const char *text;
        size_t len;
    } parts[] = {{vm->name, strlen(vm->name) + 1}, {vm->uuid, strlen(vm->uuid) + 1}};
    CLEANUP_FD int fd = memfd_create("kvmstatd-names", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        if (write(fd, parts[i].text, parts[i].len) != (ssize_t)parts[i].len)
            return -EIO;
    }
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK) < 0)
        return -errno;
    return steal_fd(&fd);
}

static int store_hint(struct given *given, const struct given_vm *vm)
{
    if (!*vm->name && !*vm->uuid)
        return 0;
    CLEANUP_FD int fd = make_hint(vm);
    return fd < 0 ? fd : fdstore_add(given->store, vm->stored_as, fd);
}

static void say_not_stored(struct given *given, const struct given_vm *vm, int r)
{
    if (!given->store_trouble_said)
        log_warn("handoff",
                 "what pid %d has handed over cannot be put into systemd's store: %s; until it is "
                 "given again, a restart will be without it",
                 (int)given_pid(vm), strerror(-r));
    given->store_trouble_said = true;
}

static int store_all(struct given *given, const struct given_vm *vm)
{
    int r = store_hint(given, vm);
    if (r == 0 && vm->pin_fd >= 0)
        r = fdstore_add(given->store, vm->stored_as, vm->pin_fd);
    for (size_t i = 0; r == 0 && i < vm->n; i++)
        r = fdstore_add(given->store, vm->stored_as, vm->files[i].fd);
    return r;
}

void given_store_vm(struct given *given, struct given_vm *vm)
{
    struct proc_stat stat = {0};
    char name[FDSTORE_NAME_BYTES];
    if (!given->store)
        return;
    int r = proc_stat_read(given->d->proc, given_pid(vm), &stat);
    const struct fdstore_vm id = {
        .pid = given_pid(vm),
        .start_ticks = stat.start_ticks,
        .uid = vm->uid,
        .number = (uint64_t)clock_now_ns(),
    };
    if (r == 0) {
        fdstore_name(&id, name);
        vm->stored_as = strdup(name);
        r = vm->stored_as ? store_all(given, vm) : -ENOMEM;
    }
    if (r < 0)
        say_not_stored(given, vm, r);
}

void given_store_file(struct given *given, struct given_vm *vm, int fd)
{
    int r = vm->stored_as ? fdstore_add(given->store, vm->stored_as, fd) : 0;
    if (r < 0)
        say_not_stored(given, vm, r);
}

void given_unstore_file(struct given *given, struct given_vm *vm)
{
    if (!vm->stored_as)
        return;
    /* A name is all that can be removed by: the others are put there anew. */
    fdstore_remove(given->store, vm->stored_as);
    int r = store_all(given, vm);
    if (r < 0)
        say_not_stored(given, vm, r);
}

void given_unstore_vm(struct given *given, struct given_vm *vm)
{
    if (vm->stored_as)
        fdstore_remove(given->store, vm->stored_as);
    free(vm->stored_as);
    vm->stored_as = NULL;
}

/* --- and back --- */

/* Nothing but what make_hint() has made; without it the VM has no name from its VMM. */
static void read_hint(int fd, struct given_vm *vm)
{
    char text[HINT_BYTES + 1];
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || !(seals & F_SEAL_WRITE))
        return;
    ssize_t n = pread(fd, text, HINT_BYTES, 0);
    if (n <= 0)
        return;
    text[n] = '\0';
    const char *uuid = memchr(text, '\0', (size_t)n);
    char *name = strdup(text), *copy = strdup(uuid && uuid + 1 < text + n ? uuid + 1 : "");
    if (!name || !copy) {
        free(name);
        free(copy);
        return;
    }
    free(vm->name);
    free(vm->uuid);
    vm->name = name;
    vm->uuid = copy;
}

/* Takes the fd, whatever it is. */
static void take_back(struct given *given, struct given_vm *vm, int fd)
{
    struct kvm_file file;
    int r = broker_identify(given->d->broker, fd, &file);
    if (r == 0) {
        read_hint(fd, vm);
    } else if (r > 0 && file.kind == KVM_FILE_VM && vm->pin_fd < 0) {
        vm->pin_fd = fd;
        return;
    } else if (r > 0 && (file.kind == KVM_FILE_VM_STATS || file.kind == KVM_FILE_VCPU_STATS) &&
               !given_find_file(vm, file.vcpu) && given_add_file(vm, file.vcpu, fd) == 0) {
        return;
    }
    handoff_close_fd(given->handoff, fd);
}

/* A pidfd of that very process, or -errno. */
static int open_process(const struct given *given, const struct fdstore_vm *id)
{
    struct proc_stat stat;
    CLEANUP_FD int pidfd = pidfd_open(id->pid, 0);
    if (pidfd < 0)
        return -errno;
    int r = proc_stat_read(given->d->proc, id->pid, &stat);
    if (r < 0)
        return r;
    return stat.start_ticks == id->start_ticks ? steal_fd(&pidfd) : -ESRCH;
}

/* An empty VM to take files back into, or NULL. */
static struct given_vm *begin_vm(struct given *given, const struct fdstore_vm *id, const char *name)
{
    CLEANUP_FD int pidfd = open_process(given, id);
    if (pidfd < 0 || !handoff_would_take(given->handoff, id->uid) ||
        given->n_vms >= given->d->config->limits.max_vms)
        return NULL;
    const struct handoff_peer peer = {.pid = id->pid, .uid = id->uid, .pidfd = pidfd};
    const struct handoff_vm nameless = {.stats_fd = -1, .vm_fd = -1, .name = "", .uuid = ""};
    struct given_vm *vm = given_add_vm(given, &peer, &nameless);
    if (vm)
        vm->stored_as = strdup(name);
    return vm;
}

static void restore_vm(struct given *given, struct passed_fd *fds, size_t n)
{
    struct fdstore_vm id;
    const char *name = fds->name;
    struct given_vm *vm = fdstore_parse_name(name, &id) ? begin_vm(given, &id, name) : NULL;
    for (size_t i = 0; i < n; i++) {
        if (vm)
            take_back(given, vm, steal_fd(&fds[i].fd));
        else
            handoff_close_fd(given->handoff, steal_fd(&fds[i].fd));
    }
    if (!vm || vm->n == 0) {
        fdstore_remove(given->store, name);
        if (vm)
            given_free_vm(given, vm);
        return;
    }
    for (size_t i = 0; i < vm->n; i++)
        vm->files[i].late = true;
    given_touch(given, vm);
}

void given_take_stored(struct given *given, struct passed_fds *passed)
{
    struct fdstore_vm id;
    struct passed_fd *fds = calloc(passed->n + 1, sizeof *fds);
    for (size_t i = 0; fds && i < passed->n; i++) {
        struct passed_fd *at = &passed->fds[i];
        if (at->fd < 0 || !fdstore_parse_name(at->name, &id))
            continue;
        fds[given->restored.n++] = (struct passed_fd){steal_fd(&at->fd), steal_ptr(&at->name)};
    }
    given->restored.fds = fds;
}

void given_restore(struct given *given)
{
    size_t n_vms = 0, n_files = 0;
    struct passed_fd *fds = given->restored.fds;
    fdstore_sort(&given->restored);
    for (size_t i = 0, end; i < given->restored.n; i = end) {
        for (end = i + 1; end < given->restored.n && strcmp(fds[end].name, fds[i].name) == 0;)
            end++;
        restore_vm(given, fds + i, end - i);
    }
    passed_fds_free(&given->restored);
    for (const struct given_vm *vm = given->vms; vm; vm = vm->next) {
        n_vms++;
        n_files += vm->n;
    }
    if (n_vms)
        log_info("handoff",
                 "%zu VM(s) that were handed over before came back from systemd, with %zu "
                 "statistics files",
                 n_vms, n_files);
}
