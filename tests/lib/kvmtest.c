/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads the statistics file by the kernel's UAPI header and nothing of ours: a test that compared
 * our decoder with itself would prove little.
 */
#include "kvmtest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <linux/netlink.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "testing.h"

#define MAX_OPTIONS 64

static int64_t now_ms(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* poll() for reading until a deadline; false when it has passed. */
static bool wait_readable(int fd, int64_t deadline_ms)
{
    for (;;) {
        int64_t left_ms = deadline_ms - now_ms();
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int n = poll(&p, 1, left_ms > 0 ? (int)left_ms : 0);
        if (n > 0)
            return true;
        if (n == 0)
            return false;
        ck_assert_int_eq(errno, EINTR);
    }
}

void kvmtest_require_kvm(void)
{
    char reason[64];
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        (void)snprintf(reason, sizeof reason, "/dev/kvm: %s", strerror(errno));
        testing_skip(reason);
    }
    (void)close(fd);
}

/* The next line of the demo VMs, without its newline. Fails the test at the end of their output. */
static void read_line(struct kvmtest_vms *vms, char *ret_line, size_t size)
{
    int64_t deadline_ms = now_ms() + KVMTEST_TIMEOUT_MS;
    char *end;
    while (!(end = memchr(vms->pending, '\n', vms->pending_len))) {
        ck_assert_msg(wait_readable(vms->output_fd, deadline_ms), "the demo VMs say nothing");
        ck_assert_uint_lt(vms->pending_len, sizeof vms->pending);
        ssize_t n = read(vms->output_fd, vms->pending + vms->pending_len,
                         sizeof vms->pending - vms->pending_len);
        ck_assert_msg(n > 0, "the demo VMs ended (their reason is on standard error)");
        vms->pending_len += (size_t)n;
    }
    size_t len = (size_t)(end - vms->pending);
    ck_assert_uint_lt(len, size);
    memcpy(ret_line, vms->pending, len);
    ret_line[len] = '\0';
    vms->pending_len -= len + 1;
    memmove(vms->pending, end + 1, vms->pending_len);
}

static void read_ready(struct kvmtest_vms *vms)
{
    char line[512];
    for (;;) {
        read_line(vms, line, sizeof line);
        char *pid = strrchr(line, ' ');
        ck_assert_ptr_nonnull(pid);
        *pid++ = '\0';
        if (strcmp(line, "ready") == 0) {
            ck_assert_uint_eq(strtoul(pid, NULL, 10), vms->n);
            return;
        }
        ck_assert_msg(strncmp(line, "vm ", 3) == 0, "unexpected line: %s", line);
        vms->vms = realloc(vms->vms, (vms->n + 1) * sizeof *vms->vms);
        ck_assert_ptr_nonnull(vms->vms);
        struct kvmtest_vm *vm = &vms->vms[vms->n++];
        ck_assert_uint_lt(strlen(line + 3), sizeof vm->name);
        strcpy(vm->name, line + 3);
        vm->pid = (pid_t)strtol(pid, NULL, 10);
    }
}

const char *kvmtest_demo_vm(void)
{
    return KVMTEST_DEMO_VM;
}

struct kvmtest_vms *kvmtest_start(const char *option, ...)
{
    const char *argv[MAX_OPTIONS + 2] = {KVMTEST_DEMO_VM};
    size_t n = 1;
    va_list args;
    va_start(args, option);
    for (; option; option = va_arg(args, const char *)) {
        ck_assert_uint_lt(n, MAX_OPTIONS);
        argv[n++] = option;
    }
    va_end(args);

    struct kvmtest_vms *vms = calloc(1, sizeof *vms);
    int ends[2];
    ck_assert_ptr_nonnull(vms);
    ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
    pid_t self = getpid();
    vms->pid = fork();
    ck_assert_int_ge(vms->pid, 0);
    if (vms->pid == 0) {
        /* The demo VM does this too, but only once it has come so far. */
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != self ||
            dup2(ends[1], STDOUT_FILENO) < 0)
            _exit(126);
        execv(argv[0], (char *const *)(uintptr_t)argv);
        fprintf(stderr, "%s: %s\n", argv[0], strerror(errno));
        _exit(127);
    }
    (void)close(ends[1]);
    vms->output_fd = ends[0];
    read_ready(vms);
    return vms;
}

static int end(struct kvmtest_vms *vms, int signal)
{
    int status;
    ck_assert_int_eq(kill(vms->pid, signal), 0);
    ck_assert_int_eq(waitpid(vms->pid, &status, 0), vms->pid);
    (void)close(vms->output_fd);
    free(vms->vms);
    free(vms);
    return status;
}

