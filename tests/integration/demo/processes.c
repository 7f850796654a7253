/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The demo VMs as processes: who they are, what they hold, and that none is left behind.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kvmtest.h"
#include "testing.h"

Suite *suite_processes(void);

/* Reads /proc/PID/NAME; returns its length, NUL-terminated. */
static size_t read_proc(pid_t pid, const char *name, char *ret_text, size_t size)
{
    char path[300];
    (void)snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ssize_t n = read(fd, ret_text, size - 1);
    ck_assert_int_ge(n, 0);
    (void)close(fd);
    ret_text[n] = '\0';
    return (size_t)n;
}

static pid_t parent_of(pid_t pid)
{
    char text[1024];
    char state;
    int parent;
    (void)read_proc(pid, "stat", text, sizeof text);
    ck_assert_int_eq(sscanf(strrchr(text, ')') + 1, " %c %d", &state, &parent), 2);
    return parent;
}

/* The argument behind an option in a process's argv, or NULL. */
static const char *argument_of(pid_t pid, const char *option)
{
    static char text[4096];
    size_t len = read_proc(pid, "cmdline", text, sizeof text);
    for (const char *at = text; at < text + len; at += strlen(at) + 1) {
        if (strcmp(at, option) == 0)
            return at + strlen(at) + 1;
    }
    return NULL;
}

static const struct kvmtest_vm *find_vm(const struct kvmtest_vms *vms, const char *name)
{
    for (size_t i = 0; i < vms->n; i++) {
        if (strcmp(vms->vms[i].name, name) == 0)
            return &vms->vms[i];
    }
    ck_abort_msg("there is no VM %s", name);
    return NULL;
}

START_TEST(test_one_vm_is_the_process_started)
{
    kvmtest_require_kvm();
    struct kvmtest_vms *vms = kvmtest_start("--name", "solo, \"so\"", NULL);
    ck_assert_uint_eq(vms->n, 1);
    ck_assert_int_eq(vms->vms[0].pid, vms->pid);
    ck_assert_str_eq(vms->vms[0].name, "solo, \"so\"");
    ck_assert_int_eq(kvmtest_stop(vms), 0);
}
END_TEST

START_TEST(test_several_vms_have_their_own_argv)
{
    static const char *const names[] = {"web-0", "web-1", "web-2"};
    kvmtest_require_kvm();
    struct kvmtest_vms *vms =
        kvmtest_start("--vms", "3", "--name", "web", "--vcpus", "2", "--load", "idle", NULL);
    ck_assert_uint_eq(vms->n, 3);
    for (size_t i = 0; i < 3; i++) {
        const struct kvmtest_vm *vm = find_vm(vms, names[i]);
        ck_assert_int_eq(parent_of(vm->pid), vms->pid);
        ck_assert_str_eq(argument_of(vm->pid, "--name"), names[i]);
        ck_assert_str_eq(argument_of(vm->pid, "--vms"), "1");
        ck_assert_str_eq(argument_of(vm->pid, "--vcpus"), "2");
    }
    ck_assert_int_eq(kvmtest_stop(vms), 0);
}
END_TEST

START_TEST(test_without_name_there_is_none)
{
    kvmtest_require_kvm();
    struct kvmtest_vms *vms = kvmtest_start("--vms", "2", "--load", "idle", NULL);
    for (size_t i = 0; i < 2; i++) {
        ck_assert_str_eq(vms->vms[i].name, "-");
        ck_assert_ptr_null(argument_of(vms->vms[i].pid, "--name"));
    }
    ck_assert_int_eq(kvmtest_stop(vms), 0);
}
END_TEST

/* Each vCPU has a thread "CPU n/KVM", and that thread has made it: the kernel's id says which. */
START_TEST(test_vcpu_threads_make_their_vcpus)
{
    kvmtest_require_kvm();
    struct kvmtest_vms *vms = kvmtest_start("--vcpus", "3", "--load", "idle", NULL);
    pid_t pid = vms->pid;
    for (int vcpu = 0; vcpu < 3; vcpu++) {
        char id[64] = "";
        char name[300];
        char expected[32];
        int tid, number;
        int stats = kvmtest_borrow_one(pid, vcpu);
        ck_assert_int_gt(pread(stats, id, sizeof id - 1, 24), 0);
        ck_assert_int_eq(sscanf(id, "kvm-%d/vcpu-%d", &tid, &number), 2);
        ck_assert_int_eq(number, vcpu);
        ck_assert_int_ne(tid, pid);
        (void)snprintf(name, sizeof name, "task/%d/comm", tid);
        (void)read_proc(pid, name, name, sizeof name);
        (void)snprintf(expected, sizeof expected, "CPU %d/KVM\n", vcpu);
        ck_assert_str_eq(name, expected);
        (void)close(stats);
    }
    ck_assert_int_eq(kvmtest_stop(vms), 0);
}
END_TEST

