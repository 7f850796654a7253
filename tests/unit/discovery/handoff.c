/* SPDX-License-Identifier: Apache-2.0 */
/* The handoff socket and those who mean ill. Real KVM files are given in tests/integration/handoff.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "clock.h"
#include "handoff_rig.h"
#include "suites.h"

#define EVERYBODY                       \
    "discovery: {sources: [handoff]}\n" \
    "handoff: {socket: \"@SOCKET@\", allow_users: [0, 65534]}\n"
#define NOBODY_ELSE                     \
    "discovery: {sources: [handoff]}\n" \
    "handoff: {socket: \"@SOCKET@\", allow_users: [4000000000]}\n"

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

/* --- crowds --- */

START_TEST(ten_thousand_connections)
{
    enum {
        N = 10000
    };
    const struct kvmstatd_handoff_hello hello = rig_make_hello();
    CLEANUP_FREE int *fds = calloc(N, sizeof *fds);
    struct rlimit limit;
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    int n = (int)MIN_OF((rlim_t)N, limit.rlim_max - 1000);
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    for (int i = 0; i < n; i++) {
        fds[i] = rig_connect(&rig);
        ck_assert_msg(fds[i] >= 0 || fds[i] == -EAGAIN, "%s", strerror(-fds[i]));
        if (i % 2 && fds[i] >= 0)
            (void)send(fds[i], &hello, sizeof hello, MSG_NOSIGNAL);
        if (i % 100 == 99)
            rig_pump(&rig);
        ck_assert_uint_le(rig.handoff->n_connections, HANDOFF_CONNECTIONS_PER_PROCESS);
    }
    ck_assert_uint_ge(rig_rejected(&rig, HANDOFF_REJECT_LIMIT), (uint64_t)n - 1000);
    for (int i = 0; i < n; i++)
        fds[i] = fd_close(fds[i]);
    rig_pump(&rig);
    ck_assert_uint_eq(rig.handoff->n_connections, 0);
    int fd = rig_hello(&rig); /* the next one is served */
    (void)close(fd);
    rig_pump(&rig);
    rig_expect_fds(&rig, 0);
}
END_TEST

/* Silent ones, each of a process of its own, do not keep out one who says hello. */
START_TEST(silent_crowd)
{
    enum {
        N = HANDOFF_WAITING_MAX + 10
    };
    pid_t pids[N];
    int ready[2], go[2];
    char byte;
    ck_assert_int_eq(pipe2(ready, O_CLOEXEC), 0);
    ck_assert_int_eq(pipe2(go, O_CLOEXEC), 0);
    for (int i = 0; i < N; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            (void)close(go[1]);
            int fd = rig_connect(&rig);
            (void)!write(ready[1], "", 1);
            (void)!read(go[0], &byte, 1);
            _exit(fd < 0);
        }
    }
    for (int i = 0; i < N; i++)
        ck_assert_int_eq(read(ready[0], &byte, 1), 1);
    rig_pump(&rig);
    ck_assert_uint_eq(rig.handoff->n_waiting, HANDOFF_WAITING_MAX);
    ck_assert_uint_eq(rig_rejected(&rig, HANDOFF_REJECT_LIMIT), 10);
    int fd = rig_hello(&rig);
    ck_assert_uint_eq(rig.handoff->n_connections, HANDOFF_WAITING_MAX + 1);

    /* Their time is up. */
    ck_assert_int_ne(handoff_due_ns(rig.handoff), INT64_MAX);
    for (struct connection *c = rig.handoff->connections; c; c = c->next)
        c->hello_until_ns = clock_now_ns() - 1;
    rig_pump(&rig);
    ck_assert_uint_eq(rig.handoff->n_waiting, 0);
    ck_assert_uint_eq(rig.handoff->n_connections, 1);
    ck_assert_int_eq(handoff_due_ns(rig.handoff), INT64_MAX);
    ck_assert_uint_eq(rig.peers_gone, 0);
    (void)close(go[1]);
    for (int i = 0; i < N; i++)
        (void)waitpid(pids[i], NULL, 0);
    (void)close(fd);
}
END_TEST

