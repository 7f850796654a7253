/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is borrowed is checked after it has arrived, by our own /proc/self/fd: between listing and
 * borrowing the process may have closed the file and put another at its number, and reading from
 * some other driver's file could do anything. A duplicate that only we refer to by its number
 * cannot change any more.
 */
#include "broker.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

enum {
    LINK_BYTES = 64, /* the longest text of a KVM file is "anon_inode:kvm-vcpu-stats:2147483647" */
    DIRENTS_BYTES = 32 * 1024,
    PATH_BYTES = 64,
    FILES_FIRST = 8,
};

struct broker {
    const struct proc *proc;
    int self_fds; /* /proc/self/fd: always the real one */
    char *dirents;
    struct bpf_source *bpf; /* owned; NULL before broker_bpf_open() */
    bool safety_known;
    enum stats_fd_safety safety;
};

int broker_new(const struct proc *proc, struct broker **ret_broker)
{
    CLEANUP_FD int self_fds = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (self_fds < 0)
        return -errno;
    CLEANUP_FREE char *dirents = malloc(DIRENTS_BYTES);
    struct broker *broker = calloc(1, sizeof *broker);
    if (!broker || !dirents) {
        free(broker);
        return -ENOMEM;
    }
    broker->proc = proc;
    broker->self_fds = steal_fd(&self_fds);
    broker->dirents = steal_ptr(&dirents);
    *ret_broker = broker;
    return 0;
}

void broker_free(struct broker *broker)
{
    if (!broker)
        return;
    broker->self_fds = fd_close(broker->self_fds);
    bpf_source_free(broker->bpf);
    free(broker->dirents);
    free(broker);
}

/* Returns 1 and the file when `name` in the fd directory links to a KVM file, 0 when not, -errno.
 */
static int read_link(int dir_fd, const char *name, struct kvm_file *ret_file)
{
    char link[LINK_BYTES];
    enum kvm_file_kind kind;
    int32_t vcpu;
    ssize_t n = readlinkat(dir_fd, name, link, sizeof link);
    if (n < 0)
        return -errno;
    if ((size_t)n == sizeof link || !kvm_file_parse(link, (size_t)n, &kind, &vcpu))
        return 0;
    *ret_file = (struct kvm_file){.fd = atoi(name), .kind = kind, .vcpu = vcpu};
    return 1;
}

static int list_append(struct kvm_file_list *list, size_t *capacity, const struct kvm_file *file)
{
    if (list->n == *capacity) {
        size_t larger = *capacity ? *capacity * 2 : FILES_FIRST;
        struct kvm_file *files = reallocarray(list->files, larger, sizeof *files);
        if (!files)
            return -ENOMEM;
        list->files = files;
        *capacity = larger;
    }
    list->files[list->n++] = *file;
    return 0;
}

static int file_compare(const void *a, const void *b)
{
    const struct kvm_file *x = a, *y = b;
    return (x->fd > y->fd) - (x->fd < y->fd);
}

/* One getdents64() full of fds. */
static int list_entries(int dir_fd, const char *dirents, size_t len, struct kvm_file_list *list,
                        size_t *capacity)
{
    for (size_t at = 0; at < len;) {
        const struct dirent64 *entry = (const void *)(dirents + at);
        struct kvm_file file;
        at += entry->d_reclen;
        if (entry->d_name[0] < '0' || entry->d_name[0] > '9')
            continue;
        list->n_fds++;
        int r = read_link(dir_fd, entry->d_name, &file);
        if (r == -ENOENT)
            continue; /* closed meanwhile */
        if (r == 1)
            r = list_append(list, capacity, &file);
        if (r < 0)
            return r;
    }
    return 0;
}

static int list_fds(struct broker *broker, pid_t pid, struct kvm_file_list *list)
{
    char path[PATH_BYTES];
    size_t capacity = 0;

    (void)snprintf(path, sizeof path, "%d/fd", (int)pid);
    CLEANUP_FD int dir_fd = openat(broker->proc->dir_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0)
        return -errno;
    for (;;) {
        ssize_t len = getdents64(dir_fd, broker->dirents, DIRENTS_BYTES);
        if (len < 0)
            return -errno;
        if (len == 0)
            return 0;
        int r = list_entries(dir_fd, broker->dirents, (size_t)len, list, &capacity);
        if (r < 0)
            return r;
    }
}

int broker_list(struct broker *broker, pid_t pid, struct kvm_file_list *ret_list)
{
    CLEANUP(kvm_file_list_free) struct kvm_file_list list = {0};
    struct proc_stat stat;

    int r = list_fds(broker, pid, &list);
    if (r == -ENOENT)
        return -ESRCH;
    /* The kernel says "not allowed" of a process that has just ended, too. */
    if (r == -EACCES && proc_stat_read(broker->proc, pid, &stat) == -ESRCH)
        return -ESRCH;
    if (r < 0)
        return r;
    if (list.n > 1)
        qsort(list.files, list.n, sizeof *list.files, file_compare);
    *ret_list = list;
    list = (struct kvm_file_list){0};
    return 0;
}

