/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libkvmstatd-handoff against daemons that behave as they should not, and none at all. With the
 * real one and real VMs: tests/integration/handoff.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kvmstats/handoff-protocol.h"
#include "kvmstats/handoff.h"
#include "suites.h"
#include "testing.h"

#define UUID "5d1f0a5e-3b7c-4a35-9c8e-0f1f5a6f7b21"

enum {
    SAFETY_MS = 60000
};

static char folder[64], path[96];
static struct kvmstatd_handoff *handoff;
static unsigned all_given; /* how often it has said so */

static void setup(void)
{
    (void)strcpy(folder, "/tmp/kvmstatd-handoff-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    (void)snprintf(path, sizeof path, "%s/sock", folder);
    handoff = NULL;
}

static void teardown(void)
{
    kvmstatd_handoff_close(handoff);
    (void)unlink(path);
    (void)rmdir(folder);
}

static int count_fds(void)
{
    int n = 0;
    DIR *fds = opendir("/proc/self/fd");
    while (readdir(fds))
        n++;
    (void)closedir(fds);
    return n;
}

/* What is given back may be closed by the library's thread, a moment later. */
static void wait_fds(int n)
{
    int now = count_fds();
    for (int i = 0; i < SAFETY_MS && now != n; i++) {
        (void)usleep(1000);
        now = count_fds();
    }
    ck_assert_int_eq(now, n);
}

/* --- a daemon by hand --- */

static int listen_here(int type, int backlog)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    (void)unlink(path);
    ck_assert_int_eq(bind(fd, (const struct sockaddr *)&address, sizeof address), 0);
    ck_assert_int_eq(listen(fd, backlog), 0);
    return fd;
}

static void wait_readable(int fd)
{
    struct pollfd waiting = {.fd = fd, .events = POLLIN};
    ck_assert_int_eq(poll(&waiting, 1, SAFETY_MS), 1);
}

static int accept_here(int listener)
{
    wait_readable(listener);
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    return fd;
}

union message {
    struct kvmstatd_handoff_header header;
    struct kvmstatd_handoff_vm vm;
    struct kvmstatd_handoff_vcpu vcpu;
    struct kvmstatd_handoff_vm_gone vm_gone;
    struct kvmstatd_handoff_vcpu_gone vcpu_gone;
    char bytes[KVMSTATD_HANDOFF_MESSAGE_BYTES_MAX];
};

/* Receives one message that is answered and closes its fds; returns their number. */
static size_t receive(int fd, union message *ret_message)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(8 * sizeof(int))];
    } control;
    struct iovec iov = {ret_message, sizeof *ret_message};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof control.bytes,
    };
    size_t n = 0;
    wait_readable(fd);
    ssize_t len = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
    ck_assert_int_ge(len, (ssize_t)sizeof ret_message->header);
    ck_assert_uint_eq(ret_message->header.magic, KVMSTATD_HANDOFF_MAGIC);
    ck_assert_uint_eq(ret_message->header.length, (size_t)len);
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
    if (cmsg) {
        int fds[8];
        n = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(fds, CMSG_DATA(cmsg), n * sizeof(int));
        for (size_t i = 0; i < n; i++)
            (void)close(fds[i]);
    }
    if (ret_message->header.type != KVMSTATD_HANDOFF_ALL_GIVEN)
        return n;
    all_given++;
    return receive(fd, ret_message);
}

static void expect(int fd, uint16_t type, size_t fds, union message *ret_message)
{
    ck_assert_uint_eq(receive(fd, ret_message), fds);
    ck_assert_uint_eq(ret_message->header.type, type);
}

static void answer(int fd, uint16_t type, uint32_t serial, uint32_t reason)
{
    struct kvmstatd_handoff_refused message = {
        .header =
            {
                .magic = KVMSTATD_HANDOFF_MAGIC,
                .major = 1,
                .type = type,
                .length = sizeof message,
                .serial = serial,
            },
        .reason = reason,
    };
    ck_assert_int_eq(send(fd, &message, sizeof message, MSG_NOSIGNAL), (ssize_t)sizeof message);
}

