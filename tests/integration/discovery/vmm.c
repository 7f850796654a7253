/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "testing.h"

struct order {
    int act, a, b;
};

/* Its write end is the test's alone: end of file tells everybody that the test has ended. */
static int life[2] = {-1, -1};

static int fork_holder(int socket)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    char c;
    (void)close(socket);
    while (read(life[0], &c, 1) < 0 && errno == EINTR)
        ;
    _exit(0);
}

static int borrow(pid_t pid, int their_fd)
{
    int pidfd = pidfd_open(pid, 0);
    int fd = pidfd_getfd(pidfd, their_fd, 0);
    (void)close(pidfd);
    return fd;
}

static int obey(int kvm, int socket, const struct order *order)
{
    switch ((enum vmm_act)order->act) {
    case VMM_MAKE_VM:
        return ioctl(kvm, KVM_CREATE_VM, 0);
    case VMM_MAKE_VCPU:
        return ioctl(order->a, KVM_CREATE_VCPU, order->b);
    case VMM_STATS:
        return ioctl(order->a, KVM_GET_STATS_FD, 0);
    case VMM_DUP:
        return dup(order->a);
    case VMM_DUP2:
        return dup2(order->a, order->b);
    case VMM_CLOSE:
        return close(order->a);
    case VMM_NULL:
        return open("/dev/null", O_RDONLY);
    case VMM_FORK:
        return fork_holder(socket);
    case VMM_BORROW:
        return borrow(order->a, order->b);
    }
    return -1;
}

/* What the test has borrowed must not look as if it were this process's. */
static int leave_the_rest(int socket)
{
    (void)dup2(socket, 3);
    (void)dup2(life[0], 4);
    (void)close_range(5, ~0u, 0);
    life[0] = 4;
    return 3;
}

static void serve(int socket)
{
    struct order order;
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    while (recv(socket, &order, sizeof order, 0) == (ssize_t)sizeof order) {
        int answer = obey(kvm, socket, &order);
        if (send(socket, &answer, sizeof answer, MSG_NOSIGNAL) != (ssize_t)sizeof answer)
            break;
    }
    _exit(0);
}

struct vmm_process vmm_start(void)
{
    int pair[2];
    if (life[0] < 0) {
        ck_assert_int_eq(pipe2(life, O_CLOEXEC), 0);
        ck_assert_int_eq(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    }
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        /* Neither number may be in the way of the other. */
        life[0] = fcntl(life[0], F_DUPFD, 100);
        serve(leave_the_rest(pair[1]));
    }
    (void)close(pair[1]);
    return (struct vmm_process){.pid = pid, .socket = pair[0]};
}

int vmm_do(const struct vmm_process *vmm, enum vmm_act act, int a, int b)
{
    struct order order = {.act = (int)act, .a = a, .b = b};
    int answer = -1;
    ck_assert_int_eq(send(vmm->socket, &order, sizeof order, MSG_NOSIGNAL), sizeof order);
    ck_assert_int_eq(recv(vmm->socket, &answer, sizeof answer, 0), sizeof answer);
    ck_assert_msg(answer >= 0, "act %d (%d, %d) failed", (int)act, a, b);
    return answer;
}

void vmm_kill_forked(pid_t pid)
{
    ck_assert_int_eq(kill(pid, SIGKILL), 0);
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}

void vmm_kill(struct vmm_process *vmm)
{
    vmm_kill_forked(vmm->pid);
    (void)close(vmm->socket);
    *vmm = (struct vmm_process){.socket = -1};
}
