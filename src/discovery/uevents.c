/* SPDX-License-Identifier: Apache-2.0 */
#include "uevents.h"

#include <errno.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>

#include "clock.h"

enum {
    GROUP_KERNEL = 1, /* group 2 is udevd's */
    /* The kernel builds them in 2048 bytes (UEVENT_BUFFER_SIZE) behind a header of path length. */
    MESSAGE_BYTES_MAX = 8192,
    /* Some thousand events: a host's VMs may all be started at once. */
    RECEIVE_BUFFER_BYTES = 4 << 20,
    OVERTAKEN_MS = 1000,
};

/* The value of a decimal number that is all of `text`, or -1. */
static int64_t parse_number(const char *text)
{
    int64_t value = 0;
    if (!*text)
        return -1;
    for (; *text; text++) {
        if (*text < '0' || *text > '9' || value > INT32_MAX)
            return -1;
        value = value * 10 + (*text - '0');
    }
    return value;
}

bool uevent_parse(const char *message, size_t len, struct uevent *ret_event)
{
    struct uevent event = {.count = -1, .made = -1};
    bool is_misc = false, is_kvm = false, has_kind = false;

    /* "ACTION@DEVPATH", then KEY=VALUE, each with its NUL. */
    if (len == 0 || message[len - 1] != '\0')
        return false;
    for (const char *p = message; p < message + len; p += strlen(p) + 1) {
        if (strcmp(p, "SUBSYSTEM=misc") == 0)
            is_misc = true;
        else if (strcmp(p, "DEVNAME=kvm") == 0)
            is_kvm = true;
        else if (strncmp(p, "COUNT=", 6) == 0)
            event.count = parse_number(p + 6);
        else if (strncmp(p, "CREATED=", 8) == 0)
            event.made = parse_number(p + 8);
        else if (strncmp(p, "PID=", 4) == 0)
            event.tid = (pid_t)MIN_OF(MAX_OF(parse_number(p + 4), 0), INT32_MAX);
        else if (strcmp(p, "EVENT=create") == 0 || strcmp(p, "EVENT=destroy") == 0) {
            event.kind = p[6] == 'c' ? UEVENT_VM_CREATED : UEVENT_VM_DESTROYED;
            has_kind = true;
        }
    }
    if (!is_misc || !is_kvm || !has_kind)
        return false;
    *ret_event = event;
    return true;
}

/*
 * The kernel counts under a lock and tells without it (kvm_uevent_notify_change()): words of VMs
 * that come and go at the same time overtake each other. Which was the last, the number of VMs ever
 * made tells; between two of those VMs only go, so the lowest count is the last. After a while it
 * is no overtaking: the module was loaded anew and counts from 0.
 */
bool kernel_count_take(struct kernel_count *count, const struct uevent *event, int64_t now_ns)
{
    bool is_late =
        count->vms >= 0 && event->made >= 0 &&
        now_ns - count->told_ns < OVERTAKEN_MS * NSEC_PER_MSEC &&
        (event->made < count->made || (event->made == count->made && event->count > count->vms));
    if (event->count < 0 || is_late)
        return false;
    bool changes = count->vms != event->count;
    *count = (struct kernel_count){.vms = event->count, .made = event->made, .told_ns = now_ns};
    return changes;
}

int uevents_open(int *ret_fd)
{
    CLEANUP_FD int fd =
        socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);
    if (fd < 0)
        return -errno;
    /* Best effort: with the default buffer events are lost earlier, which is noticed. */
    int bytes = RECEIVE_BUFFER_BYTES;
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) < 0)
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = GROUP_KERNEL};
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
        return -errno;
    *ret_fd = steal_fd(&fd);
    return 0;
}

int uevents_receive(int fd, struct uevent *ret_event)
{
    char message[MESSAGE_BYTES_MAX];
    struct sockaddr_nl sender = {0};
    struct iovec iov = {.iov_base = message, .iov_len = sizeof message};
    struct msghdr header = {
        .msg_name = &sender,
        .msg_namelen = sizeof sender,
        .msg_iov = &iov,
        .msg_iovlen = 1,
    };
    ssize_t n = recvmsg(fd, &header, 0);
    if (n < 0)
        return -errno;
    /*
     * Any process may send to our address; the kernel writes the sender's into the message, and 0
     * is its own. Only the kernel multicasts to this group without CAP_NET_ADMIN.
     */
    if (header.msg_namelen < sizeof sender || sender.nl_family != AF_NETLINK ||
        sender.nl_pid != 0 || sender.nl_groups != GROUP_KERNEL || (header.msg_flags & MSG_TRUNC))
        return 0;
    return uevent_parse(message, (size_t)n, ret_event);
}
