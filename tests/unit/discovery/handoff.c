/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The handoff socket, who may use it, and crowds of them. Real KVM files are given in
 * tests/integration/discovery.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
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
    for (struct connection *c = rig.handoff->connections; c; c = c->next)
        c->hello_until_ns = INT64_MAX - 1; /* however long this test takes */
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
    ck_assert_int_eq(handoff_users_resolve(&config->handoff.allow_users, INT64_MAX / 2,
                                           &prepared.users, &unknown),
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
    ck_assert_uint_eq(rig.vms + rig.vcpus, 0);
    (void)close(before);
    (void)close(fd);
    rig_expect_fds(&rig, 0);
    config_unref(config);
}
END_TEST

/* A user database of which a part is elsewhere, and does not answer, or not yet. */
static sem_t answers;

int getpwnam_r(const char *name, struct passwd *entry, char *bytes, size_t size,
               struct passwd **ret_found)
{
    __typeof__(&getpwnam_r) real = (__typeof__(&getpwnam_r))dlsym(RTLD_NEXT, "getpwnam_r");
    if (strcmp(name, "from-farther") == 0) {
        (void)sem_wait(&answers);
        name = "nobody";
    }
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
    ck_assert_int_eq(handoff_users_resolve(&list, INT64_MAX / 2, &users, &unknown), -EIO);
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

START_TEST(user_database_that_hangs)
{
    char *names[] = {"from-farther", "root", "65533", "nobody"};
    const struct string_list list = {ARRAY_LEN(names), names};
    struct handoff_prepared prepared = HANDOFF_PREPARED_INIT;
    struct handoff_users users;
    struct config_error error = {""};
    const char *unknown = NULL;
    ck_assert_int_eq(sem_init(&answers, 0, 0), 0);
    ck_assert_int_eq(
        handoff_users_resolve(&list, clock_now_ns() + 8 * NSEC_PER_SEC, &users, &unknown),
        -ETIMEDOUT);
    ck_assert_ptr_eq(unknown, names[0]);
    ck_assert_uint_eq(users.n, 3);
    handoff_users_free(&users);
    struct config *config =
        rig_config(&rig, "discovery: {sources: [handoff]}\n"
                         "handoff: {socket: \"@SOCKET@\", allow_users: [0, from-farther]}\n");
    ck_assert_int_eq(handoff_prepare(rig.handoff, rig.config, config, &prepared, &error),
                     -ETIMEDOUT);
    ck_assert_str_eq(error.message,
                     "handoff.allow_users: from-farther cannot be looked up: timed out");
    /* Answers that come at last are dropped. */
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(sem_post(&answers), 0);
    ck_assert_int_eq(handoff_prepare(rig.handoff, rig.config, config, &prepared, &error), 0);
    ck_assert_uint_eq(prepared.users.n, 2);
    handoff_prepared_free(&prepared);
    config_unref(config);
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
    ck_assert_int_eq(handoff_users_resolve(&list, INT64_MAX / 2, &users, &unknown), 0);
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
    rig.handoff->resume_ns = INT64_MAX - 1; /* however long this test takes */
    handoff_dispatch(rig.handoff);
    ck_assert_uint_eq(rig.handoff->n_connections, 0);
    ck_assert_int_ne(handoff_due_ns(rig.handoff), INT64_MAX);
    rig.handoff->resume_ns = clock_now_ns(); /* it is over */
    rig_pump(&rig);
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
    while (rig_count_fds() != before)
        (void)usleep(1000); /* it waits for a second, no longer */
}
END_TEST

Suite *suite_handoff(void)
{
    Suite *suite = suite_create("handoff");
    TCase *tcase = tcase_create("handoff");
    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, ten_thousand_connections);
    tcase_add_test(tcase, silent_crowd);
    tcase_add_test(tcase, peer_that_never_reads);
    tcase_add_test(tcase, peer_not_allowed);
    tcase_add_test(tcase, user_database_that_does_not_answer);
    tcase_add_test(tcase, user_database_that_hangs);
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