static int welcome(int listener)
{
    union message message;
    int fd = accept_here(listener);
    expect(fd, KVMSTATD_HANDOFF_HELLO, 0, &message);
    answer(fd, KVMSTATD_HANDOFF_WELCOME, message.header.serial, 0);
    return fd;
}

static void accept_vm(int fd, uint64_t vm, size_t fds, union message *ret_message)
{
    expect(fd, KVMSTATD_HANDOFF_VM, fds, ret_message);
    ck_assert_uint_eq(ret_message->vm.vm, vm);
    answer(fd, KVMSTATD_HANDOFF_ACCEPTED, ret_message->header.serial, 0);
}

static void accept_vcpu(int fd, uint64_t vm, uint32_t vcpu)
{
    union message message;
    expect(fd, KVMSTATD_HANDOFF_VCPU, 1, &message);
    ck_assert_uint_eq(message.vcpu.vm, vm);
    ck_assert_uint_eq(message.vcpu.vcpu, vcpu);
    answer(fd, KVMSTATD_HANDOFF_ACCEPTED, message.header.serial, 0);
}

/* Waits until the library has read as many answers. */
static void wait_status(uint32_t accepted, uint32_t refused)
{
    struct kvmstatd_handoff_status status = {0};
    for (int i = 0; i < SAFETY_MS; i++) {
        ck_assert_int_eq(kvmstatd_handoff_get_status(handoff, &status), 0);
        if (status.accepted == accepted && status.refused == refused)
            return;
        (void)usleep(1000);
    }
    ck_abort_msg("accepted %u, refused %u", status.accepted, status.refused);
}

/* Any file will do here: the library does not look at what it is given. */
static uint64_t give(void)
{
    uint64_t vm = 0;
    ck_assert_int_eq(
        kvmstatd_handoff_vm_stats(handoff, STDIN_FILENO, STDIN_FILENO, "web1", UUID, &vm), 0);
    ck_assert_int_eq(kvmstatd_handoff_vcpu_stats(handoff, vm, 0, STDIN_FILENO), 0);
    ck_assert_int_eq(kvmstatd_handoff_vcpu_stats(handoff, vm, 7, STDIN_FILENO), 0);
    return vm;
}

/*
 * What take() says once the library's own thread is out of the way: while that one is busy a note
 * is left for it, which is no error.
 */
#define ck_assert_gone_refused(take)                                         \
    do {                                                                     \
        int refused = (take);                                                \
        for (int waited = 0; refused == 0 && waited < SAFETY_MS; waited++) { \
            (void)usleep(1000);                                              \
            refused = (take);                                                \
        }                                                                    \
        ck_assert_int_eq(refused, -ENOENT);                                  \
    } while (0)

/* --- tests --- */

