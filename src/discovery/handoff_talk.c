/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is said on one connection. An fd goes through three questions before anybody else sees it:
 * is it a KVM file of that kind (by our own /proc/self/fd, and not opened with O_PATH); is it the
 * vCPU that the message names; does the process at the other end hold it itself. The last one keeps
 * a VMM from giving another's VM as its own; kcmp() answers it, for which the kernel wants
 * CAP_SYS_PTRACE or the same user. Where it does not answer, the user's right to hand over stands.
 */
#include "handoff_internal.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/socket.h>

#include "clock.h"
#include "log.h"

/* What came with one message. */
struct luggage {
    int fds[KVMSTATD_HANDOFF_FDS_MAX]; /* owned; -1: none */
    size_t n;
    bool cut; /* there were more */
};

static const struct {
    enum handoff_reject counted_as;
    bool fatal;
    const char *text;
} reasons[] = {
    [KVMSTATD_HANDOFF_REASON_VERSION] = {HANDOFF_REJECT_BAD_MESSAGE, true,
                                         "it speaks another version of the protocol"},
    [KVMSTATD_HANDOFF_REASON_PEER] = {HANDOFF_REJECT_PEER, true,
                                      "its user is not among handoff.allow_users"},
    [KVMSTATD_HANDOFF_REASON_MALFORMED] = {HANDOFF_REJECT_BAD_MESSAGE, true, "malformed message"},
    [KVMSTATD_HANDOFF_REASON_TYPE] = {HANDOFF_REJECT_BAD_MESSAGE, false,
                                      "a message of an unknown type"},
    [KVMSTATD_HANDOFF_REASON_NOT_STATS_FD] = {HANDOFF_REJECT_NOT_STATS_FD, true,
                                              "a file descriptor that is not the KVM statistics "
                                              "file it was given as"},
    [KVMSTATD_HANDOFF_REASON_FDS] = {HANDOFF_REJECT_TOO_MANY_FDS, true,
                                     "a wrong number of file descriptors"},
    [KVMSTATD_HANDOFF_REASON_UNKNOWN_VM] = {HANDOFF_REJECT_BAD_MESSAGE, false,
                                            "a VM or vCPU that it had not given"},
    [KVMSTATD_HANDOFF_REASON_EXISTS] = {HANDOFF_REJECT_BAD_MESSAGE, false,
                                        "a VM or vCPU that it had given already"},
    [KVMSTATD_HANDOFF_REASON_LIMIT] = {HANDOFF_REJECT_LIMIT, false, "a limit is reached"},
    [KVMSTATD_HANDOFF_REASON_NOT_YOURS] = {HANDOFF_REJECT_PEER, false,
                                           "a statistics file that it does not hold itself"},
    [KVMSTATD_HANDOFF_REASON_UNREADABLE] = {HANDOFF_REJECT_NOT_STATS_FD, false,
                                            "a statistics file that cannot be understood"},
};

/* --- answers --- */