int kvmtest_stop(struct kvmtest_vms *vms)
{
    return vms ? end(vms, SIGTERM) : 0;
}

void kvmtest_kill(struct kvmtest_vms *vms)
{
    (void)end(vms, SIGKILL);
}

void kvmtest_counts(struct kvmtest_vms *vms, struct kvmtest_count *ret, size_t n)
{
    char line[512];
    ck_assert_int_eq(kill(vms->pid, SIGUSR1), 0); /* a launcher passes it on */
    for (size_t i = 0; i < n; i++) {
        read_line(vms, line, sizeof line);
        /* A name may hold anything but control characters: the numbers are found from the end. */
        char *tail = NULL;
        for (char *at = line; (at = strstr(at, " vcpu ")); at++)
            tail = at;
        ck_assert_msg(tail && strncmp(line, "count ", 6) == 0, "unexpected line: %s", line);
        int found = sscanf(tail, " vcpu %u io %" SCNu64 " mmio %" SCNu64 " halt %" SCNu64,
                           &ret[i].vcpu, &ret[i].io, &ret[i].mmio, &ret[i].halt);
        ck_assert_int_eq(found, 4);
        *tail = '\0';
        ck_assert_uint_lt(strlen(line + 6), sizeof ret[i].name);
        strcpy(ret[i].name, line + 6);
    }
}

/* Calls visit() for each fd of a process with its link text; false when the process is gone. */
static bool for_each_fd(pid_t pid, void (*visit)(int fd, const char *link, void *data), void *data)
{
    char path[64];
    char link[256];
    (void)snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *dir = opendir(path);
    if (!dir)
        return false;
    for (const struct dirent *entry; (entry = readdir(dir));) {
        ssize_t len = readlinkat(dirfd(dir), entry->d_name, link, sizeof link - 1);
        if (len < 0)
            continue; /* "." and "..", and what was just closed */
        link[len] = '\0';
        visit(atoi(entry->d_name), link, data);
    }
    (void)closedir(dir);
    return true;
}

struct prefix_count {
    const char *prefix;
    int n;
};

static void count_prefix(int fd, const char *link, void *data)
{
    struct prefix_count *count = data;
    (void)fd;
    count->n += strncmp(link, count->prefix, strlen(count->prefix)) == 0;
}

int kvmtest_count_fds(pid_t pid, const char *link_prefix)
{
    struct prefix_count count = {.prefix = link_prefix};
    return for_each_fd(pid, count_prefix, &count) ? count.n : -1;
}

struct borrowing {
    int pid_fd;
    struct kvmtest_stats *stats;
    size_t n;
};

static void borrow_if_stats(int fd, const char *link, void *data)
{
    static const char of_vcpu[] = "anon_inode:kvm-vcpu-stats:";
    struct borrowing *borrowing = data;
    bool is_vcpu = strncmp(link, of_vcpu, sizeof of_vcpu - 1) == 0;
    if (!is_vcpu && strcmp(link, "anon_inode:kvm-vm-stats") != 0)
        return;
    int own = (int)syscall(SYS_pidfd_getfd, borrowing->pid_fd, fd, 0);
    ck_assert_msg(own >= 0, "pidfd_getfd: %s", strerror(errno));
    borrowing->stats = realloc(borrowing->stats, (borrowing->n + 1) * sizeof *borrowing->stats);
    ck_assert_ptr_nonnull(borrowing->stats);
    borrowing->stats[borrowing->n++] = (struct kvmtest_stats){
        .fd = own,
        .vcpu = is_vcpu ? atoi(link + sizeof of_vcpu - 1) : -1,
        .number = fd,
    };
}

static int by_vcpu(const void *a, const void *b)
{
    return ((const struct kvmtest_stats *)a)->vcpu - ((const struct kvmtest_stats *)b)->vcpu;
}

size_t kvmtest_borrow_stats(pid_t pid, struct kvmtest_stats **ret_stats)
{
    struct borrowing borrowing = {.pid_fd = (int)syscall(SYS_pidfd_open, pid, 0)};
    ck_assert_msg(borrowing.pid_fd >= 0, "pidfd_open: %s", strerror(errno));
    ck_assert(for_each_fd(pid, borrow_if_stats, &borrowing));
    (void)close(borrowing.pid_fd);
    if (borrowing.n > 0)
        qsort(borrowing.stats, borrowing.n, sizeof *borrowing.stats, by_vcpu);
    *ret_stats = borrowing.stats;
    return borrowing.n;
}

