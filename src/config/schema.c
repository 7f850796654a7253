/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables, and the walks that need nothing else. A default is written as text and goes through
 * the same reader as a person's value: a default outside its own range cannot exist.
 */
#include "schema.h"

#include <assert.h>
#include <sched.h>
#include <string.h>

#include "values.h"

#define STRINGIFY_(x) #x
#define STRINGIFY(x)  STRINGIFY_(x)

#define TABLE(array)                           \
    {                                          \
        .n = ARRAY_LEN(array), .keys = (array) \
    }
#define FIELD(field)      .at = offsetof(struct config, field)
#define ITEMS(items, n)   .at = offsetof(struct config, items), .count_at = offsetof(struct config, n)
#define STRINGS(field)    ITEMS(field.items, field.n)
#define RULE_FIELD(field) .at = offsetof(struct config_rule, field)
#define SCALAR(of_type)   .shape = KEY_SCALAR, .type = &(of_type)
#define LIST(of_type)     .shape = KEY_LIST, .type = &(of_type)

enum {
    GLOBS_MAX = 256, /* each is tried on each statistic, of which the largest kernel has 100 */
    USERS_MAX = 64,  /* one for each VMM's account */
    LISTEN_MAX = 16, /* sockets */
    WINDOWS_MAX = 8, /* a window costs memory for each statistic and VM */
};

#define CPU_LAST 1023
static_assert(CPU_LAST == CPU_SETSIZE - 1, "the bound is written out, for messages show it");

static const char *const booleans[] = {"false", "true", NULL};
static const char *const source_choices[] = {
    [CONFIG_SOURCE_HANDOFF] = "handoff",
    [CONFIG_SOURCE_STATSFD] = "statsfd",
    [CONFIG_SOURCE_BPF] = "bpf",
    [CONFIG_SOURCES] = NULL,
};
static const char *const unsafe_kernel_choices[] = {"refuse", "allow", NULL};
static const char *const histogram_choices[] = {
    [CONFIG_HISTOGRAMS_VCPU] = "vcpu",
    [CONFIG_HISTOGRAMS_VM] = "vm",
    [CONFIG_HISTOGRAMS_OFF] = "off",
    NULL,
};
static const char *const scope_choices[] = {
    [CONFIG_SCOPE_VM] = "vm",
    [CONFIG_SCOPE_VCPU] = "vcpu",
    NULL,
};
static const char *const dump_choices[] = {"vmm_killed", "signal", NULL};
static_assert(offsetof(struct config, recorder.dump_on_signal) ==
                  offsetof(struct config, recorder.dump_on_vmm_killed) + sizeof(bool),
              "type_flags wants the flags side by side, in the order of dump_choices");
static const char *const level_choices[] = {
    [LOG_LEVEL_ERROR] = "error",
    [LOG_LEVEL_WARN] = "warn",
    [LOG_LEVEL_INFO] = "info",
    [LOG_LEVEL_DEBUG] = "debug",
    NULL,
};

static const struct key match_keys[] = {
    {.name = "vm", SCALAR(type_string), RULE_FIELD(vm), .check = check_glob, .example = "\"db-*\""},
    {.name = "uuid",
     SCALAR(type_string),
     RULE_FIELD(uuid),
     .check = check_glob,
     .example = "\"4c4c4544-*\""},
    {.name = "vmm",
     SCALAR(type_string),
     RULE_FIELD(vmm),
     .check = check_glob,
     .example = "\"qemu*\""},
    {.name = "unit",
     SCALAR(type_string),
     RULE_FIELD(unit),
     .check = check_glob,
     .example = "\"*.service\""},
};
static const struct key_table match_table = TABLE(match_keys);

#define INTERVAL_RANGE .min = "1ms", .max = "1h"

static const struct key rule_keys[] = {
    {.name = "match", .shape = KEY_SECTION, .keys = &match_table, .example = "{vm: \"db-*\"}"},
    {.name = "interval",
     SCALAR(type_duration),
     RULE_FIELD(interval_ns),
     INTERVAL_RANGE,
     .example = "20ms"},
    {.name = "enabled",
     SCALAR(type_switch),
     RULE_FIELD(enabled),
     .choices = booleans,
     .fallback = "true"},
};
const struct key_table schema_rule = TABLE(rule_keys);

