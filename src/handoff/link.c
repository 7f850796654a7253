/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The thread and its connection. It holds the lock while it works and lets go of it only to wait,
 * so that an fd which is being sent cannot be closed, and its number given to another file,
 * meanwhile. Sending never waits: what the socket does not take is sent when it is writable again.
 *
 * A connection that fails, for whatever reason, is given up and everything is given again on the
 * next one.
 */
#include "internal.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "clock.h"

enum {
    /* A daemon that restarts is away for a few hundred ms; one that is not there costs little. */
    BACKOFF_FIRST_MS = 50,
    BACKOFF_LAST_MS = 5000,
    PUT_OFF_MS = 30000,
    TRY_SENDING_AGAIN_MS = 100, /* where poll() cannot tell when */
    /* Messages between two looks for answers: a daemon does not keep those that we do not read. */
    SEND_AT_ONCE = 64,
};

static void disconnect(struct kvmstatd_handoff *h)
{
    h->socket_fd = fd_close(h->socket_fd);
    h->welcomed = false;
    h->put_off_until_ns = INT64_MAX;
}

/* Not all VMMs of a host in the same millisecond: up to a quarter is added, by what differs. */
static int64_t with_jitter(const struct kvmstatd_handoff *h, int64_t delay_ns)
{
    uint64_t mixed = (uint64_t)h->pid * UINT64_C(0x9e3779b97f4a7c15) + h->connection;
    mixed ^= (uint64_t)clock_now_ns();
    return delay_ns + (int64_t)(mixed % (uint64_t)(delay_ns / 4));
}

static void back_off(struct kvmstatd_handoff *h)
{
    int64_t delay_ns = h->backoff_ns ? h->backoff_ns : BACKOFF_FIRST_MS * NSEC_PER_MSEC;
    h->connect_ns = clock_now_ns() + with_jitter(h, delay_ns);
    h->backoff_ns = MIN_OF(delay_ns * 2, BACKOFF_LAST_MS * NSEC_PER_MSEC);
}

static void lose(struct kvmstatd_handoff *h)
{
    disconnect(h);
    back_off(h);
}

/* --- sending --- */

static struct kvmstatd_handoff_header header(struct kvmstatd_handoff *h, uint16_t type)
{
    return (struct kvmstatd_handoff_header){
        .magic = KVMSTATD_HANDOFF_MAGIC,
        .major = KVMSTATD_HANDOFF_MAJOR,
        .minor = KVMSTATD_HANDOFF_MINOR,
        .type = type,
        .serial = ++h->serial,
    };
}