START_TEST(arguments)
{
    char name[1026], long_path[200];
    uint64_t vm = 77;
    memset(name, 'n', sizeof name - 1);
    name[1025] = '\0';
    memset(long_path, '/', sizeof long_path - 1);
    long_path[199] = '\0';
    ck_assert_int_eq(kvmstatd_handoff_connect(long_path, &handoff), -ENAMETOOLONG);
    ck_assert_int_eq(kvmstatd_handoff_connect("", &handoff), -EINVAL);
    ck_assert_ptr_null(handoff);
    int listener = listen_here(SOCK_SEQPACKET, 8);
    ck_assert_int_eq(kvmstatd_handoff_connect(path, &handoff), 0);
    int fd = accept_here(listener); /* so that the thread opens and closes no more sockets */

    int before = count_fds();
    ck_assert_int_eq(kvmstatd_handoff_vm_stats(handoff, -1, -1, NULL, NULL, &vm), -EBADF);
    ck_assert_int_eq(kvmstatd_handoff_vm_stats(handoff, 0, 9999, NULL, NULL, &vm), -EBADF);
    ck_assert_int_eq(kvmstatd_handoff_vm_stats(handoff, 0, 0, name, NULL, &vm), -ENAMETOOLONG);
    ck_assert_int_eq(kvmstatd_handoff_vm_stats(handoff, 0, 0, NULL, "12", &vm), -EINVAL);
    ck_assert_int_eq(kvmstatd_handoff_vm_stats(handoff, 0, 0, NULL, UUID "0", &vm), -EINVAL);
    ck_assert_int_eq(kvmstatd_handoff_vm(handoff, 0, NULL, NULL, &vm), -ENOTTY);
    ck_assert_uint_eq(vm, 77);
    ck_assert_int_eq(kvmstatd_handoff_vcpu_stats(handoff, 1, 0, 0), -ENOENT);
    ck_assert_gone_refused(kvmstatd_handoff_vm_gone(handoff, 1));
    ck_assert_gone_refused(kvmstatd_handoff_vcpu_gone(handoff, 1, 0));
    ck_assert_int_eq(count_fds(), before);

    name[1024] = '\0';
    ck_assert_int_eq(kvmstatd_handoff_vm_stats(handoff, 0, -1, name, "", &vm), 0);
    ck_assert_int_eq(kvmstatd_handoff_vcpu_stats(handoff, vm, 0, 0), 0);
    ck_assert_int_eq(kvmstatd_handoff_vcpu_stats(handoff, vm, 0, 0), -EEXIST);
    ck_assert_int_eq(kvmstatd_handoff_vcpu_gone(handoff, vm, 0), 0);
    ck_assert_int_eq(kvmstatd_handoff_vcpu_stats(handoff, vm, 0, 0), 0);
    ck_assert_int_eq(kvmstatd_handoff_vm_gone(handoff, vm), 0);
    wait_fds(before);
    ck_assert_gone_refused(kvmstatd_handoff_vcpu_gone(handoff, vm, 0));
    (void)close(fd);
    (void)close(listener);
}
END_TEST

START_TEST(path_from_the_environment)
{
    int listener = listen_here(SOCK_SEQPACKET, 8);
    ck_assert_int_eq(setenv("KVMSTATD_HANDOFF_SOCKET", path, 1), 0);
    ck_assert_int_eq(kvmstatd_handoff_connect(NULL, &handoff), 0);
    (void)close(accept_here(listener));
    (void)close(listener);
}
END_TEST

START_TEST(everything_is_given_with_its_hints)
{
    union message message;
    const struct kvmstatd_handoff_attribute name = {KVMSTATD_HANDOFF_NAME, 4};
    const struct kvmstatd_handoff_attribute uuid = {KVMSTATD_HANDOFF_UUID, 36};
    int listener = listen_here(SOCK_SEQPACKET, 8);
    ck_assert_int_eq(kvmstatd_handoff_connect(path, &handoff), 0);
    uint64_t vm = give();
    int fd = welcome(listener);
    accept_vm(fd, vm, 2, &message);
    ck_assert_uint_eq(message.header.length, sizeof message.vm + 4 + 4 + 4 + 36);
    const char *at = message.bytes + sizeof message.vm;
    ck_assert_mem_eq(at, &name, 4);
    ck_assert_mem_eq(at + 4, "web1", 4);
    ck_assert_mem_eq(at + 8, &uuid, 4);
    ck_assert_mem_eq(at + 12, UUID, 36);
    /* They are duplicates, whose numbers it says. */
    ck_assert_int_ge(fcntl(message.vm.stats_fd, F_GETFD), FD_CLOEXEC);
    ck_assert_int_ge(fcntl(message.vm.vm_fd, F_GETFD), FD_CLOEXEC);
    accept_vcpu(fd, vm, 0);
    accept_vcpu(fd, vm, 7);
    wait_status(3, 0);

    ck_assert_int_eq(kvmstatd_handoff_vcpu_gone(handoff, vm, 7), 0);
    expect(fd, KVMSTATD_HANDOFF_VCPU_GONE, 0, &message);
    ck_assert_uint_eq(all_given, 1); /* once a connection, when all that there was is sent */
    ck_assert_uint_eq(message.vcpu_gone.vcpu, 7);
    answer(fd, KVMSTATD_HANDOFF_ACCEPTED, message.header.serial, 0);
    ck_assert_int_eq(kvmstatd_handoff_vm_gone(handoff, vm), 0);
    expect(fd, KVMSTATD_HANDOFF_VM_GONE, 0, &message); /* vCPU 0 goes with it */
    ck_assert_uint_eq(message.vm_gone.vm, vm);
    wait_status(0, 0);
    uint64_t second = give();
    ck_assert_uint_ne(second, vm);
    accept_vm(fd, second, 2, &message);
    (void)close(fd);
    (void)close(listener);
}
END_TEST

