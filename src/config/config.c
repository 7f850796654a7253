/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a configuration and what others ask of it. It is filled in once, through the schema's
 * tables, and never changed after; a reload makes a new one, and whoever still reads the old one
 * holds a reference to it.
 */
#include "config.h"

#include <fnmatch.h>
#include <string.h>

#include "file.h"
#include "parse.h"
#include "schema.h"

int config_defaults(struct config **ret_config)
{
    CLEANUP(cleanup_config_unref) struct config *config = calloc(1, sizeof *config);
    if (!config)
        return -ENOMEM;
    atomic_init(&config->refs, 1);
    int r = schema_set_defaults(&schema_root, config);
    if (r < 0)
        return r;
    *ret_config = steal_ptr(&config);
    return 0;
}

struct config *config_ref(struct config *config)
{
    (void)atomic_fetch_add_explicit(&config->refs, 1, memory_order_relaxed);
    return config;
}

void config_unref(struct config *config)
{
    if (!config || atomic_fetch_sub_explicit(&config->refs, 1, memory_order_acq_rel) > 1)
        return;
    schema_clear(&schema_root, config);
    free(config);
}

static void string_list_free(struct string_list *list)
{
    for (size_t i = 0; i < list->n; i++)
        free(list->items[i]);
    free(list->items);
}

int config_set_listen(struct config *config, const struct string_list *addresses)
{
    struct string_list copy = {.items = calloc(addresses->n, sizeof *copy.items)};
    if (!copy.items)
        return -ENOMEM;
    while (copy.n < addresses->n) {
        copy.items[copy.n] = strdup(addresses->items[copy.n]);
        if (!copy.items[copy.n]) {
            string_list_free(&copy);
            return -ENOMEM;
        }
        copy.n++;
    }
    string_list_free(&config->web.listen);
    config->web.listen = copy;
    return 0;
}

bool config_equal(const struct config *a, const struct config *b)
{
    return schema_equal(&schema_root, a, b);
}

int config_parse(const char *name, const char *text, size_t len, struct config **ret_config,
                 struct config_error *ret_error)
{
    CLEANUP(cleanup_config_unref) struct config *config = NULL;
    if (len > CONFIG_FILE_MAX_BYTES)
        return file_refuse_size(name, ret_error);
    int r = config_defaults(&config);
    if (r == 0)
        r = parse_yaml(name, text, len, config, ret_error);
    if (r == 0)
        *ret_config = steal_ptr(&config);
    return r;
}

int config_load(const char *path, bool regular, struct config **ret_config,
                struct config_error *ret_error)
{
    CLEANUP_FREE char *text = NULL;
    size_t len;
    int r = file_read(path, regular, "kvmstatd.yaml", &text, &len, ret_error);
    if (r == 0)
        r = config_parse(path, text, len, ret_config, ret_error);
    if (r == 0)
        (*ret_config)->of_file = true;
    return r;
}

static bool glob_matches(const char *glob, const char *text)
{
    return !glob || fnmatch(glob, text, 0) == 0;
}

struct config_verdict config_match(const struct config *config, const char *vm, const char *uuid,
                                   const char *vmm, const char *unit)
{
    struct config_verdict verdict = {
        .enabled = true,
        .interval_ns = config->sampling.interval_ns,
    };
    for (size_t i = 0; i < config->sampling.n_rules; i++) {
        const struct config_rule *rule = &config->sampling.rules[i];
        if (!glob_matches(rule->vm, vm) || !glob_matches(rule->uuid, uuid) ||
            !glob_matches(rule->vmm, vmm) || !glob_matches(rule->unit, unit))
            continue;
        verdict.enabled = rule->enabled;
        if (rule->interval_ns)
            verdict.interval_ns = rule->interval_ns;
        break;
    }
    return verdict;
}

static bool some_match(const struct string_list *globs, const char *name)
{
    for (size_t i = 0; i < globs->n; i++) {
        if (fnmatch(globs->items[i], name, 0) == 0)
            return true;
    }
    return false;
}

bool config_wants_stat(const struct config *config, const char *name)
{
    return some_match(&config->metrics.include, name) &&
           !some_match(&config->metrics.exclude, name);
}

bool config_wants_peak(const struct config *config, const char *name)
{
    return some_match(&config->bursts.stats, name);
}

bool config_wants_distribution(const struct config *config, const char *name)
{
    return some_match(&config->bursts.distribution, name);
}