/* It loses its answers; nobody waits for it, nothing grows. */
START_TEST(peer_that_never_reads)
{
    const struct kvmstatd_handoff_vm_gone gone = {
        .header = rig_header(KVMSTATD_HANDOFF_VM_GONE, sizeof gone),
        .vm = 1,
    };
    int fd = rig_hello(&rig);
    for (unsigned i = 0; i < 5000; i++) {
        rig_send(fd, &gone, sizeof gone, NULL, 0);
        rig_pump(&rig);
        ck_assert_uint_eq(rig.vms_gone, i + 1);
    }
    int answers = 0;
    while (rig_answer(fd, NULL, NULL) == KVMSTATD_HANDOFF_ACCEPTED)
        answers++;
    ck_assert_int_gt(answers, 64); /* more than a VMM sends at a time */
    ck_assert_int_lt(answers, 5000);
    /* And then goes on. */
    rig_send(fd, &gone, sizeof gone, NULL, 0);
    rig_pump(&rig);
    ck_assert_int_eq(rig_answer(fd, NULL, NULL), KVMSTATD_HANDOFF_ACCEPTED);
    (void)close(fd);
}
END_TEST

static void set_config(struct config *config)
{
    struct handoff_prepared prepared = HANDOFF_PREPARED_INIT;
    const char *unknown;
    ck_assert_int_eq(handoff_users_resolve(&config->handoff.allow_users, &prepared.users, &unknown),
                     0);
    handoff_set_config(rig.handoff, config, &prepared);
}

/* --- who may --- */

START_TEST(peer_not_allowed)
{
    uint32_t reason = 0;
    const struct kvmstatd_handoff_vm vm = rig_make_vm(1);
    int fds[] = {STDIN_FILENO};
    struct config *config = rig_config(&rig, NOBODY_ELSE);
    int before = rig_hello(&rig);
    /* Those who may no more are sent away, and what they gave goes. */
    set_config(config);
    ck_assert_uint_eq(rig.peers_gone, 1);
    ck_assert_uint_eq(rig.revoked, 1);
    int fd = rig_connect(&rig);
    ck_assert_int_ge(fd, 0);
    rig_send(fd, &vm, sizeof vm, fds, 1);
    rig_pump(&rig);
    ck_assert_int_eq(rig_answer(fd, NULL, &reason), KVMSTATD_HANDOFF_REFUSED);
    ck_assert_uint_eq(reason, KVMSTATD_HANDOFF_REASON_PEER);
    ck_assert_uint_eq(rig_rejected(&rig, HANDOFF_REJECT_PEER), 1);
    expect_nothing_given();
    (void)close(before);
    (void)close(fd);
    rig_expect_fds(&rig, 0);
    config_unref(config);
}
END_TEST

/* A user database of which a part is elsewhere, and does not answer. */
int getpwnam_r(const char *name, struct passwd *entry, char *bytes, size_t size,
               struct passwd **ret_found)
{
    __typeof__(&getpwnam_r) real = (__typeof__(&getpwnam_r))dlsym(RTLD_NEXT, "getpwnam_r");
    return strcmp(name, "from-afar") == 0 ? EIO : real(name, entry, bytes, size, ret_found);
}