static const struct key sampling_keys[] = {
    {.name = "interval",
     SCALAR(type_duration),
     FIELD(sampling.interval_ns),
     INTERVAL_RANGE,
     .fallback = "100ms"},
    {.name = "cpu_affinity",
     LIST(type_ints),
     ITEMS(sampling.cpus, sampling.n_cpus),
     .min = "0",
     .max = STRINGIFY(CPU_LAST),
     .min_items = 1,
     .max_items = CPU_SETSIZE,
     .example = "0"},
    {.name = "rules",
     .shape = KEY_RULES,
     .keys = &schema_rule,
     ITEMS(sampling.rules, sampling.n_rules),
     .max_items = CONFIG_RULES_MAX,
     .example = "{match: {vm: \"db-*\"}, interval: 20ms}"},
};
static const struct key_table sampling_table = TABLE(sampling_keys);

static const struct key discovery_keys[] = {
    {.name = "sources",
     LIST(type_choices),
     ITEMS(discovery.sources, discovery.n_sources),
     .choices = source_choices,
     .min_items = 1,
     .max_items = CONFIG_SOURCES,
     .fallback = "handoff statsfd bpf",
     .example = "statsfd"},
    {.name = "rescan",
     SCALAR(type_duration),
     FIELD(discovery.rescan_ns),
     .min = "100ms",
     .max = "1h",
     .fallback = "5s"},
    {.name = "unsafe_kernel",
     SCALAR(type_switch),
     FIELD(discovery.unsafe_kernel_allow),
     .choices = unsafe_kernel_choices,
     .fallback = "refuse"},
};
static const struct key_table discovery_table = TABLE(discovery_keys);

static const struct key handoff_keys[] = {
    {.name = "socket",
     SCALAR(type_string),
     FIELD(handoff.socket),
     .check = check_socket,
     .fallback = "/run/kvmstatd/handoff.sock"},
    {.name = "allow_users",
     LIST(type_strings),
     STRINGS(handoff.allow_users),
     .check = check_user,
     .max_items = USERS_MAX,
     .fallback = "root libvirt-qemu",
     .example = "libvirt-qemu"},
};
static const struct key_table handoff_table = TABLE(handoff_keys);

static const struct key metrics_keys[] = {
    {.name = "include",
     LIST(type_strings),
     STRINGS(metrics.include),
     .check = check_stat_glob,
     .min_items = 1,
     .max_items = GLOBS_MAX,
     .fallback = "*",
     .example = "\"*\""},
    {.name = "exclude",
     LIST(type_strings),
     STRINGS(metrics.exclude),
     .check = check_stat_glob,
     .max_items = GLOBS_MAX,
     .example = "\"halt_*\""},
    {.name = "vcpu",
     SCALAR(type_switch),
     FIELD(metrics.vcpu),
     .choices = booleans,
     .fallback = "true"},
    {.name = "histograms",
     SCALAR(type_choice),
     FIELD(metrics.histograms),
     .choices = histogram_choices,
     .fallback = "vm"},
};
static const struct key_table metrics_table = TABLE(metrics_keys);

static const struct key bursts_keys[] = {
    {.name = "windows",
     LIST(type_durations),
     ITEMS(bursts.windows_ns, bursts.n_windows),
     .min = "1s",
     .max = "1h",
     .max_items = WINDOWS_MAX,
     .fallback = "15s"},
    {.name = "stats",
     LIST(type_strings),
     STRINGS(bursts.stats),
     .check = check_stat_glob,
     .max_items = GLOBS_MAX,
     .fallback = "exits io_exits mmio_exits insn_emulation irq_injections halt_wait_ns "
                 "remote_tlb_flush",
     .example = "exits"},
    {.name = "distribution",
     LIST(type_strings),
     STRINGS(bursts.distribution),
     .check = check_stat_glob,
     .max_items = GLOBS_MAX,
     .fallback = "exits"},
    {.name = "scope",
     SCALAR(type_choice),
     FIELD(bursts.scope),
     .choices = scope_choices,
     .fallback = "vm"},
};
static const struct key_table bursts_table = TABLE(bursts_keys);