void kvmtest_close_stats(struct kvmtest_stats *stats, size_t n)
{
    for (size_t i = 0; i < n; i++)
        (void)close(stats[i].fd);
    free(stats);
}

int kvmtest_borrow_one(pid_t pid, int vcpu)
{
    struct kvmtest_stats *stats;
    int fd = -1;
    size_t n = kvmtest_borrow_stats(pid, &stats);
    for (size_t i = 0; i < n && fd < 0; i++) {
        if (stats[i].vcpu == vcpu)
            fd = fcntl(stats[i].fd, F_DUPFD_CLOEXEC, 0);
    }
    kvmtest_close_stats(stats, n);
    ck_assert_msg(fd >= 0, "process %d holds no stats fd %d", (int)pid, vcpu);
    return fd;
}

/* Returns how many values a statistic has and where the first lies in the file; 0: unknown. */
static unsigned find_stat(int fd, const char *name, off_t *ret_offset)
{
    struct kvm_stats_header header;
    char buffer[sizeof(struct kvm_stats_desc) + 256];
    ck_assert_int_eq(pread(fd, &header, sizeof header, 0), sizeof header);
    size_t stride = sizeof(struct kvm_stats_desc) + header.name_size;
    ck_assert_uint_le(stride, sizeof buffer);
    for (uint32_t i = 0; i < header.num_desc; i++) {
        struct kvm_stats_desc desc;
        off_t at = (off_t)header.desc_offset + (off_t)(i * stride);
        ck_assert_int_eq(pread(fd, buffer, stride, at), (ssize_t)stride);
        memcpy(&desc, buffer, sizeof desc);
        if (strncmp(buffer + sizeof desc, name, header.name_size) == 0) {
            *ret_offset = (off_t)header.data_offset + desc.offset;
            return desc.size;
        }
    }
    return 0;
}

bool kvmtest_has(int stats_fd, const char *name)
{
    off_t offset;
    return find_stat(stats_fd, name, &offset) > 0;
}

uint64_t kvmtest_value(int stats_fd, const char *name, unsigned index)
{
    off_t offset;
    uint64_t value;
    unsigned size = find_stat(stats_fd, name, &offset);
    ck_assert_msg(size > index, "this kernel has no %s[%u]", name, index);
    offset += (off_t)(index * sizeof value);
    ck_assert_int_eq(pread(stats_fd, &value, sizeof value, offset), sizeof value);
    return value;
}

uint64_t kvmtest_sum(int stats_fd, const char *name)
{
    off_t offset;
    uint64_t sum = 0;
    unsigned size = find_stat(stats_fd, name, &offset);
    ck_assert_msg(size > 0, "this kernel has no %s", name);
    for (unsigned i = 0; i < size; i++)
        sum += kvmtest_value(stats_fd, name, i);
    return sum;
}

int kvmtest_uevents_open(void)
{
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = 1};
    int size = 16 << 20; /* other tests' VMs come and go too */
    int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
    ck_assert_msg(fd >= 0, "uevents: %s", strerror(errno));
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) < 0)
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

/* Whether a uevent (strings one after another) holds this KEY=value. */
static bool uevent_says(const char *message, size_t len, const char *text)
{
    for (const char *at = message; at < message + len; at += strlen(at) + 1) {
        if (strcmp(at, text) == 0)
            return true;
    }
    return false;
}

bool kvmtest_wait_uevent(int uevents_fd, const char *event, pid_t pid, int timeout_ms)
{
    int64_t deadline_ms = now_ms() + timeout_ms;
    char wanted_event[32];
    char wanted_pid[32];
    char message[8192];
    (void)snprintf(wanted_event, sizeof wanted_event, "EVENT=%s", event);
    (void)snprintf(wanted_pid, sizeof wanted_pid, "PID=%d", (int)pid);
    while (wait_readable(uevents_fd, deadline_ms)) {
        ssize_t n = recv(uevents_fd, message, sizeof message - 1, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        ck_assert_msg(n >= 0, "uevents: %s", strerror(errno));
        message[n] = '\0';
        if (uevent_says(message, (size_t)n, wanted_event) &&
            uevent_says(message, (size_t)n, wanted_pid))
            return true;
    }
    return false;
}

bool kvmtest_wait_gone(pid_t pid, int timeout_ms)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0) {
        ck_assert_int_eq(errno, ESRCH);
        return true;
    }
    bool gone = wait_readable(fd, now_ms() + timeout_ms);
    (void)close(fd);
    return gone;
}