START_TEST(user_database_that_does_not_answer)
{
    char *names[] = {"root", "from-afar", "nobody"};
    const struct string_list list = {ARRAY_LEN(names), names};
    struct handoff_prepared prepared = HANDOFF_PREPARED_INIT;
    struct handoff_users users;
    struct config_error error = {""};
    const char *unknown = NULL;
    ck_assert_int_eq(handoff_users_resolve(&list, &users, &unknown), -EIO);
    ck_assert_str_eq(unknown, "from-afar");
    ck_assert_uint_eq(users.n, 2);
    handoff_users_free(&users);
    /* A reload is refused, so those who may go on. */
    struct config *config =
        rig_config(&rig, "discovery: {sources: [handoff]}\n"
                         "handoff: {socket: \"@SOCKET@\", allow_users: [0, from-afar]}\n");
    ck_assert_int_eq(handoff_prepare(rig.handoff, rig.config, config, &prepared, &error), -EIO);
    ck_assert_str_eq(error.message,
                     "handoff.allow_users: from-afar cannot be looked up: Input/output error");
    config_unref(config);
    (void)close(rig_hello(&rig));
}
END_TEST

/* At the start the others do not wait for it. */
START_TEST(start_without_a_user_database)
{
    rig_stop(&rig);
    rig_start(&rig, "discovery: {sources: [handoff]}\n"
                    "handoff: {socket: \"@SOCKET@\", allow_users: [from-afar, 0, 65534]}\n");
    (void)close(rig_hello(&rig));
    ck_assert(handoff_allows(rig.handoff, 65534));
}
END_TEST

START_TEST(users_by_name_and_number)
{
    char *names[] = {"root", "65533", "no-such-user-here", "0", "nobody"};
    const struct string_list list = {ARRAY_LEN(names), names};
    struct handoff_users users;
    const char *unknown;
    ck_assert_int_eq(handoff_users_resolve(&list, &users, &unknown), 0);
    ck_assert_uint_eq(users.n, 3);
    ck_assert_ptr_nonnull(handoff_users_find(&users, 0));
    ck_assert_ptr_nonnull(handoff_users_find(&users, 65533));
    ck_assert_ptr_nonnull(handoff_users_find(&users, 65534));
    ck_assert_ptr_null(handoff_users_find(&users, 1));
    handoff_users_free(&users);
}
END_TEST

/* --- the socket --- */

START_TEST(socket_by_configuration)
{
    struct stat st;
    static const struct {
        const char *yaml;
        bool there;
        mode_t mode;
    } cases[] = {
        {EVERYBODY, true, 0666},
        {"discovery: {sources: [handoff]}\nhandoff: {socket: \"@SOCKET@\", allow_users: [0]}\n",
         true, 0600},
        {"discovery: {sources: [handoff]}\nhandoff: {socket: \"@SOCKET@\", allow_users: []}\n",
         false, 0},
        {"discovery: {sources: [statsfd]}\nhandoff: {socket: \"@SOCKET@\"}\n", false, 0},
        {EVERYBODY, true, 0666},
    };
    (void)umask(077); /* which has no say */
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct config *config = rig_config(&rig, cases[i].yaml);
        set_config(config);
        config_unref(config);
        ck_assert_int_eq(stat(rig.path, &st) == 0, cases[i].there);
        if (cases[i].there)
            ck_assert_uint_eq(st.st_mode & 0777, cases[i].mode);
    }
}
END_TEST

START_TEST(socket_in_the_way)
{
    const struct handoff_users users = {0};
    struct handoff_socket second = HANDOFF_SOCKET_INIT;
    char path[96];

    /* Somebody listens. */
    ck_assert_int_eq(handoff_socket_open(rig.path, &users, &second), -EADDRINUSE);
    /* A daemon that was killed left it behind. */
    (void)snprintf(path, sizeof path, "%s/stale", rig.folder);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(fd, (const struct sockaddr *)&address, sizeof address), 0);
    (void)close(fd);
    ck_assert_int_eq(handoff_socket_open(path, &users, &second), 0);
    /* Not ours any more: it is left alone. */
    ck_assert_int_eq(unlink(path), 0);
    fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    handoff_socket_close(&second);
    ck_assert_int_eq(access(path, F_OK), 0);
    /* A file is not replaced. */
    ck_assert_int_eq(handoff_socket_open(path, &users, &second), -EEXIST);
    (void)close(fd);
    (void)unlink(path);
}
END_TEST

