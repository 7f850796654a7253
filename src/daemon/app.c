/* SPDX-License-Identifier: Apache-2.0 */
#include "app_internal.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "broker.h"
#include "clock.h"
#include "discovery.h"
#include "dumper.h"
#include "exposition.h"
#include "fdstore.h"
#include "http.h"
#include "planner.h"
#include "privileges.h"
#include "proc.h"
#include "reaper.h"
#include "recorder.h"
#include "sampler.h"
#include "scheduler.h"
#include "version.h"

/* --- discovery's sink: planner and scheduler. All of it runs on the discovery thread. --- */

static uint64_t vm_id(struct discovery_handle *handle)
{
    return planned_vm_id((struct planned_vm *)handle);
}

static int sink_vm_add(void *ctx, const struct discovery_vm *vm, void *owner, int pidfd,
                       struct discovery_handle **ret_handle)
{
    struct app *app = ctx;
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
    int r = planner_vm_add(app->planner, &spec, pidfd, &planned);
    if (r < 0)
        return r;
    *ret_handle = (struct discovery_handle *)planned;
    const struct scheduler_vm scheduled = {
        .id = vm_id(*ret_handle),
        .pid = vm->pid,
        .start_ticks = vm->start_ticks,
        .vmm = vm->vmm,
    };
    scheduler_vm_add(app->scheduler, &scheduled);
    scheduler_vm_set_vcpus(app->scheduler, scheduled.id, vm->n_vcpus);
    return 0;
}

static int sink_target_add(void *ctx, struct discovery_handle *handle, int32_t vcpu,
                           const struct schema *schema, enum target_source source, int stats_fd)
{
    struct app *app = ctx;
    int r = planner_target_add(app->planner, (struct planned_vm *)handle, vcpu, schema, source,
                               stats_fd);
    if (r == 0)
        scheduler_vcpu_add(app->scheduler, vm_id(handle), vcpu);
    return r;
}

static int sink_target_add_bpf(void *ctx, struct discovery_handle *handle, int32_t vcpu,
                               const struct schema *schema, uint64_t address,
                               const struct bpf_wanted *wanted)
{
    struct app *app = ctx;
    int r = planner_target_add_bpf(app->planner, (struct planned_vm *)handle, vcpu, schema, address,
                                   wanted);
    if (r == 0)
        scheduler_vcpu_add(app->scheduler, vm_id(handle), vcpu);
    return r;
}

static void sink_vm_pin(void *ctx, struct discovery_handle *handle, int kvm_vm_fd)
{
    (void)ctx;
    planner_vm_pin((struct planned_vm *)handle, kvm_vm_fd);
}

static bool sink_vm_is_pinned(void *ctx, struct discovery_handle *handle)
{
    (void)ctx;
    return planner_vm_is_pinned((struct planned_vm *)handle);
}

static void sink_target_remove(void *ctx, struct discovery_handle *handle, int32_t vcpu)
{
    struct app *app = ctx;
    scheduler_vcpu_remove(app->scheduler, vm_id(handle), vcpu);
    planner_target_remove(app->planner, (struct planned_vm *)handle, vcpu);
}

static void sink_vcpu_tid(void *ctx, struct discovery_handle *handle, int32_t vcpu,
                          enum discovery_tid what, pid_t tid)
{
    struct app *app = ctx;
    scheduler_vcpu_thread(app->scheduler, vm_id(handle), vcpu,
                          what == DISCOVERY_TID_RUNS ? THREAD_HINT_RUNS : THREAD_HINT_MADE, tid);
}

static int sink_target_fd(void *ctx, struct discovery_handle *handle, int32_t vcpu)
{
    (void)ctx;
    return planner_target_fd((struct planned_vm *)handle, vcpu);
}

static bool sink_tids_lost(void *ctx)
{
    struct app *app = ctx;
    return scheduler_lost_threads(app->scheduler);
}

static void sink_vm_set_vcpus(void *ctx, struct discovery_handle *handle, uint32_t n_vcpus)
{
    struct app *app = ctx;
    scheduler_vm_set_vcpus(app->scheduler, vm_id(handle), n_vcpus);
    planner_vm_set_vcpus(app->planner, (struct planned_vm *)handle, n_vcpus);
}

static void sink_vm_remove(void *ctx, struct discovery_handle *handle)
{
    struct app *app = ctx;
    scheduler_vm_remove(app->scheduler, vm_id(handle));
    planner_vm_remove(app->planner, (struct planned_vm *)handle);
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
    struct app *app = ctx;
    scheduler_commit(app->scheduler);
    return planner_commit(app->planner);
}

