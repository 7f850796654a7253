/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The composition follows src/daemon/app.c without its threads: one look of discovery, and a
 * sampler whose ticks the caller makes. A rule of the configuration leaves out all VMs of this
 * machine but ours, and the shortest interval there is makes a tick due whenever one is wanted.
 */
#include "sweep_host.h"

#include <err.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "broker.h"
#include "discovery.h"
#include "proc.h"
#include "reaper.h"

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

static void become_vms(const struct host_options *options, const char *name, int output_fd)
{
    char vms[16], vcpus[16], fds[16];
    (void)snprintf(vms, sizeof vms, "%u", options->vms);
    (void)snprintf(vcpus, sizeof vcpus, "%u", options->vcpus);
    (void)snprintf(fds, sizeof fds, "%u", options->fds);
    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    (void)dup2(output_fd, STDOUT_FILENO);
    (void)execl(DEMO_VM, DEMO_VM, "--vms", vms, "--vcpus", vcpus, "--fds", fds, "--name", name,
                "--load", "idle", (char *)NULL);
    err(EXIT_FAILURE, DEMO_VM);
}

/* Returns the launcher's pid once all VMs run. */
static pid_t start_vms(const struct host_options *options, const char *name)
{
    int ends[2];
    char line[512];
    if (pipe2(ends, O_CLOEXEC) < 0)
        err(EXIT_FAILURE, "pipe");
    pid_t pid = fork();
    if (pid < 0)
        err(EXIT_FAILURE, "fork");
    if (pid == 0)
        become_vms(options, name, ends[1]);
    child_pid = pid;
    (void)signal(SIGINT, end_by_signal);
    (void)signal(SIGTERM, end_by_signal);
    (void)fd_close(ends[1]);
    FILE *output = fdopen(ends[0], "r");
    if (!output)
        err(EXIT_FAILURE, "fdopen");
    while (fgets(line, sizeof line, output)) {
        if (strncmp(line, "ready ", 6) == 0)
            return pid; /* `output` stays open: nobody writes into a closed pipe */
    }
    errx(EXIT_FAILURE, "the VMs did not start");
}

/* --- discovery's sink --- */

static int sink_vm_add(void *ctx, const struct discovery_vm *vm, void *owner, int pidfd,
                       struct discovery_handle **ret_handle)
{
    struct host *host = ctx;
    struct planned_vm *planned;
    const struct planned_vm_spec spec = {
        .name = vm->name,
        .uuid = vm->uuid,
        .vmm = vm->vmm,
        .machine = vm->machine,
        .unit = vm->unit,
        .pid = vm->pid,
        .start_wall_ns = vm->start_wall_ns,
        .created_ns = vm->created_ns,
        .n_vcpus = vm->n_vcpus,
        .owner = owner,
    };
    int r = planner_vm_add(host->planner, &spec, pidfd, &planned);
    if (r == 0)
        *ret_handle = (struct discovery_handle *)planned;
    return r;
}

static int sink_target_add(void *ctx, struct discovery_handle *handle, int32_t vcpu,
                           const struct schema *schema, enum target_source source, int stats_fd)
{
    struct host *host = ctx;
    return planner_target_add(host->planner, (struct planned_vm *)handle, vcpu, schema, source,
                              stats_fd);
}

static void sink_target_remove(void *ctx, struct discovery_handle *handle, int32_t vcpu)
{
    struct host *host = ctx;
    planner_target_remove(host->planner, (struct planned_vm *)handle, vcpu);
}

static int sink_target_fd(void *ctx, struct discovery_handle *handle, int32_t vcpu)
{
    (void)ctx;
    return planner_target_fd((struct planned_vm *)handle, vcpu);
}

static void sink_vm_set_vcpus(void *ctx, struct discovery_handle *handle, uint32_t n_vcpus)
{
    struct host *host = ctx;
    planner_vm_set_vcpus(host->planner, (struct planned_vm *)handle, n_vcpus);
}

static void sink_vm_remove(void *ctx, struct discovery_handle *handle)
{
    struct host *host = ctx;
    planner_vm_remove(host->planner, (struct planned_vm *)handle);
}

static const char *sink_vm_label(void *ctx, struct discovery_handle *handle)
{
    (void)ctx;
    return planner_vm_label((struct planned_vm *)handle);
}

static int64_t sink_vm_interval_ns(void *ctx, struct discovery_handle *handle)
{
    (void)ctx;
    return planner_vm_interval_ns((struct planned_vm *)handle);
}

static int sink_commit(void *ctx)
{
    struct host *host = ctx;
    return planner_commit(host->planner);
}

static void sink_set_config(void *ctx, struct config *config)
{
    struct host *host = ctx;
    planner_set_config(host->planner, config);
}

static void sink_collect_events(void *ctx, struct discovery *discovery)
{
    (void)ctx;
    (void)discovery;
}

static struct discovery_sink sink_of(struct host *host)
{
    return (struct discovery_sink){
        .ctx = host,
        .vm_add = sink_vm_add,
        .target_add = sink_target_add,
        .target_remove = sink_target_remove,
        .target_fd = sink_target_fd,
        .vm_set_vcpus = sink_vm_set_vcpus,
        .vm_remove = sink_vm_remove,
        .vm_label = sink_vm_label,
        .vm_interval_ns = sink_vm_interval_ns,
        .commit = sink_commit,
        .set_config = sink_set_config,
        .events_fd = -1,
        .collect_events = sink_collect_events,
    };
}

/* --- making --- */

static void must(int r, const char *what)
{
    if (r < 0)
        errx(EXIT_FAILURE, "%s: %s", what, strerror(-r));
}

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

static struct config *make_config(const char *name)
{
    char text[512];
    struct config *config;
    struct config_error error;
    (void)snprintf(text, sizeof text,
                   "sampling:\n"
                   "  rules:\n"
                   "    - match: {vm: \"%s-*\"}\n"
                   "      interval: 1ms\n"
                   "    - match: {vm: \"*\"}\n"
                   "      enabled: false\n",
                   name);
    if (config_parse("bench", text, strlen(text), &config, &error) < 0)
        errx(EXIT_FAILURE, "%s", error.message);
    return config;
}

/* What is made here lives as long as the program. */
static void find_and_read(struct host *host, struct config *config)
{
    static struct proc proc;
    struct reaper *reaper;
    struct broker *broker;
    struct discovery *discovery;
    must(proc_open("", &proc), "/proc");
    must(store_new(&host->store), "store");
    must(reaper_new(&reaper), "reaper");
    must(reaper_start(reaper), "reaper");
    must(sampler_new(host->store, reaper, &host->sampler), "sampler");
    must(planner_new(host->store, host->sampler, config, &host->planner), "planner");
    must(broker_new(&proc, &broker), "broker");
    const struct discovery_sink sink = sink_of(host);
    must(discovery_new(host->store, &proc, broker, config, &sink, &discovery), "discovery");
    must(discovery_look_once(discovery), "discovery");
    sampler_run_once(host->sampler);
}

void host_start(const struct host_options *options, struct host *ret_host)
{
    char name[64];
    (void)snprintf(name, sizeof name, "bench-%d", (int)getpid());
    log_set_level(LOG_LEVEL_ERROR);
    raise_fd_limit(options->vms * (options->vcpus + 2) + 4096);
    *ret_host = (struct host){.vms_pid = start_vms(options, name)};
    find_and_read(ret_host, make_config(name));
}

void host_stop(struct host *host)
{
    (void)kill(host->vms_pid, SIGTERM);
    (void)waitpid(host->vms_pid, NULL, 0);
    child_pid = 0;
}