/* What a reload prepares, and calls off, does not touch what is there. */
START_TEST(socket_is_prepared_aside)
{
    struct handoff_prepared prepared;
    struct config_error error = {""};
    struct stat st;
    char path[96], yaml[256];
    ino_t before = stat(rig.path, &st) == 0 ? st.st_ino : 0;
    (void)snprintf(path, sizeof path, "%s/other", rig.folder);
    (void)snprintf(yaml, sizeof yaml, "discovery: {sources: [handoff]}\nhandoff: {socket: %s}\n",
                   path);
    struct config *config = rig_config(&rig, yaml), *former = rig.handoff->config;

    ck_assert_int_eq(handoff_prepare(rig.handoff, former, config, &prepared, &error), 0);
    ck_assert_int_ge(prepared.socket.fd, 0);
    ck_assert_int_eq(access(path, F_OK), 0);
    handoff_prepared_free(&prepared);
    ck_assert_int_ne(access(path, F_OK), 0);
    ck_assert(stat(rig.path, &st) == 0 && st.st_ino == before);

    /* Back to what is still open: that is no other process's. */
    ck_assert_int_eq(handoff_prepare(rig.handoff, config, former, &prepared, &error), 0);
    ck_assert_int_lt(prepared.socket.fd, 0);
    handoff_prepared_free(&prepared);
    ck_assert_int_eq(handoff_prepare(rig.handoff, former, former, &prepared, &error), 0);
    ck_assert_int_lt(prepared.socket.fd, 0);
    handoff_prepared_free(&prepared);

    ck_assert_int_eq(handoff_prepare(rig.handoff, former, config, &prepared, &error), 0);
    int fd = prepared.socket.fd;
    handoff_set_config(rig.handoff, config, &prepared);
    ck_assert_int_eq(rig.handoff->socket.fd, fd);
    ck_assert_int_lt(prepared.socket.fd, 0);
    ck_assert_int_ne(access(rig.path, F_OK), 0);
    config_unref(config);

    int file = open(rig.path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    config = rig_config(&rig, EVERYBODY);
    ck_assert_int_eq(handoff_prepare(rig.handoff, rig.handoff->config, config, &prepared, &error),
                     -EEXIST);
    ck_assert_ptr_nonnull(strstr(error.message, "handoff.socket: "));
    ck_assert_int_eq(rig.handoff->socket.fd, fd);
    config_unref(config);
    (void)close(file);
    (void)unlink(rig.path);
}
END_TEST

/* Another daemon's socket is in the way, then is not. */
START_TEST(socket_is_tried_again)
{
    struct config *config;
    char path[96], yaml[256];
    (void)snprintf(path, sizeof path, "%s/other", rig.folder);
    int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    (void)snprintf(yaml, sizeof yaml, "discovery: {sources: [handoff]}\nhandoff: {socket: %s}\n",
                   path);
    config = rig_config(&rig, yaml);
    set_config(config);
    config_unref(config);
    ck_assert_int_lt(rig.handoff->socket.fd, 0);
    ck_assert_int_ne(handoff_due_ns(rig.handoff), INT64_MAX);
    (void)close(fd);
    (void)unlink(path);
    rig.handoff->open_ns = clock_now_ns() - 1;
    rig_pump(&rig);
    ck_assert_int_ge(rig.handoff->socket.fd, 0);
    ck_assert_int_eq(handoff_due_ns(rig.handoff), INT64_MAX);
    ck_assert_int_eq(access(path, F_OK), 0);
}
END_TEST

/* --- the rest --- */

START_TEST(pause_ends)
{
    struct pollfd waiting = {.fd = handoff_epoll_fd(rig.handoff), .events = POLLIN};
    int fd = rig_connect(&rig);
    ck_assert_int_eq(poll(&waiting, 1, 0), 1);
    handoff_pause(rig.handoff);
    ck_assert_int_eq(poll(&waiting, 1, 0), 0);
    handoff_dispatch(rig.handoff);
    ck_assert_uint_eq(rig.handoff->n_connections, 0);
    ck_assert_int_ne(handoff_due_ns(rig.handoff), INT64_MAX);
    rig_pump(&rig); /* until it is over */
    ck_assert_uint_eq(rig.handoff->n_connections, 1);
    (void)close(fd);
    rig_pump(&rig);
    ck_assert_uint_eq(rig.handoff->n_connections, 0);
    ck_assert_int_eq(handoff_due_ns(rig.handoff), INT64_MAX);
}
END_TEST

START_TEST(peer_is_who_the_kernel_says)
{
    const struct kvmstatd_handoff_vcpu_gone gone = {
        .header = rig_header(KVMSTATD_HANDOFF_VCPU_GONE, sizeof gone),
        .vm = UINT64_MAX,
        .vcpu = 7,
    };
    uint32_t serial = 0;
    int fd = rig_hello(&rig);
    rig_send(fd, &gone, sizeof gone, NULL, 0);
    rig_pump(&rig);
    ck_assert_int_eq(rig_answer(fd, &serial, NULL), KVMSTATD_HANDOFF_ACCEPTED);
    ck_assert_uint_eq(serial, 4711);
    ck_assert_uint_eq(rig.vm, UINT64_MAX);
    ck_assert_int_eq(rig.vcpu, 7);
    ck_assert_int_eq(rig.pid, getpid());
    ck_assert_uint_eq(rig.uid, getuid());
    rig.answer = -ENOENT;
    rig_refused(&rig, fd, &gone, sizeof gone, NULL, 0, KVMSTATD_HANDOFF_REASON_UNKNOWN_VM, false);
    (void)close(fd);
    rig_pump(&rig);
    ck_assert_uint_eq(rig.peers_gone, 1);
    ck_assert_uint_eq(rig.revoked, 0);
}
END_TEST

START_TEST(closer_closes_all)
{
    struct handoff_closer *closer;
    ck_assert_int_eq(handoff_closer_new(&closer), 0);
    int before = rig_count_fds();
    for (int i = 0; i < 1000; i++)
        handoff_closer_put(closer, dup(STDIN_FILENO));
    handoff_closer_put(closer, -1);
    handoff_closer_free(closer);
    ck_assert_int_eq(rig_count_fds(), before);
}
END_TEST

Suite *suite_handoff(void)
{
    Suite *suite = suite_create("handoff");
    TCase *tcase = tcase_create("handoff");
    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_loop_test(tcase, other_files_are_closed_unread, 0, BAITS);
    tcase_add_test(tcase, too_many_files);
    tcase_add_test(tcase, no_fds_left);
    tcase_add_test(tcase, messages_cut_at_every_byte);
    tcase_add_test(tcase, empty_and_oversized_messages);
    tcase_add_test(tcase, messages_out_of_place);
    tcase_add_test(tcase, random_bytes);
    tcase_add_test(tcase, ten_thousand_connections);
    tcase_add_test(tcase, silent_crowd);
    tcase_add_test(tcase, peer_that_never_reads);
    tcase_add_test(tcase, peer_not_allowed);
    tcase_add_test(tcase, user_database_that_does_not_answer);
    tcase_add_test(tcase, start_without_a_user_database);
    tcase_add_test(tcase, users_by_name_and_number);
    tcase_add_test(tcase, socket_by_configuration);
    tcase_add_test(tcase, socket_in_the_way);
    tcase_add_test(tcase, socket_is_tried_again);
    tcase_add_test(tcase, socket_is_prepared_aside);
    tcase_add_test(tcase, pause_ends);
    tcase_add_test(tcase, peer_is_who_the_kernel_says);
    tcase_add_test(tcase, closer_closes_all);
    suite_add_tcase(suite, tcase);
    return suite;
}