START_TEST(everything_is_given_again)
{
    union message message;
    struct kvmstatd_handoff_status status;
    ck_assert_int_eq(kvmstatd_handoff_connect(path, &handoff), 0);
    uint64_t vm = give();
    ck_assert_int_eq(kvmstatd_handoff_vcpu_gone(handoff, vm, 0), 0);
    for (uint32_t round = 1; round <= 3; round++) {
        int listener = listen_here(SOCK_SEQPACKET, 8);
        int fd = welcome(listener);
        accept_vm(fd, vm, 2, &message);
        accept_vcpu(fd, vm, 7);
        wait_status(2, 0);
        ck_assert_int_eq(kvmstatd_handoff_get_status(handoff, &status), 0);
        ck_assert(status.connected);
        ck_assert_uint_eq(status.n_connected, round);
        (void)close(fd);
        (void)close(listener);
    }
}
END_TEST

/* What was taken back while nobody was there is not given, and its fds are closed at once. */
START_TEST(given_back_without_a_daemon)
{
    union message message;
    int before = count_fds() + 1; /* that wakes the thread, which has a socket now and then */
    ck_assert_int_eq(kvmstatd_handoff_connect(path, &handoff), 0);
    uint64_t first = give();
    wait_fds(before + 4);
    ck_assert_int_eq(kvmstatd_handoff_vm_gone(handoff, first), 0);
    wait_fds(before);
    uint64_t second = give();
    int listener = listen_here(SOCK_SEQPACKET, 8);
    int fd = welcome(listener);
    accept_vm(fd, second, 2, &message);
    (void)close(fd);
    (void)close(listener);
}
END_TEST

START_TEST(refusals)
{
    union message message;
    struct kvmstatd_handoff_status status;
    int listener = listen_here(SOCK_SEQPACKET, 8);
    ck_assert_int_eq(kvmstatd_handoff_connect(path, &handoff), 0);
    uint64_t vm = give();
    int fd = welcome(listener);
    accept_vm(fd, vm, 2, &message);
    for (int i = 0; i < 2; i++) {
        expect(fd, KVMSTATD_HANDOFF_VCPU, 1, &message);
        answer(fd, KVMSTATD_HANDOFF_REFUSED, message.header.serial,
               i ? KVMSTATD_HANDOFF_REASON_NOT_STATS_FD : KVMSTATD_HANDOFF_REASON_EXISTS);
    }
    wait_status(1, 2);
    ck_assert_int_eq(kvmstatd_handoff_get_status(handoff, &status), 0);
    ck_assert_uint_eq(status.last_reason, KVMSTATD_HANDOFF_REASON_NOT_STATS_FD);
    (void)close(fd);
    /* What is no stats file costs the connection: it is not given again. The other one is. */
    fd = welcome(listener);
    accept_vm(fd, vm, 2, &message);
    accept_vcpu(fd, vm, 0);
    wait_status(2, 1);
    (void)close(fd);
    (void)close(listener);
}
END_TEST

/* A daemon that says anything else is left alone and asked again later. */
START_TEST(nonsense_from_the_daemon)
{
    static const char nonsense[][32] = {"", "hello", "0123456789abcdef0123456789abcde"};
    union message message;
    int listener = listen_here(SOCK_SEQPACKET, 8);
    ck_assert_int_eq(kvmstatd_handoff_connect(path, &handoff), 0);
    uint64_t vm = give();
    for (size_t i = 0; i < sizeof nonsense / sizeof nonsense[0]; i++) {
        int fd = accept_here(listener);
        expect(fd, KVMSTATD_HANDOFF_HELLO, 0, &message);
        (void)send(fd, nonsense[i], strlen(nonsense[i]), MSG_NOSIGNAL);
        wait_readable(fd);
        ck_assert_int_le(recv(fd, &message, sizeof message, 0), 0);
        (void)close(fd);
    }
    int fd = welcome(listener);
    answer(fd, 0x8fff, 0, 0); /* a later version's: no matter */
    accept_vm(fd, vm, 2, &message);
    (void)close(fd);
    (void)close(listener);
}
END_TEST

