/* SPDX-License-Identifier: Apache-2.0 */
/* What is taken, and what becomes of it. */
#include <stdio.h>

#include "clock.h"
#include "schema.h"
#include "suites.h"

/* Every key of the schema, each with a value that is not its default. */
static const char full[] = "sampling:\n"
                           "  interval: 20ms\n"
                           "  cpu_affinity: [3, 0, 1023]\n"
                           "  rules:\n"
                           "    - match: {vm: \"db-*\", uuid: \"4c*\", vmm: qemu, unit: \"\"}\n"
                           "      interval: 1h\n"
                           "      enabled: false\n"
                           "    - {match: {vm: 'ci-?'}, interval: 1ms}\n"
                           "discovery:\n"
                           "  sources: [bpf, statsfd]\n"
                           "  rescan: 1m\n"
                           "  unsafe_kernel: allow\n"
                           "handoff:\n"
                           "  socket: /tmp/x.sock\n"
                           "  allow_users: [107, \"nobody\"]\n"
                           "metrics:\n"
                           "  include:\n"
                           "  - halt_*\n"
                           "  - \"*exits\"\n"
                           "  exclude: [halt_poll_*]\n"
                           "  vcpu: false\n"
                           "  histograms: off\n"
                           "bursts:\n"
                           "  windows: [1.5s, 1h]\n"
                           "  stats: []\n"
                           "  distribution: [exits, io_exits]\n"
                           "  scope: vcpu\n"
                           "scheduler:\n"
                           "  interval: off\n"
                           "recorder:\n"
                           "  memory: 0.5GiB\n"
                           "  directory: /srv/d\xc3\xbcmps\n"
                           "  dump_on: [signal]\n"
                           "web:\n"
                           "  listen: [\":9\", \"[::1]:9\", unix:/run/k.sock, host-1.example:0]\n"
                           "  config_file: /etc/web.yaml\n"
                           "  max_requests: '10000'\n"
                           "  timeout: \"1h\"\n"
                           "limits:\n"
                           "  max_vms: 1\n"
                           "  max_vcpus_per_vm: 65536\n"
                           "log:\n"
                           "  level: debug\n";

static void assert_strings(const struct string_list *list, size_t n, const char *const *want)
{
    ck_assert_uint_eq(list->n, n);
    for (size_t i = 0; i < n; i++)
        ck_assert_str_eq(list->items[i], want[i]);
}
#define ASSERT_STRINGS(list, ...)                                                         \
    assert_strings(&(list), sizeof((const char *[]){__VA_ARGS__}) / sizeof(const char *), \
                   (const char *[]){__VA_ARGS__})

START_TEST(default_fields)
{
    struct config *c = config_of("");
    ck_assert_int_eq(c->sampling.interval_ns, 100 * NSEC_PER_MSEC);
    ck_assert_uint_eq(c->sampling.n_cpus, 0);
    ck_assert_uint_eq(c->sampling.n_rules, 0);
    ck_assert_uint_eq(c->discovery.n_sources, 3);
    ck_assert_int_eq(c->discovery.sources[0], CONFIG_SOURCE_HANDOFF);
    ck_assert_int_eq(c->discovery.sources[1], CONFIG_SOURCE_STATSFD);
    ck_assert_int_eq(c->discovery.sources[2], CONFIG_SOURCE_BPF);
    ck_assert_int_eq(c->discovery.rescan_ns, 5 * NSEC_PER_SEC);
    ck_assert(!c->discovery.unsafe_kernel_allow);
    ck_assert_str_eq(c->handoff.socket, "/run/kvmstatd/handoff.sock");
    ASSERT_STRINGS(c->handoff.allow_users, "root", "libvirt-qemu");
    ASSERT_STRINGS(c->metrics.include, "*");
    ck_assert_uint_eq(c->metrics.exclude.n, 0);
    ck_assert(c->metrics.vcpu);
    ck_assert_int_eq(c->metrics.histograms, CONFIG_HISTOGRAMS_VM);
    ck_assert_uint_eq(c->bursts.n_windows, 1);
    ck_assert_int_eq(c->bursts.windows_ns[0], 15 * NSEC_PER_SEC);
    ASSERT_STRINGS(c->bursts.stats, "exits", "io_exits", "mmio_exits", "insn_emulation",
                   "irq_injections", "halt_wait_ns", "remote_tlb_flush");
    ASSERT_STRINGS(c->bursts.distribution, "exits");
    ck_assert_int_eq(c->bursts.scope, CONFIG_SCOPE_VM);
    ck_assert_int_eq(c->scheduler.interval_ns, NSEC_PER_SEC);
    ck_assert_uint_eq(c->recorder.memory_bytes, 64u << 20);
    ck_assert_str_eq(c->recorder.directory, "/var/lib/kvmstatd");
    ck_assert(c->recorder.dump_on_vmm_killed && c->recorder.dump_on_signal);
    ASSERT_STRINGS(c->web.listen, "127.0.0.1:10177");
    ck_assert_str_eq(c->web.config_file, "");
    ck_assert_uint_eq(c->web.max_requests, 40);
    ck_assert_int_eq(c->web.timeout_ns, 30 * NSEC_PER_SEC);
    ck_assert_uint_eq(c->limits.max_vms, 16384);
    ck_assert_uint_eq(c->limits.max_vcpus_per_vm, 4096);
    ck_assert_int_eq(c->log_level, LOG_LEVEL_INFO);
    config_unref(c);
}
END_TEST

