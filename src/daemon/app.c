/* SPDX-License-Identifier: Apache-2.0 */
#include "app.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "broker.h"
#include "clock.h"
#include "discovery.h"
#include "exposition.h"
#include "http.h"
#include "planner.h"
#include "proc.h"
#include "reaper.h"
#include "sampler.h"
#include "version.h"

struct app {
    struct config *config; /* in force */
    struct proc proc;
    struct store *store;
    struct reaper *reaper;
    struct sampler *sampler;
    struct planner *planner;
    struct broker *broker;
    struct discovery *discovery;
    struct exposition *exposition;
    struct http *http;
};

/* --- discovery's sink: the planner. All of it runs on the discovery thread. --- */

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
    if (r == 0)
        *ret_handle = (struct discovery_handle *)planned;
    return r;
}

static int sink_target_add(void *ctx, struct discovery_handle *handle, int32_t vcpu,
                           const struct schema *schema, enum target_source source, int stats_fd)
{
    struct app *app = ctx;
    return planner_target_add(app->planner, (struct planned_vm *)handle, vcpu, schema, source,
                              stats_fd);
}

static int sink_target_add_bpf(void *ctx, struct discovery_handle *handle, int32_t vcpu,
                               const struct schema *schema, uint64_t address,
                               const struct bpf_wanted *wanted)
{
    struct app *app = ctx;
    return planner_target_add_bpf(app->planner, (struct planned_vm *)handle, vcpu, schema, address,
                                  wanted);
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
    planner_target_remove(app->planner, (struct planned_vm *)handle, vcpu);
}

static int sink_target_fd(void *ctx, struct discovery_handle *handle, int32_t vcpu)
{
    (void)ctx;
    return planner_target_fd((struct planned_vm *)handle, vcpu);
}

static void sink_vm_set_vcpus(void *ctx, struct discovery_handle *handle, uint32_t n_vcpus)
{
    struct app *app = ctx;
    planner_vm_set_vcpus(app->planner, (struct planned_vm *)handle, n_vcpus);
}

static void sink_vm_remove(void *ctx, struct discovery_handle *handle)
{
    struct app *app = ctx;
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

static int make_parts(struct app *app)
{
    static const struct exposition_process process = {KVMSTATD_VERSION, KVMSTATD_REVISION};
    int r = proc_open("", &app->proc);
    if (r == 0)
        r = store_new(&app->store);
    if (r == 0)
        r = reaper_new(&app->reaper);
    if (r == 0)
        r = sampler_new(app->store, app->reaper, &app->sampler);
    if (r == 0)
        r = planner_new(app->store, app->sampler, app->config, &app->planner);
    if (r == 0)
        r = broker_new(&app->proc, &app->broker);
    if (r == 0)
        r = make_discovery(app);
    if (r == 0)
        r = exposition_new(app->config, &process, &app->exposition);
    if (r == 0)
        exposition_set_notice(app->exposition, notice);
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
    broker_free(app->broker);
    sampler_free(app->sampler);
    if (app->reaper)
        reaper_stop(app->reaper);
    planner_free(app->planner);
    reaper_free(app->reaper);
    exposition_free(app->exposition);
    store_free(app->store);
    proc_close(&app->proc);
    config_unref(app->config);
    free(app);
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

int app_start(struct app *app)
{
    struct config_error error = {{0}};
    int r = reaper_start(app->reaper);
    if (r == 0)
        r = start_sampler(app);
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

/* --- reloading --- */

static bool lists_equal(const struct string_list *a, const struct string_list *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++) {
        if (strcmp(a->items[i], b->items[i]) != 0)
            return false;
    }
    return true;
}

/* What only a restart can change, for the log. */
static void say_what_waits(const struct config *old, const struct config *new)
{
    bool web = !lists_equal(&old->web.listen, &new->web.listen) ||
               old->web.max_requests != new->web.max_requests ||
               old->web.timeout_ns != new->web.timeout_ns ||
               strcmp(old->web.config_file, new->web.config_file) != 0;
    bool metrics = !lists_equal(&old->metrics.include, &new->metrics.include) ||
                   !lists_equal(&old->metrics.exclude, &new->metrics.exclude) ||
                   old->metrics.vcpu != new->metrics.vcpu ||
                   old->metrics.histograms != new->metrics.histograms;
    if (web)
        log_warn("daemon", "the changes under web take effect at the next start");
    if (metrics)
        log_warn("daemon", "the changes under metrics take effect at the next start");
}

void app_reload(struct app *app, struct config *config)
{
    say_what_waits(app->config, config);
    log_set_level(config->log_level);
    int r = sampler_set_cpus(app->sampler, config->sampling.cpus, config->sampling.n_cpus);
    if (r < 0)
        log_warn("sampler", "cannot use the CPUs of sampling.cpu_affinity: %s", strerror(-r));
    discovery_set_config(app->discovery, config);
    config_ref(config);
    config_unref(app->config);
    app->config = config;
    atomic_store(&app->store->self.config_reload_ok, true);
    atomic_store(&app->store->self.config_reload_ok_wall_ns, clock_read_ns(CLOCK_REALTIME));
    log_info("daemon", "configuration reloaded");
}

void app_reload_failed(struct app *app)
{
    atomic_store(&app->store->self.config_reload_ok, false);
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
    int r = discovery_look_once(app->discovery);
    if (r < 0)
        return r;
    sampler_run_once(app->sampler);
    r = view_take(app->store, &view);
    if (r < 0)
        return r;
    CLEANUP(cleanup_roster_unref) struct roster *roster = roster_get(&app->store->roster);
    r = exposition_render(app->exposition, &view, roster, EXPOSITION_TEXT, &sink);
    if (r == 0 && fflush(stdout) != 0)
        r = -errno;
    return r < 0 ? r : (int)view.n_vms;
}
