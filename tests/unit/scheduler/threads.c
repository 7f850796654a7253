/* SPDX-License-Identifier: Apache-2.0 */
/* Real threads of a real process, whose ends the kernel tells: no VM is needed for that. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "rig.h"
#include "schedstat.h"

enum {
    VCPUS = 3,
    VM = 7,
};

/* --- a "VMM" that starts and ends threads as it is told --- */

struct vmm_thread {
    pthread_t thread;
    int index;
    _Atomic pid_t tid;
    atomic_bool over;
};

static void *run(void *arg)
{
    struct vmm_thread *self = arg;
    char name[16];
    (void)snprintf(name, sizeof name, "CPU %d/KVM", self->index);
    (void)pthread_setname_np(pthread_self(), name);
    int64_t until_ns = clock_read_ns(CLOCK_THREAD_CPUTIME_ID) + 2 * NSEC_PER_MSEC;
    while (clock_read_ns(CLOCK_THREAD_CPUTIME_ID) < until_ns)
        ;
    self->tid = (pid_t)syscall(SYS_gettid);
    while (!self->over) {
        const struct timespec pause = {.tv_nsec = 1000000};
        (void)nanosleep(&pause, NULL);
    }
    return NULL;
}

/* One byte: 's' + i starts thread i, 'e' + i ends it; the answer is its tid. */
static void serve(int socket)
{
    static struct vmm_thread threads[VCPUS];
    unsigned char order[2];
    while (recv(socket, order, sizeof order, 0) == (ssize_t)sizeof order) {
        struct vmm_thread *t = &threads[order[1]];
        if (order[0] == 's') {
            t->index = order[1];
            t->tid = 0;
            t->over = false;
            if (pthread_create(&t->thread, NULL, run, t) != 0)
                _exit(1);
            while (!t->tid)
                (void)sched_yield();
        } else {
            t->over = true;
            (void)pthread_join(t->thread, NULL);
        }
        pid_t tid = t->tid;
        if (send(socket, &tid, sizeof tid, 0) != (ssize_t)sizeof tid)
            _exit(1);
    }
    _exit(0);
}

struct vmm {
    pid_t pid;
    int socket;
};

static struct vmm vmm_start(void)
{
    int pair[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)close(pair[0]);
        serve(pair[1]);
    }
    (void)close(pair[1]);
    return (struct vmm){pid, pair[0]};
}

static pid_t vmm_do(const struct vmm *vmm, char what, int i)
{
    unsigned char order[2] = {(unsigned char)what, (unsigned char)i};
    pid_t tid;
    ck_assert_int_eq(send(vmm->socket, order, sizeof order, 0), sizeof order);
    ck_assert_int_eq(recv(vmm->socket, &tid, sizeof tid, 0), sizeof tid);
    return tid;
}

/* A thread that has been joined is in /proc for a moment longer. */
static void vmm_end_thread(const struct rig *rig, const struct vmm *vmm, int i)
{
    pid_t tid = vmm_do(vmm, 'e', i);
    while (proc_has_thread(&rig->proc, vmm->pid, tid))
        (void)sched_yield();
}

static void vmm_end(struct vmm *vmm)
{
    (void)close(vmm->socket);
    (void)kill(vmm->pid, SIGKILL);
    ck_assert_int_eq(waitpid(vmm->pid, NULL, 0), vmm->pid);
}

static void start(struct rig *rig, const struct vmm *vmm)
{
    struct proc_stat stat;
    rig_make_real(rig, "{}");
    ck_assert_int_eq(proc_stat_read(&rig->proc, vmm->pid, &stat), 0);
    rig_vm_of(rig, VM, vmm->pid, stat.start_ticks, "qemu", NULL, VCPUS);
}

static struct times own_reading(const struct rig *rig, pid_t pid, pid_t tid)
{
    struct times times = {0};
    int r = schedstat_read_once(&rig->proc, pid, tid, &times);
    if (r == SCHEDSTAT_NOTHING || r == -ENOENT)
        testing_skip("this kernel does not count run-queue wait");
    ck_assert_int_eq(r, 0);
    return times;
}

/* --- */