START_TEST(every_field)
{
    struct config *c = config_of(full);
    ck_assert_int_eq(c->sampling.interval_ns, 20 * NSEC_PER_MSEC);
    ck_assert_uint_eq(c->sampling.n_cpus, 3);
    ck_assert_int_eq(c->sampling.cpus[0], 0);
    ck_assert_int_eq(c->sampling.cpus[1], 3);
    ck_assert_int_eq(c->sampling.cpus[2], 1023);
    ck_assert_uint_eq(c->sampling.n_rules, 2);
    const struct config_rule *rule = c->sampling.rules;
    ck_assert_str_eq(rule->vm, "db-*");
    ck_assert_str_eq(rule->uuid, "4c*");
    ck_assert_str_eq(rule->vmm, "qemu");
    ck_assert_str_eq(rule->unit, "");
    ck_assert_int_eq(rule->interval_ns, 3600 * NSEC_PER_SEC);
    ck_assert(!rule->enabled);
    rule++;
    ck_assert_str_eq(rule->vm, "ci-?");
    ck_assert(!rule->uuid && !rule->vmm && !rule->unit);
    ck_assert_int_eq(rule->interval_ns, NSEC_PER_MSEC);
    ck_assert(rule->enabled);
    ck_assert_uint_eq(c->discovery.n_sources, 2);
    ck_assert_int_eq(c->discovery.sources[0], CONFIG_SOURCE_BPF);
    ck_assert_int_eq(c->discovery.sources[1], CONFIG_SOURCE_STATSFD);
    ck_assert_int_eq(c->discovery.rescan_ns, 60 * NSEC_PER_SEC);
    ck_assert(c->discovery.unsafe_kernel_allow);
    ck_assert_str_eq(c->handoff.socket, "/tmp/x.sock");
    ASSERT_STRINGS(c->handoff.allow_users, "107", "nobody");
    ASSERT_STRINGS(c->metrics.include, "halt_*", "*exits");
    ASSERT_STRINGS(c->metrics.exclude, "halt_poll_*");
    ck_assert(!c->metrics.vcpu);
    ck_assert_int_eq(c->metrics.histograms, CONFIG_HISTOGRAMS_OFF);
    ck_assert_uint_eq(c->bursts.n_windows, 2);
    ck_assert_int_eq(c->bursts.windows_ns[0], 1500 * NSEC_PER_MSEC);
    ck_assert_int_eq(c->bursts.windows_ns[1], 3600 * NSEC_PER_SEC);
    ck_assert_uint_eq(c->bursts.stats.n, 0);
    ASSERT_STRINGS(c->bursts.distribution, "exits", "io_exits");
    ck_assert_int_eq(c->bursts.scope, CONFIG_SCOPE_VCPU);
    ck_assert_int_eq(c->scheduler.interval_ns, 0);
    ck_assert_uint_eq(c->recorder.memory_bytes, 512u << 20);
    ck_assert_str_eq(c->recorder.directory, "/srv/d\xc3\xbcmps");
    ck_assert(!c->recorder.dump_on_vmm_killed && c->recorder.dump_on_signal);
    ASSERT_STRINGS(c->web.listen, ":9", "[::1]:9", "unix:/run/k.sock", "host-1.example:0");
    ck_assert_str_eq(c->web.config_file, "/etc/web.yaml");
    ck_assert_uint_eq(c->web.max_requests, 10000);
    ck_assert_int_eq(c->web.timeout_ns, 3600 * NSEC_PER_SEC);
    ck_assert_uint_eq(c->limits.max_vms, 1);
    ck_assert_uint_eq(c->limits.max_vcpus_per_vm, 65536);
    ck_assert_int_eq(c->log_level, LOG_LEVEL_DEBUG);
    config_unref(c);
}
END_TEST