/* Kernels take a vCPU's id for its place in the order of creation. The lowest free fd is taken, and
 * none is closed in between: the fds are in that order, too. */
START_TEST(test_vcpus_are_made_in_order)
{
    kvmtest_require_kvm();
    struct kvmtest_vms *vms = kvmtest_start("--vcpus", "200", "--load", "idle", NULL);
    int next = 0;
    for (int fd = 0; fd < 1024; fd++) {
        char path[64], link[64] = "";
        int vcpu;
        (void)snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)vms->pid, fd);
        if (readlink(path, link, sizeof link - 1) < 0 ||
            sscanf(link, "anon_inode:kvm-vcpu:%d", &vcpu) != 1)
            continue;
        ck_assert_int_eq(vcpu, next++);
    }
    ck_assert_int_eq(next, 200);
    ck_assert_int_eq(kvmtest_stop(vms), 0);
}
END_TEST

START_TEST(test_stats_fds_as_told)
{
    kvmtest_require_kvm();
    struct kvmtest_vms *keep = kvmtest_start("--vcpus", "2", NULL);
    struct kvmtest_vms *none = kvmtest_start("--vcpus", "2", "--stats-fds", "none", NULL);
    ck_assert_int_eq(kvmtest_count_fds(keep->pid, "anon_inode:kvm-vm-stats"), 1);
    ck_assert_int_eq(kvmtest_count_fds(keep->pid, "anon_inode:kvm-vcpu-stats:"), 2);
    ck_assert_int_eq(kvmtest_count_fds(none->pid, "anon_inode:kvm-vm-stats"), 0);
    ck_assert_int_eq(kvmtest_count_fds(none->pid, "anon_inode:kvm-vcpu-stats:"), 0);
    ck_assert_int_eq(kvmtest_count_fds(none->pid, "anon_inode:kvm-vm"), 1);
    ck_assert_int_eq(kvmtest_count_fds(none->pid, "anon_inode:kvm-vcpu:"), 2);
    ck_assert_int_eq(kvmtest_stop(keep), 0);
    ck_assert_int_eq(kvmtest_stop(none), 0);
}
END_TEST

START_TEST(test_other_fds_as_told)
{
    kvmtest_require_kvm();
    struct kvmtest_vms *few = kvmtest_start("--vms", "2", NULL);
    struct kvmtest_vms *many = kvmtest_start("--vms", "2", "--fds", "100", NULL);
    for (size_t i = 0; i < 2; i++) {
        int base = kvmtest_count_fds(few->vms[i].pid, "");
        ck_assert_int_eq(kvmtest_count_fds(many->vms[i].pid, ""), base + 100);
        ck_assert_int_ge(kvmtest_count_fds(many->vms[i].pid, "anon_inode:[eventfd]"), 50);
    }
    ck_assert_int_eq(kvmtest_stop(few), 0);
    ck_assert_int_eq(kvmtest_stop(many), 0);
}
END_TEST

/* A VM that is left behind would hold its fds: the kernel's own word says that it doesn't. */
START_TEST(test_killed_launcher_takes_its_vms_along)
{
    enum {
        N = 3
    };
    int uevents[N]; /* one a VM: their events come in any order */
    pid_t pids[N];
    kvmtest_require_kvm();
    for (size_t i = 0; i < N; i++)
        uevents[i] = kvmtest_uevents_open();
    struct kvmtest_vms *vms = kvmtest_start("--vms", "3", "--vcpus", "2", NULL);
    for (size_t i = 0; i < N; i++)
        pids[i] = vms->vms[i].pid;
    kvmtest_kill(vms);
    for (size_t i = 0; i < N; i++) {
        ck_assert(kvmtest_wait_uevent(uevents[i], "destroy", pids[i], KVMTEST_TIMEOUT_MS));
        ck_assert(kvmtest_wait_gone(pids[i], KVMTEST_TIMEOUT_MS));
        (void)close(uevents[i]);
    }
}
END_TEST

/* Starts a VM and waits for it, as a shell does; never returns. */
static void be_a_parent(int output_fd)
{
    pid_t vm = fork();
    if (vm == 0) {
        (void)dup2(output_fd, STDOUT_FILENO);
        (void)execl(kvmtest_demo_vm(), "demo", "--load", "idle", (char *)NULL);
        _exit(127);
    }
    (void)waitpid(vm, NULL, 0);
    _exit(1);
}