START_TEST(are_what_the_kernel_says)
{
    struct vmm vmm = vmm_start();
    struct rig rig;
    pid_t tids[VCPUS];
    for (int i = 0; i < VCPUS; i++)
        tids[i] = vmm_do(&vmm, 's', i);
    start(&rig, &vmm);
    for (int i = 0; i < VCPUS; i++) {
        struct times before = own_reading(&rig, vmm.pid, tids[i]);
        rig_read(&rig);
        struct times after = own_reading(&rig, vmm.pid, tids[i]);
        ck_assert_uint_le(before.run_ns, rig_run(&rig, VM, i));
        ck_assert_uint_ge(after.run_ns, rig_run(&rig, VM, i));
        ck_assert_uint_le(before.wait_ns, rig_wait(&rig, VM, i));
        ck_assert_uint_ge(after.wait_ns, rig_wait(&rig, VM, i));
    }
    ck_assert_uint_eq(rig_sum_run(&rig, VM),
                      rig_run(&rig, VM, 0) + rig_run(&rig, VM, 1) + rig_run(&rig, VM, 2));
    vmm_end(&vmm);
    rig_read(&rig);
    for (int i = 0; i < VCPUS; i++)
        ck_assert_uint_eq(rig_run(&rig, VM, i), ABSENT);
    rig_end(&rig);
}
END_TEST

START_TEST(made_anew)
{
    struct vmm vmm = vmm_start();
    struct rig rig;
    for (int i = 0; i < VCPUS; i++)
        (void)vmm_do(&vmm, 's', i);
    start(&rig, &vmm);
    rig_read(&rig);
    for (int round = 0; round < 20; round++) {
        int i = (int)testing_random_below(VCPUS);
        uint64_t before = rig_run(&rig, VM, i), sum = rig_sum_run(&rig, VM);
        ck_assert_uint_ne(before, ABSENT);
        vmm_end_thread(&rig, &vmm, i);
        if (testing_random_below(2)) {
            rig_read(&rig);
            ck_assert_uint_eq(rig_run(&rig, VM, i), ABSENT);
            ck_assert_uint_ge(rig_sum_run(&rig, VM), sum);
        }
        pid_t tid = vmm_do(&vmm, 's', i);
        own_reading(&rig, vmm.pid, tid);
        rig_read(&rig);
        /* What the former thread had when it was read last, and all that the new one has had. */
        ck_assert_uint_ge(rig_run(&rig, VM, i), before + 2 * NSEC_PER_MSEC);
        ck_assert_uint_le(rig_run(&rig, VM, i),
                          before + 2 * NSEC_PER_MSEC + own_reading(&rig, vmm.pid, tid).run_ns);
        ck_assert_uint_ge(rig_sum_run(&rig, VM), sum + 2 * NSEC_PER_MSEC);
    }
    vmm_end(&vmm);
    rig_end(&rig);
}
END_TEST

/* The thread itself, not the test, reads: on its grid, and a VM that is new at once. */
START_TEST(by_its_own_thread)
{
    struct vmm vmm = vmm_start();
    struct rig rig;
    for (int i = 0; i < VCPUS; i++)
        (void)vmm_do(&vmm, 's', i);
    rig_make_real(&rig, _i ? "scheduler: {interval: 1h}" : "scheduler: {interval: 10ms}");
    ck_assert_int_eq(scheduler_start(rig.scheduler), 0);
    struct proc_stat stat;
    ck_assert_int_eq(proc_stat_read(&rig.proc, vmm.pid, &stat), 0);
    rig_vm_of(&rig, VM, vmm.pid, stat.start_ticks, "qemu", NULL, VCPUS);
    scheduler_commit(rig.scheduler);
    while (rig_run(&rig, VM, VCPUS - 1) == ABSENT)
        ; /* libcheck's timeout ends what does not come */
    if (!_i) {
        uint64_t before = rig_run(&rig, VM, 1);
        vmm_end_thread(&rig, &vmm, 1);
        (void)vmm_do(&vmm, 's', 1);
        uint64_t now = before;
        while (now == before || now == ABSENT)
            now = rig_run(&rig, VM, 1);
        ck_assert_uint_gt(now, before);
    }
    scheduler_vm_remove(rig.scheduler, VM);
    scheduler_commit(rig.scheduler);
    scheduler_stop(rig.scheduler);
    vmm_end(&vmm);
    rig_end(&rig);
}
END_TEST

Suite *suite_threads(void)
{
    Suite *suite = suite_create("threads that come and go");
    TCase *tcase = tcase_create("threads");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, are_what_the_kernel_says);
    tcase_add_test(tcase, made_anew);
    tcase_add_loop_test(tcase, by_its_own_thread, 0, 2);
    suite_add_tcase(suite, tcase);
    return suite;
}
