/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Made the way QEMU makes one, because that is what those look at who watch it: the VM first, by
 * the main thread; then each vCPU is created, asked for its statistics and run by a thread of its
 * own, named "CPU n/KVM". Nothing is ever taken apart: the kernel does that when the process ends.
 */
#include "machine.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "cleanup.h"
#include "fail.h"
#include "guest.h"
#include "load.h"

#ifndef KVM_GET_STATS_FD
#define KVM_GET_STATS_FD        _IO(KVMIO, 0xce)
#define KVM_CAP_BINARY_STATS_FD 203
#endif

/* The vCPU threads call ioctl() and little else: 1,000 VMs shall not reserve 8 MiB for each. */
#define STACK_SIZE (128 * 1024)

struct vcpu {
    struct machine *machine;
    unsigned index;
    pthread_t thread;
    _Atomic uint64_t io, mmio; /* THREADS: written by its own, read by any */
};

struct machine {
    const struct options *options;
    struct guest_plan plan;
    int kvm_fd;
    int vm_fd;
    size_t run_size;
    void *memory;
    sem_t prepared; /* posted by each vCPU that could run */
    sem_t run;      /* posted once for each, when all could */
    sem_t started;  /* posted by each vCPU whose guest runs */
    struct vcpu vcpus[];
};

static void check_capability(int kvm_fd, int capability, const char *name)
{
    if (ioctl(kvm_fd, KVM_CHECK_EXTENSION, capability) <= 0)
        fail("this kernel's KVM has no %s", name);
}

