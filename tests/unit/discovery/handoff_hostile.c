/* SPDX-License-Identifier: Apache-2.0 */
/* What is no statistics file, and messages that are none: refused, closed unread, nothing kept. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "handoff_rig.h"
#include "suites.h"

static struct rig rig;

static void setup(void)
{
    char yaml[256];
    /* Whoever runs the tests may hand over. */
    (void)snprintf(yaml, sizeof yaml,
                   "discovery: {sources: [handoff]}\n"
                   "handoff: {socket: \"@SOCKET@\", allow_users: [%u, 65533]}\n",
                   (unsigned)getuid());
    rig_start(&rig, yaml);
}

static void teardown(void)
{
    rig_stop(&rig);
}

static void expect_nothing_given(void)
{
    ck_assert_uint_eq(rig.vms + rig.vcpus, 0);
}

/* --- hostile files --- */

/* A file that was given is unharmed: nothing was read from it, no offset moved. */
struct bait {
    const char *what;
    int fd;
    int watch_fd; /* inotify, where it is a file with a name; else -1 */
    bool has_bytes;
};

static void make_fifo(struct bait *bait, const char *path)
{
    (void)unlink(path);
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    bait->fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    ck_assert_int_eq(write(bait->fd, "bytes", 5), 5);
    bait->has_bytes = true;
    (void)unlink(path);
}

static void make_file(struct bait *bait, const char *path)
{
    bait->fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ck_assert_int_eq(ftruncate(bait->fd, 4096), 0);
    bait->watch_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    ck_assert_int_ge(inotify_add_watch(bait->watch_fd, path, IN_ACCESS), 0);
}

static void make_bait(int which, struct bait *bait)
{
    char path[96];
    int ends[2];
    (void)snprintf(path, sizeof path, "%s/bait", rig.folder);
    *bait = (struct bait){.fd = -1, .watch_fd = -1};
    switch (which) {
    case 0:
        bait->what = "pipe";
        ck_assert_int_eq(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
        ck_assert_int_eq(write(ends[1], "bytes", 5), 5);
        (void)close(ends[1]);
        bait->fd = ends[0];
        bait->has_bytes = true;
        return;
    case 1:
        bait->what = "FIFO";
        make_fifo(bait, path);
        return;
    case 2:
        bait->what = "memfd called like a stats file";
        bait->fd = memfd_create("anon_inode:kvm-vm-stats", MFD_CLOEXEC);
        return;
    case 3:
        bait->what = "file";
        make_file(bait, path);
        return;
    case 4:
        bait->what = "directory";
        bait->fd = open("/proc/self", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        return;
    case 5:
        bait->what = "O_PATH";
        bait->fd = open("/", O_PATH | O_CLOEXEC);
        return;
    case 6:
        bait->what = "socket";
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends),
                         0);
        ck_assert_int_eq(write(ends[1], "bytes", 5), 5);
        (void)close(ends[1]);
        bait->fd = ends[0];
        bait->has_bytes = true;
        return;
    case 7:
        bait->what = "another anonymous inode";
        bait->fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
        return;
    case 8:
        bait->what = "link to a stats file's name";
        (void)snprintf(path, sizeof path, "%s/anon_inode:kvm-vm-stats", rig.folder);
        bait->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        (void)unlink(path);
        return;
    }
}

enum {
    BAITS = 9
};

static void expect_unharmed(struct bait *bait)
{
    char bytes[16];
    char path[96];
    struct inotify_event event;
    if (bait->has_bytes)
        ck_assert_msg(read(bait->fd, bytes, sizeof bytes) == 5, "the %s was read", bait->what);
    if (bait->watch_fd >= 0)
        ck_assert_msg(read(bait->watch_fd, &event, sizeof event) < 0, "the %s was read",
                      bait->what);
    bait->watch_fd = fd_close(bait->watch_fd);
    bait->fd = fd_close(bait->fd);
    (void)snprintf(path, sizeof path, "%s/bait", rig.folder);
    (void)unlink(path);
}

START_TEST(other_files_are_closed_unread)
{
    struct bait bait;
    struct kvmstatd_handoff_vm vm = rig_make_vm(1);
    struct kvmstatd_handoff_vcpu vcpu = rig_make_vcpu(1, 0);
    make_bait(_i, &bait);
    ck_assert_msg(bait.fd >= 0, "no %s: %s", bait.what, strerror(errno));
    vm.stats_fd = vcpu.stats_fd = bait.fd;
    for (int round = 0; round < 3; round++) {
        int twice[] = {bait.fd, bait.fd};
        int fd = rig_hello(&rig);
        if (round == 0)
            rig_refused(&rig, fd, &vm, sizeof vm, twice, 1, KVMSTATD_HANDOFF_REASON_NOT_STATS_FD,
                        true);
        else if (round == 1)
            rig_refused(&rig, fd, &vm, sizeof vm, twice, 2, KVMSTATD_HANDOFF_REASON_NOT_STATS_FD,
                        true);
        else
            rig_refused(&rig, fd, &vcpu, sizeof vcpu, twice, 1,
                        KVMSTATD_HANDOFF_REASON_NOT_STATS_FD, true);
        (void)close(fd);
    }
    ck_assert_uint_eq(rig_rejected(&rig, HANDOFF_REJECT_NOT_STATS_FD), 3);
    expect_nothing_given();
    expect_unharmed(&bait);
    rig_expect_fds(&rig, 0);
}
END_TEST