/* Nothing waits for a daemon that hangs: not with a full backlog, not with a full socket. */
START_TEST(daemon_that_hangs)
{
    int listener = listen_here(SOCK_SEQPACKET, 0);
    struct kvmstatd_handoff *others[8];
    uint64_t vm;
    for (int i = 0; i < 8; i++) {
        ck_assert_int_eq(kvmstatd_handoff_connect(path, &others[i]), 0);
        ck_assert_int_eq(kvmstatd_handoff_vm_stats(others[i], 0, 0, NULL, NULL, &vm), 0);
    }
    for (int i = 0; i < 8; i++)
        kvmstatd_handoff_close(others[i]);
    (void)close(listener);

    listener = listen_here(SOCK_SEQPACKET, 8);
    ck_assert_int_eq(kvmstatd_handoff_connect(path, &handoff), 0);
    int fd = welcome(listener); /* and then reads nothing */
    ck_assert_int_eq(kvmstatd_handoff_vm_stats(handoff, 0, 0, NULL, NULL, &vm), 0);
    for (uint32_t i = 0; i < 3000; i++)
        ck_assert_int_eq(kvmstatd_handoff_vcpu_stats(handoff, vm, i, 0), 0);
    ck_assert_int_eq(kvmstatd_handoff_vm_gone(handoff, vm), 0);
    ck_assert_int_eq(kvmstatd_handoff_vm_stats(handoff, 0, 0, NULL, NULL, &vm), 0);
    /* It comes to itself: all of it arrives, in order. */
    union message message;
    uint64_t last = 0;
    while (last != vm) {
        (void)receive(fd, &message);
        if (message.header.type == KVMSTATD_HANDOFF_VM)
            last = message.vm.vm;
    }
    (void)close(fd);
    (void)close(listener);
}
END_TEST

START_TEST(fork_drops_everything_in_the_child)
{
    union message message;
    int status;
    int listener = listen_here(SOCK_SEQPACKET, 8);
    int before = count_fds();
    ck_assert_int_eq(kvmstatd_handoff_connect(path, &handoff), 0);
    uint64_t vm = give();
    pid_t pid = fork();
    if (pid == 0) {
        struct kvmstatd_handoff_status standing;
        uint64_t other;
        bool good = count_fds() == before &&
                    kvmstatd_handoff_vm_stats(handoff, 0, 0, NULL, NULL, &other) == -ECHILD &&
                    kvmstatd_handoff_vcpu_stats(handoff, vm, 1, 0) == -ECHILD &&
                    kvmstatd_handoff_vm_gone(handoff, vm) == -ECHILD &&
                    kvmstatd_handoff_get_status(handoff, &standing) == -ECHILD;
        kvmstatd_handoff_close(handoff);
#ifndef __SANITIZE_THREAD__ /* which has no threads in children */
        /* A child may begin anew. */
        good = good && kvmstatd_handoff_connect(path, &handoff) == 0 &&
               kvmstatd_handoff_vm_stats(handoff, 0, -1, NULL, NULL, &other) == 0;
        kvmstatd_handoff_close(handoff);
#endif
        _exit(!good);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    /* The parent has noticed nothing. */
    int fd = welcome(listener);
    accept_vm(fd, vm, 2, &message);
    (void)close(fd);
    (void)close(listener);
}
END_TEST

static void *give_and_take(void *arg)
{
    int *stop = arg;
    while (!__atomic_load_n(stop, __ATOMIC_RELAXED)) {
        uint64_t vm;
        if (kvmstatd_handoff_vm_stats(handoff, 0, 0, "n", NULL, &vm) == 0) {
            (void)kvmstatd_handoff_vcpu_stats(handoff, vm, 1, 0);
            (void)kvmstatd_handoff_vm_gone(handoff, vm);
        }
    }
    return NULL;
}

static atomic_int handled;

/* In a handler what is given back may be just being given. */
static void take_back_in_handler(int number)
{
    int saved = errno;
    (void)number;
    (void)kvmstatd_handoff_vm_gone(handoff, (uint64_t)atomic_fetch_add(&handled, 1));
    errno = saved;
}

START_TEST(threads_forks_and_signals)
{
    pthread_t threads[3];
    int stop = 0, status;
    int listener = listen_here(SOCK_SEQPACKET, 8);
    int before = count_fds();
    (void)signal(SIGUSR1, take_back_in_handler);
    ck_assert_int_eq(kvmstatd_handoff_connect(path, &handoff), 0);
    int fd = welcome(listener);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, give_and_take, &stop), 0);
    for (int i = 0; i < 200; i++) {
        union message message;
        (void)pthread_kill(threads[i % 3], SIGUSR1);
        while (recv(fd, &message, sizeof message, MSG_DONTWAIT) > 0)
            ;
        if (i % 10)
            continue;
        pid_t pid = fork();
        if (pid == 0)
            _exit(count_fds() > before + 1); /* our end of the connection */
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        ck_assert_int_eq(status, 0);
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    ck_assert_int_gt(handled, 0);
    kvmstatd_handoff_close(handoff);
    handoff = NULL;
    (void)close(fd);
    (void)close(listener);
}
END_TEST

