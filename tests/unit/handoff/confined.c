/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VMM that allows itself the system calls that handoff.h names, and no other: it is killed at
 * any that is missing there. The VMM is a child, and the daemon is the test.
 */
#include "suites.h"
#include "testing.h"

#ifdef WITH_SECCOMP /* and glibc, x86-64, no sanitizer: whose calls the header names */

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kvmstats/handoff-protocol.h"
#include "kvmstats/handoff.h"

enum {
    SAFETY_MS = 60000,
    /* With names of 1 KiB each: so much that malloc() asks the kernel, and free() gives back. */
    VMS = 400,
};

static char folder[64], path[96], name[KVMSTATD_HANDOFF_NAME_BYTES_MAX + 1];
static int answers[2]; /* a pipe; the VMM may end */

static void setup(void)
{
    (void)strcpy(folder, "/tmp/kvmstatd-confined-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    (void)snprintf(path, sizeof path, "%s/sock", folder);
    memset(name, 'n', sizeof name - 1);
    ck_assert_int_eq(pipe(answers), 0);
}

static void teardown(void)
{
    (void)unlink(path);
    (void)rmdir(folder);
    (void)close(answers[0]);
    (void)close(answers[1]);
}

/* --- the VMM --- */

static void allow(scmp_filter_ctx filter, const char *call)
{
    if (seccomp_rule_add(filter, SCMP_ACT_ALLOW, seccomp_syscall_resolve_name(call), 0) < 0)
        _exit(100);
}

/* Allows the calls that stand, indented, below the header's line with `title`. */
static void allow_documented(scmp_filter_ctx filter, const char *title)
{
    char line[200];
    int n = 0;
    FILE *header = fopen(TEST_SOURCE_DIR "/include/kvmstats/handoff.h", "re");
    while (header && fgets(line, sizeof line, header) && !strstr(line, title))
        ;
    while (header && fgets(line, sizeof line, header) && (n == 0 || line[2] == ' ')) {
        char *rest = line + 2;
        for (char *call; (call = strtok_r(rest, " \n", &rest)); n++)
            allow(filter, call);
    }
    if (n < 5)
        _exit(101);
    (void)fclose(header);
}

static void confine(void)
{
    static const char *const own[] = {"clock_nanosleep", "exit_group", "restart_syscall",
                                      "seccomp"};
    scmp_filter_ctx all = seccomp_init(SCMP_ACT_KILL_PROCESS);
    scmp_filter_ctx here = seccomp_init(SCMP_ACT_KILL_PROCESS);
    if (!all || !here)
        _exit(102);
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++) {
        allow(all, own[i]);
        allow(here, own[i]);
    }
    allow_documented(all, "the helper thread calls");
    allow_documented(all, "the functions here call");
    allow_documented(here, "the functions here call");
    allow(here, "read"); /* of the pipe */
    (void)seccomp_attr_set(all, SCMP_FLTATR_CTL_TSYNC, 1);
    (void)seccomp_attr_set(here, SCMP_FLTATR_CTL_NNP, 0);
    if (seccomp_load(all) < 0 || seccomp_load(here) < 0)
        _exit(103);
}

static void wait_accepted(struct kvmstatd_handoff *handoff, uint32_t n_connected)
{
    struct kvmstatd_handoff_status status;
    do {
        (void)usleep(1000);
        if (kvmstatd_handoff_get_status(handoff, &status) < 0)
            _exit(104);
    } while (status.n_connected != n_connected || status.accepted != status.given);
}

static void run_vmm(void)
{
    struct kvmstatd_handoff *handoff;
    uint64_t vm, first;
    char byte;
    if (kvmstatd_handoff_connect(path, &handoff) < 0)
        _exit(105);
    confine();
    if (kvmstatd_handoff_vm(handoff, answers[0], name, NULL, &vm) != -ENOTTY ||
        kvmstatd_handoff_vm_stats(handoff, answers[0], answers[0], name, NULL, &first) < 0)
        _exit(106);
    for (uint32_t i = 0; i < VMS; i++) {
        if (kvmstatd_handoff_vm_stats(handoff, answers[0], -1, name, NULL, &vm) < 0 ||
            kvmstatd_handoff_vcpu_stats(handoff, vm, 0, answers[0]) < 0)
            _exit(107);
    }
    wait_accepted(handoff, 1);
    if (kvmstatd_handoff_vm_gone(handoff, first) < 0)
        _exit(108);
    wait_accepted(handoff, 2); /* by the daemon's successor */
    for (; vm != first; vm--) {
        if (kvmstatd_handoff_vcpu_gone(handoff, vm, 0) < 0 ||
            kvmstatd_handoff_vm_gone(handoff, vm) < 0)
            _exit(109);
    }
    kvmstatd_handoff_close(handoff);
    _exit(read(answers[0], &byte, 1) == 1 ? 0 : 110);
}

