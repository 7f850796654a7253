/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Discovery's part is played by hand: which VMs there are is known, so that no other VM of this
 * machine is looked at. From the broker on everything is the daemon's own; its shortest interval
 * makes a tick due whenever one is wanted.
 */
#include "sweep_host.h"

#include <err.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "reaper.h"
#include "statsfd.h"

/* --- VMs --- */

static pid_t child_pid;

/* Ctrl-C and a terminated run: the VMs would follow us by themselves, but not before we ended. */
static void end_by_signal(int number)
{
    if (child_pid)
        (void)kill(child_pid, SIGTERM);
    (void)signal(number, SIG_DFL);
    (void)raise(number);
}

static void become_vms(const struct host_options *options, int output_fd)
{
    char vms[16], vcpus[16], fds[16];
    (void)snprintf(vms, sizeof vms, "%u", options->vms);
    (void)snprintf(vcpus, sizeof vcpus, "%u", options->vcpus);
    (void)snprintf(fds, sizeof fds, "%u", options->fds);
    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    (void)dup2(output_fd, STDOUT_FILENO);
    (void)execl(DEMO_VM, DEMO_VM, "--vms", vms, "--vcpus", vcpus, "--fds", fds, "--load",
                options->load ? options->load : "idle", options->rate ? "--rate" : (char *)NULL,
                options->rate, (char *)NULL);
    err(EXIT_FAILURE, DEMO_VM);
}

/* Returns the launcher's pid once all VMs run, whose pids go to `ret_pids`. */
static pid_t start_vms(const struct host_options *options, pid_t *ret_pids)
{
    int ends[2];
    char line[512];
    unsigned n = 0;
    if (pipe2(ends, O_CLOEXEC) < 0)
        err(EXIT_FAILURE, "pipe");
    pid_t pid = fork();
    if (pid < 0)
        err(EXIT_FAILURE, "fork");
    if (pid == 0)
        become_vms(options, ends[1]);
    child_pid = pid;
    (void)signal(SIGINT, end_by_signal);
    (void)signal(SIGTERM, end_by_signal);
    (void)fd_close(ends[1]);
    FILE *output = fdopen(ends[0], "r");
    if (!output)
        err(EXIT_FAILURE, "fdopen");
    while (fgets(line, sizeof line, output)) {
        int vm;
        if (sscanf(line, "vm %*s %d", &vm) == 1 && n < options->vms)
            ret_pids[n++] = vm;
        if (strncmp(line, "ready ", 6) == 0 && n == options->vms)
            return pid; /* `output` stays open: nobody writes into a closed pipe */
    }
    errx(EXIT_FAILURE, "the VMs did not start");
}

/* --- their targets --- */

void host_must(int r, const char *what)
{
    if (r < 0)
        errx(EXIT_FAILURE, "%s: %s", what, strerror(-r));
}

void *host_memory(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        err(EXIT_FAILURE, "memory");
    return memory;
}

static void add_target(struct host *host, struct planned_vm *planned, int pidfd,
                       const struct kvm_file *file)
{
    const struct schema *schema;
    struct statsfd_error error;
    enum scope scope = file->kind == KVM_FILE_VM_STATS ? SCOPE_VM : SCOPE_VCPU;
    int fd;
    host_must(broker_borrow(host->broker, pidfd, file, &fd), "borrowing a stats fd");
    if (statsfd_open(fd, scope, &host->store->schemas, &schema, NULL, 0, &error) < 0)
        errx(EXIT_FAILURE, "%s", error.message);
    host_must(
        planner_target_add(host->planner, planned, file->vcpu, schema, TARGET_SOURCE_STATSFD, fd),
        "planning a target");
}

static void add_vm(struct host *host, pid_t pid)
{
    struct kvm_file_list list;
    struct planned_vm *planned;
    const struct planned_vm_spec spec = {
        .name = "", .uuid = "", .vmm = "", .machine = "", .unit = "", .pid = pid};
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0)
        err(EXIT_FAILURE, "pidfd_open of VM %d", (int)pid);
    host_must(broker_list(host->broker, pid, &list), "listing the fds of a VM");
    int kept = fcntl(pidfd, F_DUPFD_CLOEXEC, 0); /* the planner consumes one */
    host_must(planner_vm_add(host->planner, &spec, kept, &planned), "planning a VM");
    for (size_t i = 0; i < list.n; i++) {
        if (list.files[i].kind == KVM_FILE_VM_STATS || list.files[i].kind == KVM_FILE_VCPU_STATS)
            add_target(host, planned, pidfd, &list.files[i]);
    }
    kvm_file_list_free(&list);
    (void)fd_close(pidfd);
}

/* --- making --- */

static void raise_fd_limit(unsigned wanted)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        err(EXIT_FAILURE, "getrlimit");
    const struct rlimit raised = {MAX_OF(limit.rlim_max, (rlim_t)wanted),
                                  MAX_OF(limit.rlim_max, (rlim_t)wanted)};
    if (setrlimit(RLIMIT_NOFILE, &raised) < 0)
        err(EXIT_FAILURE, "%u fds", wanted);
}

/* What is made here lives as long as the program. */
void host_parts(const char *text, struct host *host)
{
    static const char plain[] = "bursts: {stats: [], distribution: []}\nrecorder: {memory: 0}\n";
    static struct proc proc;
    struct reaper *reaper;
    struct config *config;
    struct config_error error;
    *host = (struct host){0};
    text = text ? text : plain;
    if (config_parse("benchmark", text, strlen(text), &config, &error) < 0)
        errx(EXIT_FAILURE, "%s", error.message);
    config->sampling.interval_ns = NSEC_PER_MSEC;
    host_must(proc_open("", &proc), "/proc");
    host_must(store_new(&host->store), "store");
    host_must(reaper_new(&reaper), "reaper");
    host_must(reaper_start(reaper), "reaper");
    host_must(sampler_new(host->store, reaper, &host->sampler), "sampler");
    host_must(planner_new(host->store, host->sampler, config, &host->planner), "planner");
    host_must(broker_new(&proc, &host->broker), "broker");
}

void host_begin(struct host *host)
{
    host_must(planner_commit(host->planner), "the plan");
    sampler_run_once(host->sampler);
}

static void read_all(struct host *host, pid_t *pids, uint32_t n_pids)
{
    host->pids = pids;
    host->n_pids = n_pids;
    for (unsigned i = 0; i < n_pids; i++)
        add_vm(host, pids[i]);
    host_begin(host);
}

void host_start(const struct host_options *options, struct host *ret_host)
{
    pid_t *pids = calloc(options->vms, sizeof *pids);
    if (!pids)
        err(EXIT_FAILURE, "memory");
    /* For two daemons, and what else there will be. */
    raise_fd_limit(2 * options->vms * (options->vcpus + 2) + 1024 + options->more_fds);
    pid_t vms_pid = start_vms(options, pids);
    host_parts(options->config, ret_host);
    ret_host->vms_pid = vms_pid;
    read_all(ret_host, pids, options->vms);
}

void host_again(const struct host *first, const char *config, struct host *ret_host)
{
    host_parts(config, ret_host);
    read_all(ret_host, first->pids, first->n_pids);
}

void host_stop(struct host *host)
{
    (void)kill(host->vms_pid, SIGTERM);
    (void)waitpid(host->vms_pid, NULL, 0);
    child_pid = 0;
}