static void sink_set_config(void *ctx, struct config *config)
{
    struct app *app = ctx;
    planner_set_config(app->planner, config);
}

static void pass_on(struct app *app, struct discovery *discovery, const struct sampler_event *event)
{
    struct planned_vm *vm = planner_vm_by_id(app->planner, event->vm_id);
    if (!vm)
        return; /* discovery has removed it meanwhile */
    void *owner = planned_vm_owner(vm);
    switch (event->kind) {
    case SAMPLER_EVENT_VM_EXITED:
        discovery_vm_exited(discovery, owner);
        break;
    case SAMPLER_EVENT_READ_FAILED:
        discovery_read_failed(discovery, owner, event->vcpu, event->error);
        break;
    }
}

static void sink_collect_events(void *ctx, struct discovery *discovery)
{
    struct app *app = ctx;
    struct letter *letter = mailbox_collect(sampler_events(app->sampler));
    while (letter) {
        struct letter *next = letter->next;
        pass_on(app, discovery, (struct sampler_event *)letter);
        free(letter);
        letter = next;
    }
}

static int make_discovery(struct app *app)
{
    const struct discovery_sink sink = {
        .ctx = app,
        .vm_add = sink_vm_add,
        .target_add = sink_target_add,
        .target_add_bpf = sink_target_add_bpf,
        .vm_pin = sink_vm_pin,
        .vm_is_pinned = sink_vm_is_pinned,
        .target_remove = sink_target_remove,
        .target_fd = sink_target_fd,
        .vcpu_tid = sink_vcpu_tid,
        .tids_lost = sink_tids_lost,
        .vm_set_vcpus = sink_vm_set_vcpus,
        .vm_remove = sink_vm_remove,
        .vm_label = sink_vm_label,
        .vm_interval_ns = sink_vm_interval_ns,
        .commit = sink_commit,
        .set_config = sink_set_config,
        .events_fd = sampler_events(app->sampler)->event_fd,
        .collect_events = sink_collect_events,
    };
    return discovery_new(app->store, &app->proc, app->broker, app->config, &sink, &app->discovery);
}

/* --- making --- */

static void notice_scheduler(enum scheduler_trouble trouble, int error)
{
    switch (trouble) {
    case SCHEDULER_NO_SCHEDSTAT:
        log_warn("scheduler", "this kernel does not count CPU time and run-queue wait of threads "
                              "(CONFIG_SCHED_INFO): they are not exported");
        break;
    case SCHEDULER_FORBIDDEN:
        log_warn("scheduler",
                 "the threads of some VMs cannot be looked at (%s): their CPU time and run-queue "
                 "wait are not exported; with hidepid= on /proc it takes CAP_SYS_PTRACE",
                 strerror(-error));
        break;
    case SCHEDULER_FDS_SHORT:
        log_warn("scheduler",
                 "file descriptors are short (LimitNOFILE=): opening some threads' files anew for "
                 "each reading, which costs more");
        break;
    case SCHEDULER_TROUBLES:
        break;
    }
}

/*
 * A host of 16,384 VMs wants an fd for each VM and vCPU. The soft limit goes to the hard one, and
 * the hard one up where we are allowed to.
 */