static const struct key scheduler_keys[] = {
    {.name = "interval",
     SCALAR(type_duration),
     FIELD(scheduler.interval_ns),
     .min = "10ms",
     .max = "1h",
     .off = "off",
     .fallback = "1s"},
};
static const struct key_table scheduler_table = TABLE(scheduler_keys);

static const struct key recorder_keys[] = {
    {.name = "memory",
     SCALAR(type_size),
     FIELD(recorder.memory_bytes),
     .min = "1MiB",
     .max = "1TiB",
     .off = "0",
     .fallback = "64MiB"},
    {.name = "directory",
     SCALAR(type_string),
     FIELD(recorder.directory),
     .check = check_directory,
     .fallback = "/var/lib/kvmstatd"},
    {.name = "dump_on",
     LIST(type_flags),
     FIELD(recorder.dump_on_vmm_killed),
     .choices = dump_choices,
     .max_items = 2,
     .fallback = "vmm_killed signal",
     .example = "signal"},
};
static const struct key_table recorder_table = TABLE(recorder_keys);

static const struct key web_keys[] = {
    {.name = "listen",
     LIST(type_strings),
     STRINGS(web.listen),
     .check = check_listen,
     .min_items = 1,
     .max_items = LISTEN_MAX,
     .fallback = "127.0.0.1:10177",
     .example = "\"127.0.0.1:10177\""},
    {.name = "config_file",
     SCALAR(type_string),
     FIELD(web.config_file),
     .check = check_optional_file,
     .fallback = "",
     .example = "\"\""},
    {.name = "max_requests",
     SCALAR(type_count),
     FIELD(web.max_requests),
     .min = "1",
     .max = "10000",
     .fallback = "40"},
    {.name = "timeout",
     SCALAR(type_duration),
     FIELD(web.timeout_ns),
     .min = "1s",
     .max = "1h",
     .fallback = "30s"},
};
static const struct key_table web_table = TABLE(web_keys);

static const struct key limits_keys[] = {
    {.name = "max_vms",
     SCALAR(type_count),
     FIELD(limits.max_vms),
     .min = "1",
     .max = "1000000",
     .fallback = "16384"},
    {.name = "max_vcpus_per_vm",
     SCALAR(type_count),
     FIELD(limits.max_vcpus_per_vm),
     .min = "1",
     .max = "65536",
     .fallback = "4096"},
};
static const struct key_table limits_table = TABLE(limits_keys);

static const struct key log_keys[] = {
    {.name = "level",
     SCALAR(type_choice),
     FIELD(log_level),
     .choices = level_choices,
     .fallback = "info"},
};
static const struct key_table log_table = TABLE(log_keys);

static const struct key root_keys[] = {
    {.name = "sampling",
     .shape = KEY_SECTION,
     .keys = &sampling_table,
     .example = "{interval: 100ms}"},
    {.name = "discovery",
     .shape = KEY_SECTION,
     .keys = &discovery_table,
     .example = "{rescan: 5s}"},
    {.name = "handoff",
     .shape = KEY_SECTION,
     .keys = &handoff_table,
     .example = "{allow_users: [root]}"},
    {.name = "metrics",
     .shape = KEY_SECTION,
     .keys = &metrics_table,
     .example = "{histograms: vm}"},
    {.name = "bursts", .shape = KEY_SECTION, .keys = &bursts_table, .example = "{windows: [15s]}"},
    {.name = "scheduler",
     .shape = KEY_SECTION,
     .keys = &scheduler_table,
     .example = "{interval: 1s}"},
    {.name = "recorder",
     .shape = KEY_SECTION,
     .keys = &recorder_table,
     .example = "{memory: 64MiB}"},
    {.name = "web", .shape = KEY_SECTION, .keys = &web_table, .example = "{listen: [\":10177\"]}"},
    {.name = "limits", .shape = KEY_SECTION, .keys = &limits_table, .example = "{max_vms: 16384}"},
    {.name = "log", .shape = KEY_SECTION, .keys = &log_table, .example = "{level: info}"},
};
const struct key_table schema_root = TABLE(root_keys);
static_assert(ARRAY_LEN(root_keys) <= KEYS_MAX, "the largest table");
/* type_choice and type_choices keep an enum as the unsigned int it is. */
static_assert(sizeof(enum config_source) == sizeof(unsigned) &&
                  sizeof(enum config_histograms) == sizeof(unsigned) &&
                  sizeof(enum config_scope) == sizeof(unsigned) &&
                  sizeof(enum log_level) == sizeof(unsigned),
              "compile without -fshort-enums");