/* A peer that does not read its answers loses them: nothing is kept for it. */
static void answer(const struct connection *c, uint16_t type, uint32_t serial, uint32_t first,
                   uint32_t second, size_t len)
{
    struct {
        struct kvmstatd_handoff_header header;
        uint32_t words[2];
    } message = {
        .header =
            {
                .magic = KVMSTATD_HANDOFF_MAGIC,
                .major = KVMSTATD_HANDOFF_MAJOR,
                .minor = KVMSTATD_HANDOFF_MINOR,
                .type = type,
                .length = (uint32_t)len,
                .serial = serial,
            },
        .words = {first, second},
    };
    (void)send(c->fd, &message, len, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* One line for the first of its kind and for each power of two: a peer may do it all day. */
static void say_refusal(struct handoff *h, const struct connection *c,
                        enum kvmstatd_handoff_reason reason)
{
    uint64_t n = ++h->n_rejected[reasons[reason].counted_as];
    if ((n & (n - 1)) != 0)
        return;
    log_warn("handoff", "refused from pid %d (uid %u): %s%s (%s: %" PRIu64 " so far)",
             (int)c->peer.pid, (unsigned)c->peer.uid, reasons[reason].text,
             reasons[reason].fatal ? ", connection closed" : "",
             handoff_reject_name(reasons[reason].counted_as), n);
}

void talk_reject(struct handoff *h, const struct connection *c, uint32_t serial,
                 enum kvmstatd_handoff_reason reason)
{
    atomic_fetch_add_explicit(&h->self->handoff_rejected[reasons[reason].counted_as], 1,
                              memory_order_relaxed);
    say_refusal(h, c, reason);
    answer(c, KVMSTATD_HANDOFF_REFUSED, serial, reason, 0, sizeof(struct kvmstatd_handoff_refused));
}

/* --- files --- */

/* >0 and what it is, 0 when it is no KVM file that can be read, -errno. */
static int identify(struct handoff *h, int fd, struct kvm_file *ret_file)
{
    /* Such an fd has the same link text, but neither reads nor keeps anything alive. */
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0)
        return -errno;
    return flags & O_PATH ? 0 : broker_identify(h->broker, fd, ret_file);
}

static bool may_search(struct handoff *h, pid_t pid)
{
    const int64_t every_ns = HANDOFF_SEARCH_EVERY_MS * NSEC_PER_MSEC;
    int64_t now_ns = clock_now_ns();
    struct handoff_searched *of = &h->searched[0]; /* this process's, or the one longest idle */
    for (size_t i = 0; i < HANDOFF_SEARCHED_MAX && of->pid != pid; i++) {
        if (h->searched[i].pid == pid || h->searched[i].since_ns < of->since_ns)
            of = &h->searched[i];
    }
    if (of->pid != pid)
        *of = (struct handoff_searched){.pid = pid, .left = HANDOFF_SEARCHES, .since_ns = now_ns};
    int64_t earned = (now_ns - of->since_ns) / every_ns;
    of->since_ns += earned * every_ns;
    of->left = (unsigned)MIN_OF(of->left + earned, HANDOFF_SEARCHES);
    if (of->left == 0)
        return false;
    of->left--;
    return true;
}

/* Whether the peer's process has `ours` open: >0, 0; also >0 where that cannot be known. */
static int holds(struct handoff *h, const struct connection *c, int ours, int hint,
                 const struct kvm_file *file)
{
    CLEANUP(kvm_file_list_free) struct kvm_file_list list = {0};
    int r = 0;
    if (hint >= 0) {
        r = broker_same_file(h->broker, h->pid, ours, c->peer.pid, hint);
        if (r > 0 || r == -EPERM || r == -EACCES || r == -ENOSYS)
            return 1;
    }
    if (r == -ESRCH || !may_search(h, c->peer.pid))
        return 0;
    r = broker_list(h->broker, c->peer.pid, &list);
    if (r == -EPERM || r == -EACCES)
        return 1;
    for (size_t i = 0; r == 0 && i < list.n; i++) {
        if (list.files[i].kind != file->kind || list.files[i].vcpu != file->vcpu)
            continue;
        int same = broker_same_file(h->broker, h->pid, ours, c->peer.pid, list.files[i].fd);
        if (same > 0 || same == -EPERM || same == -ENOSYS)
            return 1;
    }
    return 0;
}

/* --- messages --- */

static enum kvmstatd_handoff_reason reason_of(int r)
{
    switch (r) {
    case 0:
        return KVMSTATD_HANDOFF_REASON_NONE;
    case -EEXIST:
        return KVMSTATD_HANDOFF_REASON_EXISTS;
    case -ENOENT:
        return KVMSTATD_HANDOFF_REASON_UNKNOWN_VM;
    case -ENOSPC:
    case -ENOMEM:
        return KVMSTATD_HANDOFF_REASON_LIMIT;
    }
    return KVMSTATD_HANDOFF_REASON_UNREADABLE;
}

static enum kvmstatd_handoff_reason take_vm(struct handoff *h, struct connection *c,
                                            const struct handoff_message *message,
                                            struct luggage *luggage)
{
    struct handoff_vm vm = {message->vm, -1, -1, message->name, message->uuid};
    struct kvm_file stats, whole;
    bool held = false;

    if (luggage->n == 0)
        return KVMSTATD_HANDOFF_REASON_FDS;
    for (size_t i = 0; i < luggage->n; i++) {
        struct kvm_file file;
        int r = identify(h, luggage->fds[i], &file);
        if (r > 0 && file.kind == KVM_FILE_VM_STATS && vm.stats_fd < 0) {
            vm.stats_fd = luggage->fds[i];
            stats = file;
        } else if (r > 0 && file.kind == KVM_FILE_VM && vm.vm_fd < 0) {
            vm.vm_fd = luggage->fds[i];
            whole = file;
        } else {
            return KVMSTATD_HANDOFF_REASON_NOT_STATS_FD;
        }
    }
    if (vm.stats_fd < 0)
        return KVMSTATD_HANDOFF_REASON_NOT_STATS_FD;
    if (vm.vm_fd >= 0)
        held = holds(h, c, vm.vm_fd, message->vm_fd, &whole) > 0;
    if (!held && holds(h, c, vm.stats_fd, message->stats_fd, &stats) <= 0)
        return KVMSTATD_HANDOFF_REASON_NOT_YOURS;
    int r = h->receiver.vm_given(h->receiver.ctx, &c->peer, &vm);
    if (r == 0)
        luggage->fds[0] = luggage->fds[1] = -1;
    return reason_of(r);
}

static enum kvmstatd_handoff_reason take_vcpu(struct handoff *h, struct connection *c,
                                              const struct handoff_message *message,
                                              struct luggage *luggage)
{
    const struct handoff_vcpu vcpu = {message->vm, (int32_t)message->vcpu, luggage->fds[0]};
    struct kvm_file file;

    if (luggage->n != 1)
        return KVMSTATD_HANDOFF_REASON_FDS;
    if (identify(h, luggage->fds[0], &file) <= 0 || file.kind != KVM_FILE_VCPU_STATS ||
        file.vcpu < 0 || (uint32_t)file.vcpu != message->vcpu)
        return KVMSTATD_HANDOFF_REASON_NOT_STATS_FD;
    if (holds(h, c, luggage->fds[0], message->stats_fd, &file) <= 0)
        return KVMSTATD_HANDOFF_REASON_NOT_YOURS;
    int r = h->receiver.vcpu_given(h->receiver.ctx, &c->peer, &vcpu);
    if (r == 0)
        luggage->fds[0] = -1;
    return reason_of(r);
}

static enum kvmstatd_handoff_reason take_hello(struct handoff *h, struct connection *c,
                                               const struct handoff_message *message)
{
    if (c->welcomed)
        return KVMSTATD_HANDOFF_REASON_MALFORMED;
    connection_welcome(h, c);
    answer(c, KVMSTATD_HANDOFF_WELCOME, message->serial, h->config->limits.max_vms,
           h->config->limits.max_vcpus_per_vm, sizeof(struct kvmstatd_handoff_welcome));
    return KVMSTATD_HANDOFF_REASON_NONE;
}

static enum kvmstatd_handoff_reason take(struct handoff *h, struct connection *c,
                                         const struct handoff_message *message,
                                         struct luggage *luggage)
{
    const struct handoff_receiver *to = &h->receiver;
    if (!c->welcomed && message->type != KVMSTATD_HANDOFF_HELLO)
        return KVMSTATD_HANDOFF_REASON_MALFORMED;
    if (luggage->cut)
        return KVMSTATD_HANDOFF_REASON_FDS;
    switch (message->type) {
    case KVMSTATD_HANDOFF_VM:
        return take_vm(h, c, message, luggage);
    case KVMSTATD_HANDOFF_VCPU:
        return take_vcpu(h, c, message, luggage);
    }
    if (luggage->n > 0)
        return KVMSTATD_HANDOFF_REASON_FDS;
    switch (message->type) {
    case KVMSTATD_HANDOFF_HELLO:
        return take_hello(h, c, message);
    case KVMSTATD_HANDOFF_VM_GONE:
        return reason_of(to->vm_gone(to->ctx, &c->peer, message->vm));
    }
    if (message->vcpu > INT32_MAX)
        return KVMSTATD_HANDOFF_REASON_UNKNOWN_VM;
    return reason_of(to->vcpu_gone(to->ctx, &c->peer, message->vm, (int32_t)message->vcpu));
}

/* --- receiving --- */

static void unpack(struct msghdr *msg, struct luggage *luggage)
{
    for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(msg); cmsg; cmsg = CMSG_NXTHDR(msg, cmsg)) {
        if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n && luggage->n < KVMSTATD_HANDOFF_FDS_MAX; i++)
            memcpy(&luggage->fds[luggage->n++], CMSG_DATA(cmsg) + i * sizeof(int), sizeof(int));
    }
    luggage->cut = (msg->msg_flags & MSG_CTRUNC) != 0;
}