static void raise_fd_limit(void)
{
    enum {
        WANTED = 1 << 20,
    };
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    struct rlimit raised = {MAX_OF(limit.rlim_max, (rlim_t)WANTED),
                            MAX_OF(limit.rlim_max, (rlim_t)WANTED)};
    if (setrlimit(RLIMIT_NOFILE, &raised) == 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

static void notice(const char *line)
{
    log_warn("exposition", "%s", line);
}

/* --- the recorder --- */

static void say_dump(bool failed, const char *line)
{
    log_line(failed ? LOG_LEVEL_WARN : LOG_LEVEL_INFO, "recorder", "%s", line);
}

void app_use_recorder(struct app *app, struct recorder *recorder)
{
    sampler_set_recorder(app->sampler, recorder);
    recorder_publish(app->store, recorder);
}

void app_use_dump_options(struct app *app, const struct config *config, char *directory)
{
    const struct dumper_options options = {
        .directory = directory,
        .on_vmm_killed = config->recorder.dump_on_vmm_killed,
        .on_signal = config->recorder.dump_on_signal,
        .check = config->recorder.memory_bytes &&
                 (config->recorder.dump_on_vmm_killed || config->recorder.dump_on_signal),
    };
    dumper_set_options(app->dumper, &options);
}

static int make_recorder(struct app *app)
{
    CLEANUP(cleanup_recorder_unref) struct recorder *recorder = NULL;
    const struct config *config = app->config;
    CLEANUP_FREE char *directory = strdup(config->recorder.directory);
    int r = directory ? dumper_new(app->store, KVMSTATD_VERSION, say_dump, &app->dumper) : -ENOMEM;
    if (r == 0 && config->recorder.memory_bytes)
        r = recorder_new(config->recorder.memory_bytes, &app->store->self, &recorder);
    if (r < 0)
        return r;
    app_use_dump_options(app, config, steal_ptr(&directory));
    sampler_set_dumper(app->sampler, app->dumper);
    app_use_recorder(app, recorder);
    return 0;
}

void app_dump(struct app *app)
{
    if (!dumper_request(app->dumper))
        log_info("recorder", "SIGUSR1: nothing is dumped, recorder.dump_on does not name signal");
}

int app_make_exposition(struct config *config, struct exposition **ret_exposition)
{
    static const struct exposition_process process = {KVMSTATD_VERSION, KVMSTATD_REVISION};
    int r = exposition_new(config, &process, ret_exposition);
    if (r == 0)
        exposition_set_notice(*ret_exposition, notice);
    return r;
}

static int make_parts(struct app *app)
{
    int r = proc_open("", &app->proc);
    if (r == 0)
        r = store_new(&app->store);
    if (r == 0)
        r = reaper_new(&app->reaper);
    if (r == 0)
        r = sampler_new(app->store, app->reaper, &app->sampler);
    if (r == 0)
        r = make_recorder(app);
    if (r == 0)
        r = planner_new(app->store, app->sampler, app->config, &app->planner);
    if (r == 0)
        r = scheduler_new(app->store, &app->proc, app->config, notice_scheduler, &app->scheduler);
    if (r == 0)
        r = broker_new(&app->proc, &app->broker);
    if (r == 0)
        r = make_discovery(app);
    if (r == 0)
        r = app_make_exposition(app->config, &app->exposition);
    return r;
}

int app_new(struct config *config, struct app **ret_app)
{
    CLEANUP(cleanup_app_free) struct app *app = calloc(1, sizeof *app);
    if (!app)
        return -ENOMEM;
    app->proc.dir_fd = -1;
    app->config = config_ref(config);
    raise_fd_limit();
    int r = make_parts(app);
    if (r < 0) {
        log_error("daemon", "cannot start: %s", strerror(-r));
        return r;
    }
    atomic_store(&app->store->self.config_reload_ok, true);
    atomic_store(&app->store->self.config_reload_ok_wall_ns, clock_read_ns(CLOCK_REALTIME));
    *ret_app = steal_ptr(&app);
    return 0;
}

void app_free(struct app *app)
{
    if (!app)
        return;
    if (app->discovery)
        discovery_stop(app->discovery);
    http_free(app->http);
    discovery_free(app->discovery);
    scheduler_free(app->scheduler);
    broker_free(app->broker);
    sampler_free(app->sampler);
    if (app->reaper)
        reaper_stop(app->reaper);
    planner_free(app->planner);
    reaper_free(app->reaper);
    exposition_free(app->exposition);
    if (app->dumper)
        dumper_stop(app->dumper);
    if (app->store)
        recorder_publish(app->store, NULL);
    dumper_free(app->dumper);
    store_free(app->store);
    proc_close(&app->proc);
    config_unref(app->config);
    free(app);
}

void app_take_passed(struct app *app, struct passed_fds *passed)
{
    discovery_take_passed(app->discovery, passed);
    for (size_t i = 0; i < passed->n; i++) {
        struct passed_fd *left = &passed->fds[i];
        if (left->fd < 0 || strcmp(left->name, PASSED_WEB) == 0)
            continue;
        log_warn("daemon",
                 "systemd has passed a file named %s, which nobody here knows: closed "
                 "(FileDescriptorName= must be " PASSED_WEB " or " PASSED_HANDOFF ")",
                 left->name);
        left->fd = fd_close(left->fd);
        fdstore_disown(left->name);
    }
}

static int keep_privileges(uint64_t wanted)
{
    int r = privileges_keep(wanted);
    if (r < 0)
        log_error("daemon", "cannot drop capabilities: %s", strerror(-r));
    return r;
}

static int start_sampler(struct app *app)
{
    const struct config *config = app->config;
    int r = sampler_start(app->sampler, config->sampling.cpus, config->sampling.n_cpus);
    if (r == -EINVAL && config->sampling.n_cpus) {
        log_warn("sampler",
                 "none of the CPUs in sampling.cpu_affinity can be used, running on any");
        r = sampler_start(app->sampler, NULL, 0);
    }
    return r;
}

/* By and by all capabilities are dropped: what a thread has is what there is when it is made. */
static int start_threads(struct app *app)
{
    uint64_t of_sources = privileges_of_sources(app->config);
    int r = keep_privileges(of_sources);
    if (r == 0)
        r = discovery_spawn(app->discovery);
    app->dropped = ~of_sources;
    /*
     * /proc may show other users' threads only to who might trace them (hidepid, ProtectProc=), and
     * how a process has ended always.
     */
    if (r == 0)
        r = keep_privileges(privileges_of_lookers(app->config) |
                            privileges_of_sampler(app->config));
    if (r == 0)
        r = scheduler_start(app->scheduler);
    if (r == 0)
        r = dumper_start(app->dumper);
    if (r == 0)
        r = keep_privileges(privileges_of_sampler(app->config));
    if (r == 0)
        r = start_sampler(app);
    if (r == 0)
        r = keep_privileges(0);
    if (r == 0)
        r = reaper_start(app->reaper);
    return r;
}

int app_start(struct app *app)
{
    struct config_error error = {{0}};
    int r = start_threads(app);
    if (r < 0) {
        log_error("daemon", "cannot start a thread: %s", strerror(-r));
        return r;
    }
    r = http_start(app->store, app->exposition, app->config, &app->http, &error);
    if (r < 0) {
        log_error("http", "%s", error.message);
        return r;
    }
    r = discovery_start(app->discovery);
    if (r < 0)
        log_error("discovery", "cannot start: %s", strerror(-r));
    return r;
}

/* --- for systemd --- */

static bool sampler_lives(void *ctx)
{
    const struct app *app = ctx;
    return sampler_answered(app->sampler);
}

static void ask_sampler(void *ctx)
{
    struct app *app = ctx;
    sampler_ask(app->sampler);
}

static void describe(void *ctx, char *text, size_t size)
{
    struct app *app = ctx;
    CLEANUP(cleanup_roster_unref) struct roster *roster = roster_get(&app->store->roster);
    uint32_t unreadable = 0, vcpus = 0;
    if (!roster) {
        (void)snprintf(text, size, "looking for VMs");
        return;
    }
    for (size_t i = 0; i < UNREADABLE_REASONS; i++)
        unreadable += i == UNREADABLE_NOT || i == UNREADABLE_DISABLED ? 0 : roster->unreadable[i];
    for (size_t i = 0; i < TARGET_SOURCES; i++)
        vcpus += roster->targets[SCOPE_VCPU][i];
    (void)snprintf(text, size, "reading %u VMs with %u vCPUs; %u VMs cannot be read", roster->read,
                   vcpus, unreadable);
}

struct service_source app_service_source(struct app *app)
{
    return (struct service_source){
        .ctx = app,
        .answered = sampler_lives,
        .ask = ask_sampler,
        .describe = describe,
    };
}

/* --- once --- */

static int write_piece(void *ctx, const char *bytes, size_t len)
{
    (void)ctx;
    return fwrite(bytes, 1, len, stdout) == len ? 0 : -EIO;
}

int app_once(struct app *app)
{
    const struct exposition_sink sink = {write_piece, NULL};
    CLEANUP_VIEW struct view view = {0};
    int r = keep_privileges(privileges_of_sources(app->config));
    if (r == 0)
        r = discovery_look_once(app->discovery);
    if (r < 0)
        return r;
    sampler_run_once(app->sampler);
    scheduler_run_once(app->scheduler);
    r = view_take(app->store, &view);
    if (r < 0)
        return r;
    CLEANUP(cleanup_roster_unref) struct roster *roster = roster_get(&app->store->roster);
    r = exposition_render(app->exposition, &view, roster, EXPOSITION_TEXT, &sink);
    if (r == 0 && fflush(stdout) != 0)
        r = -errno;
    return r < 0 ? r : (int)view.n_vms;
}