static bool is_stats(enum kvm_file_kind kind)
{
    return kind == KVM_FILE_VM_STATS || kind == KVM_FILE_VCPU_STATS;
}

static int borrow(struct broker *broker, int pidfd, const struct kvm_file *file, int *ret_fd)
{
    char name[PATH_BYTES];
    struct kvm_file found = {0};
    struct rlimit limit;

    CLEANUP_FD int fd = pidfd_getfd(pidfd, file->fd, 0);
    if (fd < 0)
        return errno == EBADF ? -ESTALE : -errno;
    (void)snprintf(name, sizeof name, "%d", fd);
    int r = read_link(broker->self_fds, name, &found);
    if (r < 0)
        return r;
    if (r == 0 || found.kind != file->kind || found.vcpu != file->vcpu)
        return -ESTALE;
    /* The kernel gives the lowest free number: one near the limit means that few are left. */
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur > 2 * BROKER_FDS_RESERVED &&
        (rlim_t)fd >= limit.rlim_cur - BROKER_FDS_RESERVED)
        return -EMFILE;
    *ret_fd = steal_fd(&fd);
    return 0;
}

int broker_identify(struct broker *broker, int fd, struct kvm_file *ret_file)
{
    char name[PATH_BYTES];
    (void)snprintf(name, sizeof name, "%d", fd);
    return read_link(broker->self_fds, name, ret_file);
}

int broker_borrow(struct broker *broker, int pidfd, const struct kvm_file *file, int *ret_fd)
{
    return is_stats(file->kind) ? borrow(broker, pidfd, file, ret_fd) : -EINVAL;
}

int broker_borrow_pin(struct broker *broker, int pidfd, const struct kvm_file *file, int *ret_fd)
{
    return is_stats(file->kind) ? -EINVAL : borrow(broker, pidfd, file, ret_fd);
}

enum stats_fd_safety broker_safety(struct broker *broker)
{
    if (!broker->safety_known)
        broker_set_safety(broker, stats_fd_probe());
    return broker->safety;
}

void broker_set_safety(struct broker *broker, enum stats_fd_safety safety)
{
    broker->safety = safety;
    broker->safety_known = true;
}

int broker_bpf_open(struct broker *broker, struct bpf_error *ret_error)
{
    return broker->bpf ? 0 : bpf_source_new(&broker->bpf, ret_error);
}

int broker_bpf_list(struct broker *broker, struct bpf_kvm_file **ret_files, size_t *ret_n)
{
    return broker->bpf ? bpf_source_list(broker->bpf, ret_files, ret_n) : -EINVAL;
}

uint64_t broker_bpf_block(const struct broker *broker, enum scope scope,
                          const struct bpf_kvm_file *file)
{
    return bpf_source_block(broker->bpf, scope, file);
}

void broker_bpf_wanted(const struct broker *broker, enum scope scope,
                       const struct bpf_kvm_file *file, struct bpf_wanted *ret_wanted)
{
    bpf_source_wanted(broker->bpf, scope, file, ret_wanted);
}

int broker_schemas(struct broker *broker, struct schema_table *table,
                   const struct schema *ret_schemas[2], struct bpf_error *ret_error)
{
    (void)broker;
    return bpf_source_schemas(table, ret_schemas, ret_error);
}

int broker_order_files(struct broker *broker, pid_t pid_a, int fd_a, pid_t pid_b, int fd_b,
                       int *ret_order)
{
    (void)broker;
    long r = syscall(SYS_kcmp, pid_a, pid_b, KCMP_FILE, (unsigned long)fd_a, (unsigned long)fd_b);
    if (r < 0)
        return -errno;
    *ret_order = r == 0 ? 0 : r == 1 ? -1 : 1; /* kcmp(2): 1 is less, 2 is greater */
    return 0;
}

int broker_same_file(struct broker *broker, pid_t pid_a, int fd_a, pid_t pid_b, int fd_b)
{
    int order;
    int r = broker_order_files(broker, pid_a, fd_a, pid_b, fd_b, &order);
    return r < 0 ? r : order == 0;
}

int broker_still_there(struct broker *broker, pid_t pid, const struct kvm_file *file, int our_fd)
{
    char path[PATH_BYTES];
    struct kvm_file found = {0};

    if (our_fd >= 0) {
        int r = broker_same_file(broker, getpid(), our_fd, pid, file->fd);
        if (r == -EBADF)
            return 0;
        if (r != -ENOSYS)
            return r;
    }
    (void)snprintf(path, sizeof path, "%d/fd/%d", (int)pid, file->fd);
    int r = read_link(broker->proc->dir_fd, path, &found);
    if (r == -ENOENT)
        return 0;
    return r <= 0 ? r : found.kind == file->kind && found.vcpu == file->vcpu;
}