/* The message begins with its header, whose length is set here. Returns 0 or -errno. */
static int transmit(struct kvmstatd_handoff *h, void *message, size_t len, const int *fds, size_t n)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(KVMSTATD_HANDOFF_FDS_MAX * sizeof(int))];
    } control = {{0}};
    struct iovec iov = {message, len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    ((struct kvmstatd_handoff_header *)message)->length = (uint32_t)len;
    if (n > 0) {
        msg.msg_control = control.bytes;
        msg.msg_controllen = CMSG_SPACE(n * sizeof(int));
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(n * sizeof(int));
        memcpy(CMSG_DATA(cmsg), fds, n * sizeof(int));
    }
    return sendmsg(h->socket_fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static size_t put_attribute(char *to, uint16_t type, const char *value, uint16_t length)
{
    const struct kvmstatd_handoff_attribute attribute = {.type = type, .length = length};
    if (length == 0)
        return 0;
    memcpy(to, &attribute, sizeof attribute);
    memcpy(to + sizeof attribute, value, length);
    return sizeof attribute + length;
}

static int send_vm(struct kvmstatd_handoff *h, struct item *item)
{
    struct {
        struct kvmstatd_handoff_vm vm;
        char attributes[2 * sizeof(struct kvmstatd_handoff_attribute) +
                        KVMSTATD_HANDOFF_NAME_BYTES_MAX + KVMSTATD_HANDOFF_UUID_BYTES];
    } message = {.vm = {
                     .header = header(h, KVMSTATD_HANDOFF_VM),
                     .vm = item->vm,
                     .stats_fd = item->stats_fd,
                     .vm_fd = item->vm_fd,
                 }};
    const int fds[] = {item->stats_fd, item->vm_fd};
    size_t len =
        put_attribute(message.attributes, KVMSTATD_HANDOFF_NAME, item->hints, item->name_bytes);
    len += put_attribute(message.attributes + len, KVMSTATD_HANDOFF_UUID,
                         item->hints + item->name_bytes, item->uuid_bytes);
    item->serial = h->serial;
    return transmit(h, &message, sizeof message.vm + len, fds, item->vm_fd < 0 ? 1 : 2);
}

static int send_vcpu(struct kvmstatd_handoff *h, struct item *item)
{
    struct kvmstatd_handoff_vcpu message = {
        .header = header(h, KVMSTATD_HANDOFF_VCPU),
        .vm = item->vm,
        .vcpu = (uint32_t)item->vcpu,
        .stats_fd = item->stats_fd,
    };
    item->serial = h->serial;
    return transmit(h, &message, sizeof message, &item->stats_fd, 1);
}

static int send_gone(struct kvmstatd_handoff *h, const struct item *item)
{
    if (item->vcpu == VM_SCOPE) {
        struct kvmstatd_handoff_vm_gone message = {
            .header = header(h, KVMSTATD_HANDOFF_VM_GONE),
            .vm = item->vm,
        };
        return transmit(h, &message, sizeof message, NULL, 0);
    }
    struct kvmstatd_handoff_vcpu_gone message = {
        .header = header(h, KVMSTATD_HANDOFF_VCPU_GONE),
        .vm = item->vm,
        .vcpu = (uint32_t)item->vcpu,
    };
    return transmit(h, &message, sizeof message, NULL, 0);
}

/* One item's turn. Returns 0, or -errno of sending; *ret_done: the item is to be forgotten. */
static int send_item(struct kvmstatd_handoff *h, struct item *item, bool *ret_done)
{
    bool current = item->connection == h->connection && item->state != ITEM_UNSENT;
    int r = 0;
    *ret_done = false;
    if (item->gone) {
        /* What this daemon was never told of, or would not have, it need not forget. */
        if (current && h->welcomed && (item->state == ITEM_SENT || item->state == ITEM_ACCEPTED))
            r = send_gone(h, item);
        *ret_done = r == 0;
        return r;
    }
    if (current || !h->welcomed || item->state == ITEM_HOPELESS)
        return 0;
    r = item->vcpu == VM_SCOPE ? send_vm(h, item) : send_vcpu(h, item);
    if (r == 0) {
        item->connection = h->connection;
        item->state = ITEM_SENT;
    }
    return r;
}

/* Sends what is to be sent. Returns 0 when that was all, 1 when not, or -errno of sending. */
static int send_items(struct kvmstatd_handoff *h)
{
    uint32_t before = h->serial;
    for (struct item **at = &h->first; *at;) {
        struct item *item = *at;
        bool done;
        if (h->serial - before >= SEND_AT_ONCE)
            return 1;
        int r = send_item(h, item, &done);
        if (r < 0)
            return r;
        if (!done) {
            at = &item->next;
            continue;
        }
        *at = item->next;
        if (!*at)
            h->last = at;
        free(item);
    }
    return 0;
}

/* What was put off is to be given still: the daemon may have it from before. */
static bool all_answered(const struct kvmstatd_handoff *h)
{
    for (const struct item *item = h->first; item; item = item->next) {
        if (!item->gone && (item->state == ITEM_SENT || item->state == ITEM_PUT_OFF))
            return false;
    }
    return true;
}

/*
 * Sends what is to be sent, as above. Once all of it has been taken, the daemon is told: what it
 * has of a connection before, or from its predecessor, and was not given again, was taken back
 * meanwhile.
 */
static int send_all(struct kvmstatd_handoff *h)
{
    int r = send_items(h);
    if (r != 0 || !h->welcomed || h->all_given == h->connection || !all_answered(h))
        return r;
    struct kvmstatd_handoff_header message = header(h, KVMSTATD_HANDOFF_ALL_GIVEN);
    r = transmit(h, &message, sizeof message, NULL, 0);
    if (r == 0)
        h->all_given = h->connection;
    return r;
}

/* --- connecting --- */

void link_connect(struct kvmstatd_handoff *h)
{
    if (h->socket_fd >= 0 || clock_now_ns() < h->connect_ns)
        return;
    h->socket_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    /* Of a Unix socket, connect() never waits then: it is done, or has failed. */
    if (h->socket_fd < 0 ||
        connect(h->socket_fd, (const struct sockaddr *)&h->address, sizeof h->address) < 0) {
        lose(h);
        return;
    }
    h->connection++;
    struct kvmstatd_handoff_hello hello = {.header = header(h, KVMSTATD_HANDOFF_HELLO)};
    if (transmit(h, &hello, sizeof hello, NULL, 0) < 0)
        lose(h);
}

/* --- receiving --- */

static void take_answer(struct kvmstatd_handoff *h, uint32_t serial, enum item_state state)
{
    for (struct item *item = h->first; item; item = item->next) {
        if (item->connection == h->connection && item->serial == serial && !item->gone) {
            item->state = state;
            return;
        }
    }
}

static void take_refusal(struct kvmstatd_handoff *h, const struct kvmstatd_handoff_refused *refused)
{
    enum item_state state = ITEM_REFUSED;
    h->last_reason = refused->reason;
    if (refused->reason == KVMSTATD_HANDOFF_REASON_LIMIT) {
        state = ITEM_PUT_OFF;
        h->put_off_until_ns =
            MIN_OF(h->put_off_until_ns, clock_now_ns() + PUT_OFF_MS * NSEC_PER_MSEC);
    } else if (refused->reason == KVMSTATD_HANDOFF_REASON_NOT_STATS_FD) {
        state = ITEM_HOPELESS; /* it costs the connection: not again and again */
    }
    take_answer(h, refused->header.serial, state);
}

/* Returns 0, or -EPROTO: whoever this is does not speak as documented. */
static int take_message(struct kvmstatd_handoff *h, const void *bytes, size_t len)
{
    struct kvmstatd_handoff_header head;
    struct kvmstatd_handoff_refused refused;
    if (len < sizeof head)
        return -EPROTO;
    memcpy(&head, bytes, sizeof head);
    if (head.magic != KVMSTATD_HANDOFF_MAGIC || head.length != len)
        return -EPROTO;
    switch (head.type) {
    case KVMSTATD_HANDOFF_WELCOME:
        h->n_welcomed += !h->welcomed;
        h->welcomed = true;
        h->backoff_ns = 0;
        return 0;
    case KVMSTATD_HANDOFF_ACCEPTED:
        take_answer(h, head.serial, ITEM_ACCEPTED);
        return 0;
    case KVMSTATD_HANDOFF_REFUSED:
        if (len < sizeof refused)
            return -EPROTO;
        memcpy(&refused, bytes, sizeof refused);
        take_refusal(h, &refused);
        return 0;
    }
    return 0; /* a later version's */
}

static void receive(struct kvmstatd_handoff *h)
{
    char bytes[KVMSTATD_HANDOFF_MESSAGE_BYTES_MAX];
    while (h->socket_fd >= 0) {
        /* Without a control buffer: fds that anybody should send do not arrive. */
        ssize_t n = recv(h->socket_fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0 || take_message(h, bytes, (size_t)n) < 0)
            lose(h);
    }
}

/* --- the thread --- */

static void give_again(struct kvmstatd_handoff *h)
{
    if (clock_now_ns() < h->put_off_until_ns)
        return;
    h->put_off_until_ns = INT64_MAX;
    for (struct item *item = h->first; item; item = item->next) {
        if (item->state == ITEM_PUT_OFF && !item->gone)
            item->state = ITEM_UNSENT;
    }
}

/* Does what can be done now. Returns what poll() is to wait for, and until when. */
static short work(struct kvmstatd_handoff *h, int64_t *ret_until_ns)
{
    short events = POLLIN;
    int64_t until_ns = INT64_MAX;
    int r;
    handoff_take_notes(h);
    if (h->closing)
        until_ns = h->closing_until_ns;
    else
        link_connect(h);
    receive(h);
    give_again(h);
    r = send_all(h);
    if (r == -EAGAIN)
        events |= POLLOUT;
    else if (r == -ETOOMANYREFS || r == -ENOBUFS || r == -ENOMEM) /* of fds on their way, memory */
        until_ns = MIN_OF(until_ns, clock_now_ns() + TRY_SENDING_AGAIN_MS * NSEC_PER_MSEC);
    else if (r < 0)
        lose(h);
    else if (r > 0)
        until_ns = 0;
    if (h->socket_fd < 0 && !h->closing)
        until_ns = MIN_OF(until_ns, h->connect_ns);
    *ret_until_ns = MIN_OF(until_ns, h->put_off_until_ns);
    return events;
}

static void wait_for(int wake_fd, int socket_fd, short events, int64_t until_ns)
{
    struct pollfd fds[] = {
        {.fd = wake_fd, .events = POLLIN},
        {.fd = socket_fd, .events = events}, /* passed over by poll() when it is -1 */
    };
    int timeout_ms = -1;
    uint64_t count;
    if (until_ns != INT64_MAX) {
        int64_t left_ns = MAX_OF(until_ns - clock_now_ns(), 0);
        timeout_ms = (int)MIN_OF(left_ns / NSEC_PER_MSEC + 1, INT32_MAX);
    }
    (void)poll(fds, ARRAY_LEN(fds), timeout_ms);
    if (fds[0].revents) {
        ssize_t n = read(wake_fd, &count, sizeof count);
        (void)n;
    }
}

/*
 * A VMM may confine itself as soon as it has connected: what only the beginning of a thread and
 * its first allocation call (prctl, rseq, mmap …) is over by then.
 */
static void begin(struct kvmstatd_handoff *h)
{
    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    (void)pthread_setname_np(pthread_self(), "kvmstatd");
    void *volatile first = malloc(1);
    free(first);
    (void)sem_post(&h->ready);
}

/* Its signals were blocked before it was made. */
void *link_main(void *handle)
{
    struct kvmstatd_handoff *h = handle;
    begin(h);
    handoff_lock_in_thread();
    for (;;) {
        int64_t until_ns;
        short events = work(h, &until_ns);
        if (h->closing &&
            (!h->first || h->socket_fd < 0 || clock_now_ns() >= h->closing_until_ns)) {
            handoff_destroy(h);
            break;
        }
        int wake_fd = h->wake_fd, socket_fd = h->socket_fd;
        handoff_unlock_in_thread();
        wait_for(wake_fd, socket_fd, events, until_ns);
        handoff_lock_in_thread();
    }
    handoff_unlock_in_thread();
    return NULL;
}