const struct key *schema_find(const struct key_table *table, const char *name)
{
    for (size_t i = 0; i < table->n; i++) {
        if (strcmp(table->keys[i].name, name) == 0)
            return &table->keys[i];
    }
    return NULL;
}

const char *schema_example(const struct key *key)
{
    return key->example ? key->example : key->fallback;
}

static int set_default(const struct key *key, void *base)
{
    struct config_error reason;
    if (!key->fallback)
        return 0;
    if (key->shape == KEY_SCALAR)
        return key->type->add(key, base, key->fallback, &reason);

    CLEANUP_FREE char *items = strdup(key->fallback);
    char *rest = NULL;
    if (!items)
        return -ENOMEM;
    for (char *item = strtok_r(items, " ", &rest); item; item = strtok_r(NULL, " ", &rest)) {
        int r = key->type->add(key, base, item, &reason);
        if (r < 0)
            return r;
    }
    return 0;
}

int schema_set_defaults(const struct key_table *table, void *base)
{
    for (size_t i = 0; i < table->n; i++) {
        const struct key *key = &table->keys[i];
        int r = 0;
        switch (key->shape) {
        case KEY_SCALAR:
        case KEY_LIST:
            r = set_default(key, base);
            break;
        case KEY_SECTION:
            r = schema_set_defaults(key->keys, base);
            break;
        case KEY_RULES: /* there are none */
        case KEY_PAIRS:
            break;
        }
        assert(r == 0 || r == -ENOMEM);
        if (r < 0)
            return r;
    }
    return 0;
}

static void clear_rules(struct config *config)
{
    for (size_t i = 0; i < config->sampling.n_rules; i++)
        schema_clear(&schema_rule, &config->sampling.rules[i]);
    free(config->sampling.rules);
    config->sampling.rules = NULL;
    config->sampling.n_rules = 0;
}

void schema_clear(const struct key_table *table, void *base)
{
    for (size_t i = 0; i < table->n; i++) {
        const struct key *key = &table->keys[i];
        switch (key->shape) {
        case KEY_SCALAR:
        case KEY_LIST:
            key->type->clear(key, base);
            break;
        case KEY_SECTION:
            schema_clear(key->keys, base);
            break;
        case KEY_RULES:
            clear_rules(base);
            break;
        case KEY_PAIRS:
            key->clear_pairs(key, base);
            break;
        }
    }
}

static bool rules_equal(const struct config *a, const struct config *b)
{
    if (a->sampling.n_rules != b->sampling.n_rules)
        return false;
    for (size_t i = 0; i < a->sampling.n_rules; i++) {
        if (!schema_equal(&schema_rule, &a->sampling.rules[i], &b->sampling.rules[i]))
            return false;
    }
    return true;
}

bool schema_equal(const struct key_table *table, const void *a, const void *b)
{
    for (size_t i = 0; i < table->n; i++) {
        const struct key *key = &table->keys[i];
        bool equal = true;
        switch (key->shape) {
        case KEY_SCALAR:
        case KEY_LIST:
            equal = key->type->equal(key, a, b);
            break;
        case KEY_SECTION:
            equal = schema_equal(key->keys, a, b);
            break;
        case KEY_RULES:
            equal = rules_equal(a, b);
            break;
        case KEY_PAIRS: /* no configuration that is compared has any */
            break;
        }
        if (!equal)
            return false;
    }
    return true;
}

int schema_append_rule(struct config *config, struct config_rule **ret_rule)
{
    size_t n = config->sampling.n_rules;
    struct config_rule *rules = reallocarray(config->sampling.rules, n + 1, sizeof *rules);
    if (!rules)
        return -ENOMEM;
    config->sampling.rules = rules;
    rules[n] = (struct config_rule){0};
    config->sampling.n_rules = n + 1;
    int r = schema_set_defaults(&schema_rule, &rules[n]);
    if (r == 0)
        *ret_rule = &rules[n];
    return r;
}
