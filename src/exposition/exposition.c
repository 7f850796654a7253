/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables of families are kept by how many schemas they cover. Schemas only ever come to the end of
 * the store's table and are never freed, so a table of families once made is right for ever, and
 * there are at most SCHEMAS_MAX + 1 of them.
 */
#include "exposition.h"

#include "burst_samples.h"
#include "clock.h"
#include "families.h"
#include "own.h"
#include "samples.h"
#include "scene.h"
#include "selfmetrics.h"
#include "threads.h"
#include "vminfo.h"
#include "writer.h"

struct exposition {
    struct config *config; /* a reference */
    char *version, *revision;
    int64_t process_start_wall_ns;
    pthread_mutex_t lock; /* guards the rest, and is held while a table is made */
    exposition_notice_fn *notice;
    unsigned noticed; /* schemas whose clashes have been told */
    struct family_table *tables[SCHEMAS_MAX + 1];
};

const char *exposition_content_type(enum exposition_format format)
{
    switch (format) {
    case EXPOSITION_TEXT:
        break;
    case EXPOSITION_OPENMETRICS:
        return "application/openmetrics-text; version=1.0.0; charset=utf-8";
    case EXPOSITION_PROTOBUF:
        return "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; "
               "encoding=delimited";
    }
    return "text/plain; version=0.0.4; charset=utf-8";
}

int exposition_new(struct config *config, const struct exposition_process *process,
                   struct exposition **ret_exposition)
{
    CLEANUP(cleanup_exposition_free) struct exposition *e = calloc(1, sizeof *e);
    if (!e)
        return -ENOMEM;
    (void)pthread_mutex_init(&e->lock, NULL);
    e->config = config_ref(config);
    e->version = strdup(process->version);
    e->revision = strdup(process->revision);
    if (!e->version || !e->revision)
        return -ENOMEM;
    e->process_start_wall_ns = selfmetrics_start_wall_ns();
    *ret_exposition = steal_ptr(&e);
    return 0;
}

void exposition_free(struct exposition *exposition)
{
    if (!exposition)
        return;
    for (size_t i = 0; i < ARRAY_LEN(exposition->tables); i++)
        family_table_free(exposition->tables[i]);
    (void)pthread_mutex_destroy(&exposition->lock);
    config_unref(exposition->config);
    free(exposition->version);
    free(exposition->revision);
    free(exposition);
}

void exposition_set_notice(struct exposition *exposition, exposition_notice_fn *notice)
{
    (void)pthread_mutex_lock(&exposition->lock);
    exposition->notice = notice;
    (void)pthread_mutex_unlock(&exposition->lock);
}

static int get_table(struct exposition *e, const struct schema_table *schemas,
                     const struct family_table **ret_table)
{
    unsigned n = atomic_load_explicit(&schemas->count, memory_order_acquire);
    int r = 0;
    (void)pthread_mutex_lock(&e->lock);
    if (!e->tables[n]) {
        r = family_table_new(schemas->entries, n, e->config, e->notice, e->noticed, &e->tables[n]);
        if (r == 0)
            e->noticed = MAX_OF(e->noticed, n);
    }
    *ret_table = e->tables[n];
    (void)pthread_mutex_unlock(&e->lock);
    return r;
}

static void put_samples(struct writer *w, enum exposition_format format,
                        const struct config *config, const struct family_table *table,
                        const struct scene *scene)
{
    for (enum scope scope = SCOPE_VM; scope <= SCOPE_VCPU; scope++) {
        if (format == EXPOSITION_PROTOBUF)
            samples_put_protobuf(w, config, table, scope, scene);
        else
            samples_put(w, format, config, table, scope, scene);
    }
}

int exposition_render(struct exposition *exposition, const struct view *view,
                      const struct roster *roster, enum exposition_format format,
                      const struct exposition_sink *sink)
{
    const struct config *config = exposition->config;
    const struct exposition_process process = {exposition->version, exposition->revision};
    const struct family_table *table;
    CLEANUP_SCENE struct scene scene = {0};
    CLEANUP_WRITER struct writer w = {0};
    CLEANUP_OWN struct own own;
    CLEANUP(cleanup_cputimes_unref)
    struct cputimes *times = cputimes_get(&view->store->cputimes);
    int64_t begin_ns = clock_now_ns();
    int r;
    own_init(&own, &w, format);
    if ((r = get_table(exposition, &view->store->schemas, &table)) < 0 ||
        (r = scene_make(view, table, format, samples_need_sums(config), &scene)) < 0 ||
        (r = writer_init(&w, sink)) < 0)
        return r;

    vminfo_put(&own, view);
    put_samples(&w, format, config, table, &scene);
    bursts_put(&own, family_table_bursts(table), view);
    threads_put(&own, view, times, config);
    selfmetrics_put(&own, view->store, roster, &process, exposition->process_start_wall_ns,
                    begin_ns);
    if (format == EXPOSITION_OPENMETRICS)
        writer_printf(&w, "# EOF\n");
    r = writer_finish(&w);
    if (r < 0)
        return r;
    atomic_store_explicit(&view->store->self.render_duration_ns, clock_now_ns() - begin_ns,
                          memory_order_relaxed);
    return 0;
}