/* A peer that has gone raises no SIGPIPE. */
START_TEST(no_sigpipe)
{
    (void)signal(SIGPIPE, SIG_DFL);
    int listener = listen_here(SOCK_SEQPACKET, 8);
    ck_assert_int_eq(kvmstatd_handoff_connect(path, &handoff), 0);
    for (int i = 0; i < 20; i++) {
        int fd = welcome(listener);
        (void)shutdown(fd, SHUT_RDWR);
        (void)give();
        (void)close(fd);
    }
    (void)close(listener);
}
END_TEST

/* When it returns, its fds are closed; the daemon is told in the time after. */
START_TEST(close_gives_back)
{
    union message message;
    int listener = listen_here(SOCK_SEQPACKET, 8);
    int before = count_fds();
    ck_assert_int_eq(kvmstatd_handoff_connect(path, &handoff), 0);
    uint64_t vm = give();
    int fd = welcome(listener);
    accept_vm(fd, vm, 2, &message);
    accept_vcpu(fd, vm, 0);
    accept_vcpu(fd, vm, 7);
    wait_status(3, 0);
    kvmstatd_handoff_close(handoff);
    handoff = NULL;
    ck_assert_int_le(count_fds(), before + 3); /* the two of the thread, and ours of it */
    expect(fd, KVMSTATD_HANDOFF_VM_GONE, 0, &message);
    ck_assert_uint_eq(message.vm_gone.vm, vm);
    wait_readable(fd);
    ck_assert_int_eq(recv(fd, &message, sizeof message, 0), 0);
    (void)close(fd);
    wait_fds(before);
    (void)close(listener);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("handoff");
    TCase *tcase = tcase_create("handoff");
    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, arguments);
    tcase_add_test(tcase, path_from_the_environment);
    tcase_add_test(tcase, everything_is_given_with_its_hints);
    tcase_add_test(tcase, everything_is_given_again);
    tcase_add_test(tcase, given_back_without_a_daemon);
    tcase_add_test(tcase, refusals);
    tcase_add_test(tcase, nonsense_from_the_daemon);
    tcase_add_test(tcase, daemon_that_hangs);
    tcase_add_test(tcase, fork_drops_everything_in_the_child);
    tcase_add_test(tcase, threads_forks_and_signals);
    tcase_add_test(tcase, no_sigpipe);
    tcase_add_test(tcase, close_gives_back);
    suite_add_tcase(suite, tcase);
    return testing_run(suite, suite_confined(), NULL);
}