/*
 * The control buffer has room for as many fds as a message may have: the kernel never installs more
 * in our table. It also cuts them when our table is full, which is no fault of the peer's.
 */
static ssize_t receive(const struct connection *c, char *bytes, size_t size,
                       struct luggage *luggage, bool *ret_cut)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(KVMSTATD_HANDOFF_FDS_MAX * sizeof(int))];
    } control;
    struct iovec iov = {bytes, size};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof control.bytes,
    };
    ssize_t n = recvmsg(c->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0)
        return -errno;
    unpack(&msg, luggage);
    *ret_cut = (msg.msg_flags & MSG_TRUNC) != 0;
    return n;
}

static void handle(struct handoff *h, struct connection *c, const char *bytes, size_t len, bool cut,
                   struct luggage *luggage)
{
    struct handoff_message message;
    enum kvmstatd_handoff_reason reason = handoff_message_parse(bytes, len, &message);

    if (cut)
        reason = KVMSTATD_HANDOFF_REASON_MALFORMED;
    else if (luggage->cut && luggage->n < KVMSTATD_HANDOFF_FDS_MAX)
        reason = KVMSTATD_HANDOFF_REASON_LIMIT;
    else if (reason == KVMSTATD_HANDOFF_REASON_NONE && c->welcomed &&
             message.type >= KVMSTATD_HANDOFF_IGNORABLE) {
        if (message.type == KVMSTATD_HANDOFF_ALL_GIVEN)
            h->receiver.all_given(h->receiver.ctx, &c->peer);
        return;
    }
    if (reason == KVMSTATD_HANDOFF_REASON_NONE)
        reason = take(h, c, &message, luggage);
    if (reason == KVMSTATD_HANDOFF_REASON_NONE && message.type != KVMSTATD_HANDOFF_HELLO)
        answer(c, KVMSTATD_HANDOFF_ACCEPTED, message.serial, 0, 0,
               sizeof(struct kvmstatd_handoff_accepted));
    if (reason != KVMSTATD_HANDOFF_REASON_NONE)
        talk_reject(h, c, message.serial, reason);
    if (reasons[reason].fatal)
        connection_end(h, c, false);
}

bool talk(struct handoff *h, struct connection *c)
{
    char bytes[KVMSTATD_HANDOFF_MESSAGE_BYTES_MAX];
    struct luggage luggage = {.fds = {-1, -1}};
    bool cut = false;

    if (!handoff_closer_has_room(h->closer, KVMSTATD_HANDOFF_FDS_MAX)) {
        handoff_pause(h);
        return false;
    }
    ssize_t n = receive(c, bytes, sizeof bytes, &luggage, &cut);
    if (n == -EAGAIN || n == -EINTR)
        return false;
    if (n > 0)
        handle(h, c, bytes, (size_t)n, cut, &luggage);
    else
        connection_end(h, c, false); /* an end, an error or an empty message */
    for (size_t i = 0; i < luggage.n; i++)
        handoff_closer_put(h->closer, luggage.fds[i]);
    return c->fd >= 0;
}