/*
 * The VM's parent dies without a word. Not by kvmtest_start(), which has the kernel kill what it
 * starts and so would hide a VM that doesn't see to it itself.
 */
START_TEST(test_dead_parent_takes_a_single_vm_along)
{
    int ends[2];
    int vm, n;
    kvmtest_require_kvm();
    int uevents = kvmtest_uevents_open();
    ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
    pid_t parent = fork();
    ck_assert_int_ge(parent, 0);
    if (parent == 0)
        be_a_parent(ends[1]);
    (void)close(ends[1]);
    FILE *output = fdopen(ends[0], "r");
    ck_assert_ptr_nonnull(output);
    ck_assert_int_eq(fscanf(output, "vm - %d\nready %d", &vm, &n), 2);
    ck_assert_int_eq(kvmtest_count_fds(vm, "anon_inode:kvm-vm-stats"), 1);
    ck_assert_int_eq(kill(parent, SIGKILL), 0);
    ck_assert_int_eq(waitpid(parent, NULL, 0), parent);
    bool gone = kvmtest_wait_gone(vm, 10000);
    if (!gone)
        (void)kill(vm, SIGKILL);
    ck_assert(gone);
    ck_assert(kvmtest_wait_uevent(uevents, "destroy", vm, KVMTEST_TIMEOUT_MS));
    (void)fclose(output);
    (void)close(uevents);
}
END_TEST

START_TEST(test_stopped_launcher_waits_for_its_vms)
{
    kvmtest_require_kvm();
    struct kvmtest_vms *vms = kvmtest_start("--vms", "4", "--vcpus", "2", NULL);
    pid_t pids[4];
    for (size_t i = 0; i < 4; i++)
        pids[i] = vms->vms[i].pid;
    ck_assert_int_eq(kvmtest_stop(vms), 0);
    for (size_t i = 0; i < 4; i++)
        ck_assert_int_eq(kill(pids[i], 0), -1);
}
END_TEST

/* One VM of several may be killed; the others go on, and the launcher still ends well. */
START_TEST(test_one_of_several_may_be_killed)
{
    kvmtest_require_kvm();
    struct kvmtest_vms *vms = kvmtest_start("--vms", "3", "--load", "idle", NULL);
    int uevents = kvmtest_uevents_open();
    pid_t victim = vms->vms[1].pid;
    ck_assert_int_eq(kill(victim, SIGKILL), 0);
    ck_assert(kvmtest_wait_uevent(uevents, "destroy", victim, KVMTEST_TIMEOUT_MS));
    ck_assert_int_eq(kill(vms->vms[0].pid, 0), 0);
    ck_assert_int_eq(kill(vms->vms[2].pid, 0), 0);
    ck_assert_int_eq(kvmtest_stop(vms), 0);
    (void)close(uevents);
}
END_TEST

/* A held stats fd keeps the VM in the kernel though its process has gone: others build on this. */
START_TEST(test_held_stats_fd_pins_the_vm)
{
    kvmtest_require_kvm();
    struct kvmtest_vms *vms = kvmtest_start("--load", "idle", NULL);
    pid_t pid = vms->pid;
    int uevents = kvmtest_uevents_open();
    int stats = kvmtest_borrow_one(pid, 0);
    kvmtest_kill(vms);
    ck_assert(!kvmtest_wait_uevent(uevents, "destroy", pid, 200));
    (void)close(stats);
    ck_assert(kvmtest_wait_uevent(uevents, "destroy", pid, KVMTEST_TIMEOUT_MS));
    (void)close(uevents);
}
END_TEST

Suite *suite_processes(void)
{
    Suite *suite = suite_create("processes");
    TCase *tcase = tcase_create("processes");
    tcase_set_timeout(tcase, 100);
    tcase_add_test(tcase, test_one_vm_is_the_process_started);
    tcase_add_test(tcase, test_several_vms_have_their_own_argv);
    tcase_add_test(tcase, test_without_name_there_is_none);
    tcase_add_test(tcase, test_vcpu_threads_make_their_vcpus);
    tcase_add_test(tcase, test_vcpus_are_made_in_order);
    tcase_add_test(tcase, test_stats_fds_as_told);
    tcase_add_test(tcase, test_other_fds_as_told);
    tcase_add_test(tcase, test_killed_launcher_takes_its_vms_along);
    tcase_add_test(tcase, test_dead_parent_takes_a_single_vm_along);
    tcase_add_test(tcase, test_stopped_launcher_waits_for_its_vms);
    tcase_add_test(tcase, test_one_of_several_may_be_killed);
    tcase_add_test(tcase, test_held_stats_fd_pins_the_vm);
    suite_add_tcase(suite, tcase);
    return suite;
}
