/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All or nothing: everything that can fail is made aside and in an order in which it can be undone,
 * the listeners last; what follows them cannot fail.
 */
#include <stdio.h>
#include <string.h>

#include "app_internal.h"
#include "clock.h"
#include "log.h"
#include "privileges.h"

/* What is there before anything of it is in force. */
struct prepared {
    struct exposition *exposition;
    bool has_recorder; /* there is another memory, which may be none */
    struct recorder *recorder;
    char *directory;
    struct discovery_change *discovery;
};

static void prepared_free(struct prepared *prepared)
{
    exposition_free(prepared->exposition);
    recorder_unref(prepared->recorder);
    free(prepared->directory);
    discovery_change_free(prepared->discovery);
}

static int fail(struct config_error *ret_error, const char *key, int error)
{
    (void)snprintf(ret_error->message, sizeof ret_error->message, "%s: %s", key,
                   strerrordesc_np(-error));
    return error;
}

static int prepare_recorder(struct app *app, const struct config *config, struct prepared *prepared)
{
    uint64_t memory_bytes = config->recorder.memory_bytes;
    prepared->has_recorder = memory_bytes != app->config->recorder.memory_bytes;
    return prepared->has_recorder && memory_bytes
               ? recorder_new(memory_bytes, &app->store->self, &prepared->recorder)
               : 0;
}

static int prepare(struct app *app, struct config *config, struct prepared *prepared,
                   struct config_error *ret_error)
{
    int r = app_make_exposition(config, &prepared->exposition);
    if (r < 0)
        return fail(ret_error, "metrics", r);
    r = prepare_recorder(app, config, prepared);
    if (r < 0)
        return fail(ret_error, "recorder.memory", r);
    prepared->directory = strdup(config->recorder.directory);
    if (!prepared->directory)
        return fail(ret_error, "recorder.directory", -ENOMEM);
    return discovery_prepare(app->discovery, app->config, config, &prepared->discovery, ret_error);
}

static bool same_cpus(const struct config *a, const struct config *b)
{
    return a->sampling.n_cpus == b->sampling.n_cpus &&
           memcmp(a->sampling.cpus, b->sampling.cpus,
                  a->sampling.n_cpus * sizeof a->sampling.cpus[0]) == 0;
}

static int use_cpus(struct app *app, const struct config *config)
{
    return sampler_set_cpus(app->sampler, config->sampling.cpus, config->sampling.n_cpus);
}

/*
 * CPUs that were refused at the start already, or have been unplugged since, are no reason to
 * refuse a configuration that asks for them no more than the one before.
 */
static int move_sampler(struct app *app, const struct config *config,
                        struct config_error *ret_error)
{
    int r = use_cpus(app, config);
    if (r == 0)
        return 0;
    if (!same_cpus(app->config, config))
        return fail(ret_error, "sampling.cpu_affinity: none of these CPUs can be used", r);
    log_warn("sampler",
             "none of the CPUs in sampling.cpu_affinity can be used (%s), running where "
             "it was",
             strerrordesc_np(-r));
    return 0;
}

static void say_what_was_dropped(const struct app *app, const struct config *new)
{
    char names[128];
    uint64_t missing = privileges_of_sources(new) & app->dropped;
    privileges_name(missing, names, sizeof names);
    if (missing)
        log_warn("daemon",
                 "discovery.sources now takes %s, which was dropped at the start because nothing "
                 "needed it: only a restart brings it back",
                 names);
}

/* Nothing in here can fail. */
static void take_effect(struct app *app, struct config *config, struct prepared *prepared)
{
    http_use_exposition(app->http, prepared->exposition);
    struct exposition *former = app->exposition;
    app->exposition = prepared->exposition;
    prepared->exposition = former; /* nobody uses it any more */

    say_what_was_dropped(app, config);
    log_set_level(config->log_level);
    scheduler_set_config(app->scheduler, config);
    discovery_adopt(app->discovery, steal_ptr(&prepared->discovery));
    app_use_dump_options(app, config, steal_ptr(&prepared->directory));
    if (prepared->has_recorder)
        app_use_recorder(app, prepared->recorder);
    config_ref(config);
    config_unref(app->config);
    app->config = config;
}

int app_reload(struct app *app, struct config *config, struct config_error *ret_error)
{
    CLEANUP(prepared_free) struct prepared prepared = {0};
    int r = prepare(app, config, &prepared, ret_error);
    if (r == 0)
        r = move_sampler(app, config, ret_error);
    if (r < 0)
        return r;
    r = http_reconfigure(app->http, config, ret_error);
    if (r < 0) {
        (void)!use_cpus(app, app->config);
        return r;
    }
    take_effect(app, config, &prepared);
    atomic_store(&app->store->self.config_reload_ok, true);
    atomic_store(&app->store->self.config_reload_ok_wall_ns, clock_read_ns(CLOCK_REALTIME));
    log_info("daemon", "configuration reloaded");
    return 0;
}

const struct config *app_config(const struct app *app)
{
    return app->config;
}

void app_reload_failed(struct app *app)
{
    atomic_store(&app->store->self.config_reload_ok, false);
}