static void open_kvm(struct machine *machine)
{
    machine->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (machine->kvm_fd < 0)
        fail_errno("/dev/kvm");
    if (machine->options->keep_stats_fds)
        check_capability(machine->kvm_fd, KVM_CAP_BINARY_STATS_FD,
                         "binary statistics (Linux 5.14)");
    int most = ioctl(machine->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
    if (most > 0 && machine->options->vcpus > (uint64_t)most)
        fail("--vcpus %" PRIu64 ": this kernel's KVM allows %d", machine->options->vcpus, most);
    int run_size = ioctl(machine->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (run_size < (int)sizeof(struct kvm_run))
        fail_errno("KVM_GET_VCPU_MMAP_SIZE");
    machine->run_size = (size_t)run_size;
}

static void open_stats(const struct options *options, int fd, const char *of)
{
    /* Kept open, that is all: nobody here reads it. */
    if (options->keep_stats_fds && ioctl(fd, KVM_GET_STATS_FD, 0) < 0)
        fail_errno("KVM_GET_STATS_FD of the %s", of);
}

static void create_vm(struct machine *machine)
{
    size_t size = guest_memory_size((unsigned)machine->options->vcpus);
    if (size == 0)
        fail("there is no guest for this architecture yet");
    machine->vm_fd = ioctl(machine->kvm_fd, KVM_CREATE_VM, 0);
    if (machine->vm_fd < 0)
        fail_errno("KVM_CREATE_VM");
    machine->memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (machine->memory == MAP_FAILED)
        fail_errno("mmap of %zu bytes for the guest", size);

    const char *step;
    int r = guest_prepare_vm(machine->vm_fd, machine->memory, &step);
    if (r < 0) {
        errno = -r;
        fail_errno("%s", step);
    }
    struct kvm_userspace_memory_region region = {
        .memory_size = size,
        .userspace_addr = (uintptr_t)machine->memory,
    };
    if (ioctl(machine->vm_fd, KVM_SET_USER_MEMORY_REGION, &region) < 0)
        fail_errno("KVM_SET_USER_MEMORY_REGION");
    open_stats(machine->options, machine->vm_fd, "VM");
}

/* One for each that a QEMU would have many of: mostly eventfds, some files, some sockets. */
static int open_other_fd(uint64_t i)
{
    switch (i % 8) {
    case 3:
        return memfd_create("demo", MFD_CLOEXEC);
    case 7:
        return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    }
    return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

static void open_other_fds(uint64_t n)
{
    struct rlimit limit;
    if (n > 0 && getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit); /* if it matters, an open below says so */
    }
    for (uint64_t i = 0; i < n; i++) {
        if (open_other_fd(i) < 0)
            fail_errno("fd %" PRIu64 " of --fds %" PRIu64, i + 1, n);
    }
}

static void fail_exit(const struct vcpu *vcpu, const struct kvm_run *run)
{
    if (run->exit_reason == KVM_EXIT_INTERNAL_ERROR)
        fail("vCPU %u: KVM internal error %u", vcpu->index, run->internal.suberror);
    if (run->exit_reason == KVM_EXIT_FAIL_ENTRY)
        fail("vCPU %u: KVM cannot enter the guest, hardware reason %#llx", vcpu->index,
             (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
    fail("vCPU %u: unexpected exit, reason %u", vcpu->index, run->exit_reason);
}

static void count_one(_Atomic uint64_t *count)
{
    /* There is one writer: an atomic addition isn't needed, only that readers see whole values. */
    uint64_t value = atomic_load_explicit(count, memory_order_relaxed);
    atomic_store_explicit(count, value + 1, memory_order_relaxed);
}

static void run_vcpu(struct vcpu *vcpu, int fd, struct kvm_run *run)
{
    const struct options *options = vcpu->machine->options;
    struct pacer pacer;
    pacer_init(&pacer, options, vcpu->index);
    for (;;) {
        if (ioctl(fd, KVM_RUN, 0) < 0) {
            if (errno == EINTR || errno == EAGAIN)
                continue;
            fail_errno("vCPU %u: KVM_RUN", vcpu->index);
        }
        switch (guest_classify(run)) {
        case GUEST_EXIT_STARTED:
            count_one(&vcpu->io);
            (void)sem_post(&vcpu->machine->started);
            break;
        case GUEST_EXIT_IO:
            count_one(&vcpu->io);
            pacer_wait(&pacer);
            break;
        case GUEST_EXIT_MMIO:
            count_one(&vcpu->mmio);
            pacer_wait(&pacer);
            break;
        case GUEST_EXIT_UNEXPECTED:
            fail_exit(vcpu, run);
        }
    }
}

static void semaphore_wait(sem_t *semaphore)
{
    while (sem_wait(semaphore) < 0)
        ;
}

static void *vcpu_thread(void *argument)
{
    struct vcpu *vcpu = argument;
    struct machine *machine = vcpu->machine;
    char name[16];
    (void)snprintf(name, sizeof name, "CPU %u/KVM", vcpu->index);
    (void)pthread_setname_np(pthread_self(), name);

    int fd = ioctl(machine->vm_fd, KVM_CREATE_VCPU, (unsigned long)vcpu->index);
    if (fd < 0)
        fail_errno("vCPU %u: KVM_CREATE_VCPU", vcpu->index);
    struct kvm_run *run = mmap(NULL, machine->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (run == MAP_FAILED)
        fail_errno("vCPU %u: mmap", vcpu->index);
    const char *step;
    int r = guest_prepare_vcpu(machine->vm_fd, fd, vcpu->index, &machine->plan, &step);
    if (r < 0) {
        errno = -r;
        fail_errno("vCPU %u: %s", vcpu->index, step);
    }
    open_stats(machine->options, fd, "vCPU");
    (void)sem_post(&machine->prepared);
    semaphore_wait(&machine->run);
    run_vcpu(vcpu, fd, run);
    return NULL;
}

static void start_vcpus(struct machine *machine)
{
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0 ||
        pthread_attr_setstacksize(&attributes, STACK_SIZE) != 0)
        fail("pthread_attr_setstacksize");
    for (unsigned i = 0; i < machine->options->vcpus; i++) {
        struct vcpu *vcpu = &machine->vcpus[i];
        vcpu->machine = machine;
        vcpu->index = i;
        errno = pthread_create(&vcpu->thread, &attributes, vcpu_thread, vcpu);
        if (errno)
            fail_errno("thread of vCPU %u", i);
        /*
         * One after another, as in QEMU: until Linux 6.7 KVM on arm64 takes a vCPU's id for its
         * place in the order of creation (kvm_vgic_inject_irq()), and brings its timer's interrupts
         * to another vCPU where these differ.
         */
        semaphore_wait(&machine->prepared);
    }
    (void)pthread_attr_destroy(&attributes);
}

static void run_vcpus(struct machine *machine)
{
    const char *step;
    int r = guest_complete_vm(machine->vm_fd, (unsigned)machine->options->vcpus, &step);
    if (r < 0) {
        errno = -r;
        fail_errno("%s", step);
    }
    for (unsigned i = 0; i < machine->options->vcpus; i++)
        (void)sem_post(&machine->run);
    for (unsigned i = 0; i < machine->options->vcpus; i++)
        semaphore_wait(&machine->started);
}

struct machine *machine_start(const struct options *options)
{
    struct machine *machine =
        calloc(1, sizeof *machine + options->vcpus * sizeof machine->vcpus[0]);
    if (!machine || sem_init(&machine->prepared, 0, 0) < 0 || sem_init(&machine->run, 0, 0) < 0 ||
        sem_init(&machine->started, 0, 0) < 0)
        fail_errno("memory");
    machine->options = options;
    machine->plan = (struct guest_plan){
        .actions = options->load->actions,
        .rounds = (uint32_t)options->rounds,
        .timer_hz = (uint32_t)options->rate,
    };
    open_kvm(machine);
    create_vm(machine);
    open_other_fds(options->fds);
    start_vcpus(machine);
    run_vcpus(machine);
    return machine;
}

void machine_print_counts(const struct machine *machine)
{
    const char *name = machine->options->name;
    for (unsigned i = 0; i < machine->options->vcpus; i++) {
        const struct vcpu *vcpu = &machine->vcpus[i];
        printf("count %s vcpu %u io %" PRIu64 " mmio %" PRIu64 " halt %" PRIu32 "\n",
               name ? name : "-", i, atomic_load(&vcpu->io), atomic_load(&vcpu->mmio),
               guest_halts(machine->memory, i));
    }
}