/* --- the daemon --- */

static int listen_here(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    (void)unlink(path);
    ck_assert_int_eq(bind(fd, (const struct sockaddr *)&address, sizeof address), 0);
    ck_assert_int_eq(listen(fd, 8), 0);
    return fd;
}

static void abort_ended(int status)
{
    ck_abort_msg("the VMM ended with %d: signal %d%s", WEXITSTATUS(status), WTERMSIG(status),
                 WTERMSIG(status) == SIGSYS ? ", a call that the header does not name" : "");
}

static void ck_assert_alive(pid_t vmm)
{
    int status = 0;
    if (waitpid(vmm, &status, WNOHANG) != 0)
        abort_ended(status);
}

static void wait_readable(pid_t vmm, int fd)
{
    struct pollfd waiting = {.fd = fd, .events = POLLIN};
    for (int i = 0; i < SAFETY_MS / 10 && poll(&waiting, 1, 10) == 0; i++)
        ck_assert_alive(vmm);
    ck_assert(waiting.revents);
}

/* Accepts everything on one connection until it ends, or until `last` has come. */
static void serve(pid_t vmm, int listener, uint16_t last)
{
    union {
        struct kvmstatd_handoff_header header;
        char bytes[KVMSTATD_HANDOFF_MESSAGE_BYTES_MAX];
    } message;
    wait_readable(vmm, listener);
    int fd = accept(listener, NULL, NULL);
    ck_assert_int_ge(fd, 0);
    do {
        wait_readable(vmm, fd);
        if (recv(fd, &message, sizeof message, 0) <= 0)
            break; /* its fds did not arrive: there is no room for them */
        struct kvmstatd_handoff_welcome answer = {.header = message.header};
        answer.header.type = message.header.type == KVMSTATD_HANDOFF_HELLO
                                 ? KVMSTATD_HANDOFF_WELCOME
                                 : KVMSTATD_HANDOFF_ACCEPTED;
        answer.header.length = sizeof answer;
        (void)send(fd, &answer, sizeof answer, MSG_NOSIGNAL);
    } while (message.header.type != last);
    (void)close(fd);
    (void)close(listener);
}

static int count_threads(pid_t pid)
{
    char tasks[64];
    int n = -2; /* . and .. */
    (void)snprintf(tasks, sizeof tasks, "/proc/%d/task", (int)pid);
    DIR *folder_of = opendir(tasks);
    while (folder_of && readdir(folder_of))
        n++;
    if (folder_of)
        (void)closedir(folder_of);
    return n;
}

START_TEST(documented_calls_are_enough)
{
    int status, listener = listen_here();
    pid_t vmm = fork();
    if (vmm == 0)
        run_vmm();
    serve(vmm, listener, KVMSTATD_HANDOFF_VM_GONE);
    /* Nobody is there, so the thread waits with a time; a wait that was stopped goes on. */
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(kill(vmm, SIGSTOP), 0);
        ck_assert_int_eq(waitpid(vmm, &status, WUNTRACED), vmm);
        if (!WIFSTOPPED(status))
            abort_ended(status);
        ck_assert_int_eq(kill(vmm, SIGCONT), 0);
    }
    serve(vmm, listen_here(), 0);
    for (int i = 0; i < SAFETY_MS && count_threads(vmm) != 1; i++) {
        ck_assert_alive(vmm);
        (void)usleep(1000);
    }
    ck_assert_int_eq(write(answers[1], "", 1), 1);
    ck_assert_int_eq(waitpid(vmm, &status, 0), vmm);
    if (status != 0)
        abort_ended(status);
}
END_TEST

Suite *suite_confined(void)
{
    Suite *suite = suite_create("confined");
    TCase *tcase = tcase_create("confined");
    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, documented_calls_are_enough);
    suite_add_tcase(suite, tcase);
    return suite;
}

#endif
