/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each VM is forked and executes this program anew, so that it has the argv, the memory and the
 * parent that anybody would expect of a VMM. A VM tells that it runs by one byte on a pipe that all
 * of them share; its number is in the environment, because argv is what others read.
 */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

#include "cleanup.h"
#include "fail.h"
#include "parent.h"

#define READY_VARIABLE "KVMSTATD_DEMO_READY_FD"

struct launcher {
    pid_t *pids; /* 0: ended and waited for */
    uint64_t n;
    uint64_t n_alive;
    uint64_t n_ready;
    int ready_fd;
    int signal_fd;
    bool stopping;
    int status;
};

int launcher_tell_ready(void)
{
    const char *text = getenv(READY_VARIABLE);
    if (!text)
        return 0;
    int fd = atoi(text);
    if (write(fd, "r", 1) != 1)
        fail_errno("telling the launcher");
    (void)fd_close(fd);
    return 1;
}

static void become_vm(const struct options *options, const char *program, uint64_t i, pid_t parent)
{
    char name[OPTIONS_NAME_MAX + 24];
    struct options one = *options;
    struct options_argv line;
    parent_follow(parent);
    one.vms = 1;
    if (options->name) {
        (void)snprintf(name, sizeof name, "%s-%" PRIu64, options->name, i);
        one.name = name;
    }
    options_to_argv(&one, program, &line);
    (void)execv("/proc/self/exe", line.argv);
    fail_errno("/proc/self/exe");
}

static void signal_all(const struct launcher *launcher, int number)
{
    for (uint64_t i = 0; i < launcher->n; i++) {
        if (launcher->pids[i])
            (void)kill(launcher->pids[i], number);
    }
}

static void stop_all(struct launcher *launcher)
{
    launcher->stopping = true;
    signal_all(launcher, SIGTERM);
}

static void reap(struct launcher *launcher)
{
    pid_t pid;
    int status;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        for (uint64_t i = 0; i < launcher->n; i++) {
            if (launcher->pids[i] == pid) {
                launcher->pids[i] = 0;
                launcher->n_alive--;
                break;
            }
        }
        /* Before all are ready, one that ends is a failure, of which it has told itself. Later it
         * is somebody's wish: VMs are killed in tests. */
        if (!launcher->stopping && launcher->n_ready < launcher->n) {
            launcher->status = EXIT_FAILURE;
            stop_all(launcher);
        }
    }
}

static void on_signal(struct launcher *launcher)
{
    struct signalfd_siginfo info;
    if (read(launcher->signal_fd, &info, sizeof info) != (ssize_t)sizeof info)
        return;
    switch (info.ssi_signo) {
    case SIGCHLD:
        reap(launcher);
        break;
    case SIGUSR1:
        signal_all(launcher, SIGUSR1);
        break;
    case SIGTERM:
    case SIGINT:
        stop_all(launcher);
        break;
    }
}

static void on_ready(struct launcher *launcher)
{
    char bytes[512];
    ssize_t n = read(launcher->ready_fd, bytes, sizeof bytes);
    if (n > 0) {
        launcher->n_ready += (uint64_t)n;
        return;
    }
    /* The end: each has told and closed its side, or has ended. */
    launcher->ready_fd = fd_close(launcher->ready_fd);
    if (launcher->n_ready == launcher->n && !launcher->stopping)
        printf("ready %" PRIu64 "\n", launcher->n);
}

static void start_all(struct launcher *launcher, const struct options *options, const char *program)
{
    int ends[2];
    char text[12];
    pid_t self = getpid();
    if (pipe2(ends, O_CLOEXEC) < 0)
        fail_errno("pipe");
    int told = fcntl(ends[1], F_DUPFD, 0); /* the one that lasts over execve() */
    (void)snprintf(text, sizeof text, "%d", told);
    if (told < 0 || setenv(READY_VARIABLE, text, 1) < 0)
        fail_errno("pipe");
    for (uint64_t i = 0; i < launcher->n; i++) {
        pid_t pid = fork();
        if (pid < 0)
            fail_errno("fork of VM %" PRIu64, i);
        if (pid == 0)
            become_vm(options, program, i, self);
        launcher->pids[i] = pid;
        launcher->n_alive++;
    }
    (void)fd_close(told);
    (void)fd_close(ends[1]);
    launcher->ready_fd = ends[0];
}

int launcher_run(const struct options *options, const char *program)
{
    struct launcher launcher = {.n = options->vms, .status = EXIT_SUCCESS};
    sigset_t signals;
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigaddset(&signals, SIGINT);
    (void)sigaddset(&signals, SIGUSR1);
    (void)sigaddset(&signals, SIGCHLD);
    launcher.signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    launcher.pids = calloc(options->vms, sizeof *launcher.pids);
    if (launcher.signal_fd < 0 || !launcher.pids)
        fail_errno("launcher");
    start_all(&launcher, options, program);

    while (launcher.n_alive > 0) {
        struct pollfd fds[] = {
            {.fd = launcher.ready_fd, .events = POLLIN},
            {.fd = launcher.signal_fd, .events = POLLIN},
        };
        if (poll(fds, ARRAY_LEN(fds), -1) < 0 && errno != EINTR)
            fail_errno("poll");
        /* First what VMs have told, then which have ended: one may do both at once. */
        if (fds[0].revents)
            on_ready(&launcher);
        else if (fds[1].revents)
            on_signal(&launcher);
    }
    free(launcher.pids);
    return launcher.status;
}