/* What the kernel installs in our table is bounded before it is asked for. */
START_TEST(too_many_files)
{
    int fds[RIG_CONTROL_FDS];
    static const size_t numbers[] = {3, 4, 17, 252, 253};
    const struct kvmstatd_handoff_vm vm = rig_make_vm(1);
    const struct kvmstatd_handoff_vcpu vcpu = rig_make_vcpu(1, 0);
    const struct kvmstatd_handoff_hello hello = rig_make_hello();
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        fds[i] = i % 2 ? STDIN_FILENO : rig.handoff->gate_fd;
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        int fd = rig_hello(&rig);
        rig_refused(&rig, fd, &vm, sizeof vm, fds, numbers[i], KVMSTATD_HANDOFF_REASON_FDS, true);
        (void)close(fd);
    }
    int fd = rig_hello(&rig);
    rig_refused(&rig, fd, &vcpu, sizeof vcpu, fds, 2, KVMSTATD_HANDOFF_REASON_FDS, true);
    (void)close(fd);
    fd = rig_hello(&rig);
    rig_refused(&rig, fd, &vm, sizeof vm, NULL, 0, KVMSTATD_HANDOFF_REASON_FDS, true);
    (void)close(fd);
    fd = rig_connect(&rig);
    rig_refused(&rig, fd, &hello, sizeof hello, fds, 1, KVMSTATD_HANDOFF_REASON_FDS, true);
    (void)close(fd);
    ck_assert_uint_eq(rig_rejected(&rig, HANDOFF_REJECT_TOO_MANY_FDS), ARRAY_LEN(numbers) + 3);
    expect_nothing_given();
    rig_expect_fds(&rig, 0);
}
END_TEST

/* Our own table being full is no fault of the peer's: it is refused for now, and stays. */
START_TEST(no_fds_left)
{
    struct rlimit before, limit;
    int fds[] = {STDIN_FILENO, STDIN_FILENO};
    const struct kvmstatd_handoff_vm vm = rig_make_vm(1);
    uint32_t reason = 0;
    int fd = rig_hello(&rig);
    rig_send(fd, &vm, sizeof vm, fds, 2);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    limit = before;
    int lowest_free = dup(fd);
    (void)close(lowest_free);
    limit.rlim_cur = (rlim_t)lowest_free;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    rig_pump(&rig);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
    ck_assert_int_eq(rig_answer(fd, NULL, &reason), KVMSTATD_HANDOFF_REFUSED);
    ck_assert_uint_eq(reason, KVMSTATD_HANDOFF_REASON_LIMIT);
    ck_assert_int_eq(rig_answer(fd, NULL, NULL), -1);
    ck_assert_uint_eq(rig_rejected(&rig, HANDOFF_REJECT_LIMIT), 1);
    (void)close(fd);
    rig_pump(&rig);
    rig_expect_fds(&rig, 0);
}
END_TEST

/* --- hostile messages --- */

START_TEST(messages_cut_at_every_byte)
{
    struct {
        struct kvmstatd_handoff_vm vm;
        struct kvmstatd_handoff_attribute attribute;
        char name[5];
    } __attribute__((packed)) message = {
        .vm = rig_make_vm(1),
        .attribute = {KVMSTATD_HANDOFF_NAME, 5},
        .name = "hello",
    };
    int fds[] = {STDIN_FILENO};
    message.vm.header.length = sizeof message;
    for (size_t len = 1; len < sizeof message; len++) {
        int fd = rig_hello(&rig);
        rig_refused(&rig, fd, &message, len, fds, len % 2, KVMSTATD_HANDOFF_REASON_MALFORMED, true);
        (void)close(fd);
    }
    /* The same with a length that says so. */
    for (size_t len = sizeof message.vm.header; len < sizeof message; len++) {
        if (len == sizeof message.vm)
            continue; /* a message without attributes: as good as the whole */
        message.vm.header.length = (uint32_t)len;
        int fd = rig_hello(&rig);
        rig_refused(&rig, fd, &message, len, fds, len % 2, KVMSTATD_HANDOFF_REASON_MALFORMED, true);
        (void)close(fd);
    }
    ck_assert_uint_gt(rig_rejected(&rig, HANDOFF_REJECT_BAD_MESSAGE), 60);
    expect_nothing_given();
    rig_expect_fds(&rig, 0);
}
END_TEST

