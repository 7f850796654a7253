/* SPDX-License-Identifier: Apache-2.0 */
#include "handoff_rig.h"

#include <dirent.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

/* --- the receiver --- */

static void note_peer(struct rig *rig, const struct handoff_peer *peer)
{
    ck_assert_uint_gt(peer->id, 0);
    ck_assert_int_ge(peer->pidfd, 0);
    rig->pid = peer->pid;
    rig->uid = peer->uid;
}

static int vm_given(void *ctx, const struct handoff_peer *peer, const struct handoff_vm *vm)
{
    struct rig *rig = ctx;
    note_peer(rig, peer);
    if (rig->answer < 0)
        return rig->answer;
    rig->vms++;
    rig->vm = vm->vm;
    (void)fd_close(rig->stats_fd);
    (void)fd_close(rig->vm_fd);
    rig->stats_fd = vm->stats_fd;
    rig->vm_fd = vm->vm_fd;
    (void)snprintf(rig->name, sizeof rig->name, "%s", vm->name);
    (void)snprintf(rig->uuid, sizeof rig->uuid, "%s", vm->uuid);
    return 0;
}

static int vcpu_given(void *ctx, const struct handoff_peer *peer, const struct handoff_vcpu *vcpu)
{
    struct rig *rig = ctx;
    note_peer(rig, peer);
    if (rig->answer < 0)
        return rig->answer;
    rig->vcpus++;
    rig->vm = vcpu->vm;
    rig->vcpu = vcpu->vcpu;
    (void)fd_close(rig->stats_fd);
    rig->stats_fd = vcpu->stats_fd;
    return 0;
}

static int vm_gone(void *ctx, const struct handoff_peer *peer, uint64_t vm)
{
    struct rig *rig = ctx;
    note_peer(rig, peer);
    rig->vms_gone++;
    rig->vm = vm;
    return rig->answer;
}

static int vcpu_gone(void *ctx, const struct handoff_peer *peer, uint64_t vm, int32_t vcpu)
{
    struct rig *rig = ctx;
    note_peer(rig, peer);
    rig->vcpus_gone++;
    rig->vm = vm;
    rig->vcpu = vcpu;
    return rig->answer;
}

static void all_given(void *ctx, const struct handoff_peer *peer)
{
    struct rig *rig = ctx;
    note_peer(rig, peer);
    rig->all_given++;
}

static void peer_gone(void *ctx, const struct handoff_peer *peer, bool revoked)
{
    struct rig *rig = ctx;
    note_peer(rig, peer);
    rig->peers_gone++;
    rig->revoked += revoked;
}

/* --- life --- */

struct config *rig_config(const struct rig *rig, const char *yaml)
{
    char text[2048];
    struct config *config;
    struct config_error error;
    const char *mark = strstr(yaml, "@SOCKET@");
    int n = mark ? snprintf(text, sizeof text, "%.*s%s%s", (int)(mark - yaml), yaml, rig->path,
                            mark + strlen("@SOCKET@"))
                 : snprintf(text, sizeof text, "%s", yaml);
    int r = config_parse("test", text, (size_t)n, &config, &error);
    ck_assert_msg(r == 0, "%s", error.message);
    return config;
}

