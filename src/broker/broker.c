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
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "fdinfo.h"

enum {
    LINK_BYTES = 64, /* the longest text of a KVM file is "anon_inode:kvm-vcpu-stats:2147483647" */
    DIRENTS_BYTES = 32 * 1024,
    PATH_BYTES = 64,
    FILES_FIRST = 8,
};

struct broker {
    const struct proc *proc;
    int self_fds; /* /proc/self/fd: always the real one */
    uint64_t anonymous_inode;
    char *dirents;
    struct bpf_source *bpf; /* owned; NULL before broker_bpf_open() */
    bool safety_known;
    enum stats_fd_safety safety;
};

/* The inode number that all anonymous files share. Returns 0 or -errno. */
static int find_anonymous_inode(uint64_t *ret_inode)
{
    struct stat st;
    CLEANUP_FD int fd = epoll_create1(EPOLL_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return -errno;
    *ret_inode = st.st_ino;
    return 0;
}

int broker_new(const struct proc *proc, struct broker **ret_broker)
{
    CLEANUP_FD int self_fds = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (self_fds < 0)
        return -errno;
    uint64_t anonymous_inode = 0;
    int r = find_anonymous_inode(&anonymous_inode);
    if (r < 0)
        return r;
    CLEANUP_FREE char *dirents = malloc(DIRENTS_BYTES);
    struct broker *broker = calloc(1, sizeof *broker);
    if (!broker || !dirents) {
        free(broker);
        return -ENOMEM;
    }
    broker->proc = proc;
    broker->self_fds = steal_fd(&self_fds);
    broker->anonymous_inode = anonymous_inode;
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

/* What an fd of another process is, by a duplicate of ours: as read_link(), the number is theirs.
 */
static int look_at_copy(struct broker *broker, int pidfd, int theirs, struct kvm_file *ret_file)
{
    CLEANUP_FD int copy = pidfd_getfd(pidfd, theirs, 0);
    if (copy < 0)
        return errno == EBADF ? -ENOENT : -errno;
    int r = broker_identify(broker, copy, ret_file);
    if (r > 0)
        ret_file->fd = theirs;
    return r;
}

/* One folder of a process, by which its fds are told. */
struct listing {
    struct broker *broker;
    int dir_fd; /* of /proc/PID/fd, or … */
    int pidfd;  /* … of /proc/PID/fdinfo, with this one; else -1 */
    size_t capacity;
    struct kvm_file_list *list;
};

/* As read_link(), where links cannot be read: see fdinfo.c. */
static int read_fdinfo(const struct listing *listing, const char *name, struct kvm_file *ret_file)
{
    char text[FDINFO_BYTES];
    CLEANUP_FD int fd = openat(listing->dir_fd, name, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (n < 0)
        return -errno;
    text[n] = '\0';
    if (!fdinfo_may_be_kvm(text, listing->broker->anonymous_inode))
        return 0;
    return look_at_copy(listing->broker, listing->pidfd, atoi(name), ret_file);
}

/* One getdents64() full of fds. */
static int list_entries(struct listing *listing, size_t len)
{
    for (size_t at = 0; at < len;) {
        const struct dirent64 *entry = (const void *)(listing->broker->dirents + at);
        struct kvm_file file;
        at += entry->d_reclen;
        if (entry->d_name[0] < '0' || entry->d_name[0] > '9')
            continue;
        listing->list->n_fds++;
        int r = listing->pidfd < 0 ? read_link(listing->dir_fd, entry->d_name, &file)
                                   : read_fdinfo(listing, entry->d_name, &file);
        if (r == -ENOENT)
            continue; /* closed meanwhile */
        if (r == 1)
            r = list_append(listing->list, &listing->capacity, &file);
        if (r < 0)
            return r;
    }
    return 0;
}

static int list_folder(struct listing *listing)
{
    for (;;) {
        ssize_t len = getdents64(listing->dir_fd, listing->broker->dirents, DIRENTS_BYTES);
        if (len < 0)
            return -errno;
        if (len == 0)
            return 0;
        int r = list_entries(listing, (size_t)len);
        if (r < 0)
            return r;
    }
}

/* Returns the folder's fd or -errno. */
static int open_folder(const struct broker *broker, pid_t pid, const char *name)
{
    char path[PATH_BYTES];
    (void)snprintf(path, sizeof path, "%d/%s", (int)pid, name);
    int fd = openat(broker->proc->dir_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int list_fds(struct broker *broker, pid_t pid, struct kvm_file_list *list)
{
    CLEANUP_FD int dir_fd = open_folder(broker, pid, "fd");
    CLEANUP_FD int pidfd = -1;
    if (dir_fd == -EACCES) {
        dir_fd = open_folder(broker, pid, "fdinfo");
        if (dir_fd < 0)
            return dir_fd;
        pidfd = pidfd_open(pid, 0);
        if (pidfd < 0)
            return -errno;
    }
    if (dir_fd < 0)
        return dir_fd;
    return list_folder(&(struct listing){
        .broker = broker,
        .dir_fd = dir_fd,
        .pidfd = pidfd,
        .list = list,
    });
}

int broker_list(struct broker *broker, pid_t pid, struct kvm_file_list *ret_list)
{
    CLEANUP(kvm_file_list_free) struct kvm_file_list list = {0};
    struct proc_stat stat;

    int r = list_fds(broker, pid, &list);
    if (r == -ENOENT)
        return -ESRCH;
    /* The kernel says "not allowed" of a process that has just ended, too. */
    if ((r == -EACCES || r == -EPERM) && proc_stat_read(broker->proc, pid, &stat) == -ESRCH)
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

size_t broker_fds_most(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY)
        return SIZE_MAX;
    rlim_t reserved =
        MIN_OF((rlim_t)BROKER_FDS_RESERVED, limit.rlim_cur / BROKER_FDS_RESERVED_SHARE);
    return (size_t)(limit.rlim_cur - reserved);
}

bool broker_fds_are_short(int fd)
{
    return (size_t)fd >= broker_fds_most();
}

static int borrow(struct broker *broker, int pidfd, const struct kvm_file *file, int *ret_fd)
{
    char name[PATH_BYTES];
    struct kvm_file found = {0};

    CLEANUP_FD int fd = pidfd_getfd(pidfd, file->fd, 0);
    if (fd < 0)
        return errno == EBADF ? -ESTALE : -errno;
    (void)snprintf(name, sizeof name, "%d", fd);
    int r = read_link(broker->self_fds, name, &found);
    if (r < 0)
        return r;
    if (r == 0 || found.kind != file->kind || found.vcpu != file->vcpu)
        return -ESTALE;
    if (broker_fds_are_short(fd))
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