START_TEST(empty_and_oversized_messages)
{
    char bytes[KVMSTATD_HANDOFF_MESSAGE_BYTES_MAX + 1] = {0};
    int fds[] = {STDIN_FILENO};
    int fd = rig_hello(&rig);
    rig_send(fd, bytes, 0, fds, 1); /* nothing but an fd */
    rig_pump(&rig);
    rig_expect_fds(&rig, 1);
    ck_assert_int_eq(rig_answer(fd, NULL, NULL), 0);
    (void)close(fd);

    fd = rig_hello(&rig);
    struct kvmstatd_handoff_header header = rig_header(KVMSTATD_HANDOFF_HELLO, sizeof bytes);
    memcpy(bytes, &header, sizeof header);
    rig_refused(&rig, fd, bytes, sizeof bytes, fds, 1, KVMSTATD_HANDOFF_REASON_MALFORMED, true);
    (void)close(fd);
    rig_expect_fds(&rig, 0);
}
END_TEST

START_TEST(messages_out_of_place)
{
    const struct kvmstatd_handoff_hello hello = rig_make_hello();
    const struct kvmstatd_handoff_vm vm = rig_make_vm(1);
    struct kvmstatd_handoff_header other;
    int fds[] = {STDIN_FILENO};

    int fd = rig_connect(&rig);
    rig_refused(&rig, fd, &vm, sizeof vm, fds, 1, KVMSTATD_HANDOFF_REASON_MALFORMED, true);
    (void)close(fd);
    fd = rig_hello(&rig);
    rig_refused(&rig, fd, &hello, sizeof hello, NULL, 0, KVMSTATD_HANDOFF_REASON_MALFORMED, true);
    (void)close(fd);

    fd = rig_hello(&rig);
    other = rig_header(77, sizeof other);
    rig_refused(&rig, fd, &other, sizeof other, fds, 1, KVMSTATD_HANDOFF_REASON_TYPE, false);
    other = rig_header(KVMSTATD_HANDOFF_WELCOME, sizeof other);
    rig_refused(&rig, fd, &other, sizeof other, NULL, 0, KVMSTATD_HANDOFF_REASON_TYPE, false);
    /* Ignored means: not even an answer. */
    other = rig_header(KVMSTATD_HANDOFF_IGNORABLE + 5, sizeof other);
    rig_send(fd, &other, sizeof other, fds, 1);
    rig_pump(&rig);
    ck_assert_int_eq(rig_answer(fd, NULL, NULL), -1);
    ck_assert_uint_eq(rig.all_given, 0);
    other.type = KVMSTATD_HANDOFF_ALL_GIVEN;
    rig_send(fd, &other, sizeof other, fds, 1);
    rig_pump(&rig);
    ck_assert_int_eq(rig_answer(fd, NULL, NULL), -1);
    ck_assert_uint_eq(rig.all_given, 1);
    other.major = 2;
    rig_refused(&rig, fd, &other, sizeof other, fds, 1, KVMSTATD_HANDOFF_REASON_VERSION, true);
    (void)close(fd);
    expect_nothing_given();
    rig_expect_fds(&rig, 0);
}
END_TEST

START_TEST(random_bytes)
{
    char bytes[256];
    int fds[] = {STDIN_FILENO, STDIN_FILENO, STDIN_FILENO};
    for (int round = 0; round < 5000; round++) {
        int fd = rig_hello(&rig);
        size_t len = 1 + testing_random_below(sizeof bytes);
        for (size_t i = 0; i < len; i++)
            bytes[i] = (char)testing_random();
        if (len >= sizeof(struct kvmstatd_handoff_header) && testing_random_below(4)) {
            struct kvmstatd_handoff_header header =
                rig_header((uint16_t)testing_random_below(7), len);
            memcpy(bytes, &header, sizeof header);
        }
        rig_send(fd, bytes, len, fds, testing_random_below(4));
        rig_pump(&rig);
        (void)close(fd);
    }
    rig_pump(&rig);
    expect_nothing_given();
    rig_expect_fds(&rig, 0);
}
END_TEST

Suite *suite_handoff_hostile(void)
{
    Suite *suite = suite_create("handoff_hostile");
    TCase *tcase = tcase_create("handoff_hostile");
    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_loop_test(tcase, other_files_are_closed_unread, 0, BAITS);
    tcase_add_test(tcase, too_many_files);
    tcase_add_test(tcase, no_fds_left);
    tcase_add_test(tcase, messages_cut_at_every_byte);
    tcase_add_test(tcase, empty_and_oversized_messages);
    tcase_add_test(tcase, messages_out_of_place);
    tcase_add_test(tcase, random_bytes);
    suite_add_tcase(suite, tcase);
    return suite;
}
