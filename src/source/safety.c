/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Closing the last reference to a VM sends its event from within close(), so there is nothing to
 * wait for: when close() has returned, the event is in our socket or it will never be.
 */
#include "safety.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

enum {
    GROUP_KERNEL = 1,
    MESSAGE_BYTES = 4096,
    /* For the event that must come: a machine may be slow. */
    CONTROL_MS = 1000,
};

static int open_events(void)
{
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = GROUP_KERNEL};
    CLEANUP_FD int fd =
        socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
        return -1;
    return steal_fd(&fd);
}

static bool has_field(const char *message, size_t len, const char *field)
{
    for (size_t at = 0; at < len; at += strnlen(message + at, len - at) + 1) {
        if (strncmp(message + at, field, len - at) == 0)
            return true;
    }
    return false;
}

/* Whether the end of a VM that this thread has made is among the events that have come. */
static bool saw_destroy(int events_fd)
{
    char message[MESSAGE_BYTES + 1], pid[32];
    struct sockaddr_nl from;
    (void)snprintf(pid, sizeof pid, "PID=%d", (int)gettid());
    for (;;) {
        socklen_t from_len = sizeof from;
        ssize_t n =
            recvfrom(events_fd, message, MESSAGE_BYTES, 0, (struct sockaddr *)&from, &from_len);
        if (n < 0)
            return false;
        message[n] = '\0';
        if (from.nl_pid == 0 && has_field(message, (size_t)n, "EVENT=destroy") &&
            has_field(message, (size_t)n, pid))
            return true;
    }
}

enum stats_fd_safety stats_fd_probe(void)
{
    CLEANUP_FD int events_fd = open_events();
    CLEANUP_FD int kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (events_fd < 0 || kvm_fd < 0)
        return STATS_FDS_UNKNOWN;
    CLEANUP_FD int vm_fd = ioctl(kvm_fd, KVM_CREATE_VM, 0);
    if (vm_fd < 0)
        return STATS_FDS_UNKNOWN;
    CLEANUP_FD int stats_fd = ioctl(vm_fd, KVM_GET_STATS_FD, NULL);
    if (stats_fd < 0)
        return STATS_FDS_UNKNOWN;

    vm_fd = fd_close(vm_fd);
    if (saw_destroy(events_fd))
        return STATS_FDS_DO_NOT;
    stats_fd = fd_close(stats_fd);
    struct pollfd pollfd = {.fd = events_fd, .events = POLLIN};
    while (poll(&pollfd, 1, CONTROL_MS) > 0) {
        if (saw_destroy(events_fd))
            return STATS_FDS_HOLD;
    }
    return STATS_FDS_UNKNOWN;
}