void rig_start(struct rig *rig, const char *yaml)
{
    *rig = (struct rig){.stats_fd = -1, .vm_fd = -1};
    (void)strcpy(rig->folder, "/tmp/kvmstatd-handoff-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(rig->folder));
    /* The last folder is for the daemon to make. */
    (void)snprintf(rig->path, sizeof rig->path, "%s/run/handoff.sock", rig->folder);
    const struct handoff_receiver receiver = {
        .ctx = rig,
        .vm_given = vm_given,
        .vcpu_given = vcpu_given,
        .vm_gone = vm_gone,
        .vcpu_gone = vcpu_gone,
        .all_given = all_given,
        .peer_gone = peer_gone,
    };
    rig->config = rig_config(rig, yaml);
    ck_assert_int_eq(proc_open("", &rig->proc), 0);
    ck_assert_int_eq(broker_new(&rig->proc, &rig->broker), 0);
    selfstats_init(&rig->self);
    ck_assert_int_eq(handoff_new(rig->broker, &rig->self, rig->config, &receiver, &rig->handoff),
                     0);
    ck_assert_int_eq(handoff_start(rig->handoff), 0);
    rig->fds_before = rig_count_fds();
}

void rig_stop(struct rig *rig)
{
    char run[96];
    handoff_free(rig->handoff);
    ck_assert_int_lt(access(rig->path, F_OK), 0);
    broker_free(rig->broker);
    proc_close(&rig->proc);
    config_unref(rig->config);
    (void)fd_close(rig->stats_fd);
    (void)fd_close(rig->vm_fd);
    (void)snprintf(run, sizeof run, "%s/run", rig->folder);
    (void)rmdir(run);
    (void)rmdir(rig->folder);
}

void rig_pump(struct rig *rig)
{
    struct pollfd waiting = {.fd = handoff_epoll_fd(rig->handoff), .events = POLLIN};
    do
        handoff_dispatch(rig->handoff);
    while (poll(&waiting, 1, rig->handoff->resume_ns == INT64_MAX ? 0 : 1) > 0 ||
           rig->handoff->resume_ns != INT64_MAX);
}

uint64_t rig_rejected(const struct rig *rig, enum handoff_reject reason)
{
    return atomic_load(&rig->self.handoff_rejected[reason]);
}

int rig_count_fds(void)
{
    int n = 0;
    DIR *folder = opendir("/proc/self/fd");
    ck_assert_ptr_nonnull(folder);
    while (readdir(folder))
        n++;
    (void)closedir(folder);
    return n;
}

void rig_expect_fds(struct rig *rig, int more)
{
    /* Closing is another thread's: a safety net, not a bar. */
    for (int i = 0; i < 10000 && rig_count_fds() != rig->fds_before + more; i++)
        (void)usleep(1000);
    ck_assert_int_eq(rig_count_fds(), rig->fds_before + more);
}

/* --- the peer --- */

int rig_connect(const struct rig *rig)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)strcpy(address.sun_path, rig->path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    ck_assert_int_ge(fd, 0);
    if (connect(fd, (const struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    int r = -errno;
    (void)close(fd);
    return r;
}

int rig_hello(struct rig *rig)
{
    const struct kvmstatd_handoff_hello hello = rig_make_hello();
    int fd = rig_connect(rig);
    ck_assert_int_ge(fd, 0);
    rig_send(fd, &hello, sizeof hello, NULL, 0);
    rig_pump(rig);
    ck_assert_int_eq(rig_answer(fd, NULL, NULL), KVMSTATD_HANDOFF_WELCOME);
    return fd;
}

void rig_send(int fd, const void *message, size_t len, const int *fds, size_t n)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(RIG_CONTROL_FDS * sizeof(int))];
    } control = {{0}};
    struct iovec iov = {(void *)(uintptr_t)message, len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (n > 0) {
        msg.msg_control = control.bytes;
        msg.msg_controllen = CMSG_SPACE(n * sizeof(int));
        struct cmsghdr *cmsg = &control.align;
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(n * sizeof(int));
        memcpy(CMSG_DATA(cmsg), fds, n * sizeof(int));
    }
    ck_assert_int_eq(sendmsg(fd, &msg, MSG_NOSIGNAL), (ssize_t)len);
}

int rig_answer(int fd, uint32_t *ret_serial, uint32_t *ret_reason)
{
    struct kvmstatd_handoff_refused answer = {.reason = 0};
    ssize_t n = recv(fd, &answer, sizeof answer, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return -1;
    if (n <= 0)
        return 0; /* also ECONNRESET: closed while something was unread */
    ck_assert_uint_ge((size_t)n, sizeof answer.header);
    ck_assert_uint_eq(answer.header.magic, KVMSTATD_HANDOFF_MAGIC);
    ck_assert_uint_eq(answer.header.major, KVMSTATD_HANDOFF_MAJOR);
    ck_assert_uint_eq(answer.header.length, (size_t)n);
    if (ret_serial)
        *ret_serial = answer.header.serial;
    if (ret_reason)
        *ret_reason = answer.reason;
    return answer.header.type;
}

void rig_refused(struct rig *rig, int fd, const void *message, size_t len, const int *fds, size_t n,
                 enum kvmstatd_handoff_reason reason, bool closed)
{
    uint32_t got = 0;
    rig_send(fd, message, len, fds, n);
    rig_pump(rig);
    ck_assert_int_eq(rig_answer(fd, NULL, &got), KVMSTATD_HANDOFF_REFUSED);
    ck_assert_uint_eq(got, reason);
    if (closed) {
        /* The socket is closed on another thread. */
        struct pollfd end = {.fd = fd, .events = POLLIN};
        ck_assert_int_eq(poll(&end, 1, 60000), 1);
    }
    ck_assert_int_eq(rig_answer(fd, NULL, NULL), closed ? 0 : -1);
}

struct kvmstatd_handoff_header rig_header(uint16_t type, size_t len)
{
    return (struct kvmstatd_handoff_header){
        .magic = KVMSTATD_HANDOFF_MAGIC,
        .major = KVMSTATD_HANDOFF_MAJOR,
        .minor = KVMSTATD_HANDOFF_MINOR,
        .type = type,
        .length = (uint32_t)len,
        .serial = 4711,
    };
}

struct kvmstatd_handoff_hello rig_make_hello(void)
{
    return (struct kvmstatd_handoff_hello){
        rig_header(KVMSTATD_HANDOFF_HELLO, sizeof(struct kvmstatd_handoff_hello))};
}

struct kvmstatd_handoff_vm rig_make_vm(uint64_t vm)
{
    return (struct kvmstatd_handoff_vm){
        .header = rig_header(KVMSTATD_HANDOFF_VM, sizeof(struct kvmstatd_handoff_vm)),
        .vm = vm,
        .stats_fd = -1,
        .vm_fd = -1,
    };
}

struct kvmstatd_handoff_vcpu rig_make_vcpu(uint64_t vm, uint32_t vcpu)
{
    return (struct kvmstatd_handoff_vcpu){
        .header = rig_header(KVMSTATD_HANDOFF_VCPU, sizeof(struct kvmstatd_handoff_vcpu)),
        .vm = vm,
        .vcpu = vcpu,
        .stats_fd = -1,
    };
}