static void assert_differs(const struct key_table *table, const void *a, const void *b)
{
    for (size_t i = 0; i < table->n; i++) {
        const struct key *key = &table->keys[i];
        if (key->shape == KEY_SECTION)
            assert_differs(key->keys, a, b);
        else if (key->shape != KEY_RULES) /* every_field looks at them */
            ck_assert_msg(!key->type->equal(key, a, b), "%s: not in the full text", key->name);
    }
}

/* Holds the text above, and so every_field, against the schema: a new key must be added there. */
START_TEST(every_key)
{
    struct config *defaults = config_of(""), *c = config_of(full);
    assert_differs(&schema_root, defaults, c);
    ck_assert(!config_equal(defaults, c));
    config_unref(defaults);
    config_unref(c);
}
END_TEST

static void assert_examples(const struct key_table *table)
{
    ck_assert_uint_le(table->n, KEYS_MAX);
    for (size_t i = 0; i < table->n; i++) {
        ck_assert_msg(schema_example(&table->keys[i]) != NULL, "%s", table->keys[i].name);
        if (table->keys[i].keys)
            assert_examples(table->keys[i].keys);
    }
}

START_TEST(every_key_has_an_example)
{
    assert_examples(&schema_root);
}
END_TEST

/* The example that a message gives must itself be right. */
START_TEST(every_example_is_right)
{
    for (size_t i = 0; i < schema_root.n; i++) {
        const struct key *section = &schema_root.keys[i];
        char text[256];
        snprintf(text, sizeof text, "%s: %s\n", section->name, schema_example(section));
        config_unref(config_of(text));
        for (size_t j = 0; j < section->keys->n; j++) {
            const struct key *key = &section->keys->keys[j];
            bool is_list = key->shape == KEY_LIST || key->shape == KEY_RULES;
            snprintf(text, sizeof text, "%s: {%s: %s%s%s}\n", section->name, key->name,
                     is_list ? "[" : "", schema_example(key), is_list ? "]" : "");
            config_unref(config_of(text));
        }
    }
}
END_TEST

/* Texts that mean the defaults. */
static const char *const empties[] = {
    "",
    "\n\n",
    "# only a comment",
    "---\n",
    "---\n...\n",
    "{}",
    "~\n",
    "\xef\xbb\xbf# after a byte order mark\nlog: {level: info}\n",
    "sampling:\nlog:\n",
    "sampling: {}\nlog: ~\n",
    "sampling:\n  rules:\n  # - match: {vm: x}\nweb:\n  max_requests: 40\n",
    "sampling:\r\n  interval: 100ms\r\n",
    "sampling:\n  interval: 0.1s\n",
    "sampling:\n  interval: 100000us\n",
    "recorder:\n  memory: 65536KiB\n",
    "recorder: {dump_on: [signal, vmm_killed]}\n",
    "log: {level: \"info\"}\n# a % sign, and 100%\n# caf\xc3\xa9\n",
};

START_TEST(means_the_defaults)
{
    struct config *defaults = NULL;
    ck_assert_int_eq(config_defaults(&defaults), 0);
    struct config *c = config_of(empties[_i]);
    ck_assert_msg(config_equal(defaults, c), "%s", empties[_i]);
    config_unref(c);
    config_unref(defaults);
}
END_TEST

START_TEST(bounds_are_in)
{
    static const char *const texts[] = {
        "sampling: {interval: 1ms}",
        "sampling: {interval: 1h}",
        "sampling: {interval: 3600s}",
        "discovery: {rescan: 100ms}",
        "bursts: {windows: []}",
        "bursts: {windows: [1s,2s,3s,4s,5s,6s,7s,8s]}",
        "scheduler: {interval: \"off\"}",
        "scheduler: {interval: 10ms}",
        "recorder: {memory: 0}",
        "recorder: {memory: 1MiB}",
        "recorder: {memory: 1TiB}",
        "recorder: {dump_on: []}",
        "web: {max_requests: 1}",
        "web: {timeout: 1s}",
        "limits: {max_vms: 1000000}",
        "handoff: {allow_users: []}",
        "sampling: {rules: []}",
        "sampling: {cpu_affinity: [0]}",
        "handoff: {allow_users: [0, 4294967294, \"a$\"]}",
    };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        config_unref(config_of(texts[i]));
}
END_TEST

Suite *suite_accepted(void)
{
    Suite *suite = suite_create("accepted");
    TCase *tc = tcase_create("accepted");
    tcase_add_test(tc, default_fields);
    tcase_add_test(tc, every_field);
    tcase_add_test(tc, every_key);
    tcase_add_test(tc, every_key_has_an_example);
    tcase_add_test(tc, every_example_is_right);
    tcase_add_loop_test(tc, means_the_defaults, 0, ARRAY_LEN(empties));
    tcase_add_test(tc, bounds_are_in);
    suite_add_tcase(suite, tc);
    return suite;
}
