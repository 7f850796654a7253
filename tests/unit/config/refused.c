/* SPDX-License-Identifier: Apache-2.0 */
/* What is refused, at which line and column, and in which words. */
#include <stdio.h>

#include "suites.h"

#define TEXT(literal) literal, sizeof(literal) - 1

static const struct {
    const char *text;
    size_t len;
    const char *want; /* how the message begins, after "f.yaml:" */
} bad[] = {
    /* Units and numbers. */
    {TEXT("sampling:\n\n  interval: 100\n"),
     "3:13: sampling.interval: \"100\" has no unit; write for example 100ms"},
    {TEXT("sampling:\n  interval: \"100\"\n"), "2:13: sampling.interval: \"100\" has no unit"},
    {TEXT("sampling: {interval: fast}"),
     "1:22: sampling.interval: \"fast\" is not a duration; write for example 100ms"},
    {TEXT("sampling: {interval: 1h30m}"),
     "1:22: sampling.interval: \"1h30m\" is not a duration: its unit would be \"h30m\"; write one "
     "number and ns, us, ms, s, m or h, for example 100ms"},
    {TEXT("sampling: {interval: 0.3ns}"),
     "1:22: sampling.interval: \"0.3ns\" is not a whole number of nanoseconds"},
    {TEXT("sampling: {interval: 999us}"),
     "1:22: sampling.interval: \"999us\" is too small; write 1ms to 1h"},
    {TEXT("sampling: {interval: 3601s}"),
     "1:22: sampling.interval: \"3601s\" is too large; write 1ms to 1h"},
    {TEXT("sampling: {interval: 0s}"), "1:22: sampling.interval: \"0s\" is too small"},
    {TEXT("sampling: {interval: 9999999999h}"),
     "1:22: sampling.interval: \"9999999999h\" is too large"},
    {TEXT("sampling: {interval: -1s}"), "1:22: sampling.interval: \"-1s\" is not a duration"},
    {TEXT("sampling: {interval: off}"), "1:22: sampling.interval: \"off\" is not a duration"},
    {TEXT("scheduler: {interval: 1ms}"),
     "1:23: scheduler.interval: \"1ms\" is too small; write 10ms to 1h, or off"},
    {TEXT("scheduler: {interval: Off}"), "1:23: scheduler.interval: \"Off\" is not a duration"},
    {TEXT("discovery: {rescan: 99ms}"),
     "1:21: discovery.rescan: \"99ms\" is too small; write 100ms to 1h"},
    {TEXT("web: {timeout: 999ms}"), "1:16: web.timeout: \"999ms\" is too small; write 1s to 1h"},
    {TEXT("web: {max_requests: 0}"),
     "1:21: web.max_requests: \"0\" is too small; write 1 to 10000"},
    {TEXT("web: {max_requests: 10001}"), "1:21: web.max_requests: \"10001\" is too large"},
    {TEXT("web: {max_requests: 4294967336}"),
     "1:21: web.max_requests: \"4294967336\" is too large"},
    {TEXT("web: {max_requests: 18446744073709551656}"),
     "1:21: web.max_requests: \"18446744073709551656\" is too large"},
    {TEXT("web: {max_requests: 4e1}"),
     "1:21: web.max_requests: \"4e1\" is not a whole number; write for example 40"},
    {TEXT("limits: {max_vms: 010}"),
     "1:19: limits.max_vms: \"010\" begins with 0, which some read as octal"},
    {TEXT("limits: {max_vcpus_per_vm: 65537}"),
     "1:28: limits.max_vcpus_per_vm: \"65537\" is too large; write 1 to 65536"},
    {TEXT("recorder: {memory: 64MB}"),
     "1:20: recorder.memory: \"64MB\" is not a size: its unit would be \"MB\"; write one number "
     "and B, KiB, MiB, GiB or TiB, for example 64MiB"},
    {TEXT("recorder: {memory: 64}"),
     "1:20: recorder.memory: \"64\" has no unit; write for example 64MiB"},
    {TEXT("recorder: {memory: 512KiB}"),
     "1:20: recorder.memory: \"512KiB\" is too small; write 1MiB to 1TiB, or 0"},
    /* Choices. */
    {TEXT("metrics:\n  vcpu: yes\n"), "2:9: metrics.vcpu: \"yes\" is not a choice; write true"},
    {TEXT("metrics: {vcpu: Off}"), "1:17: metrics.vcpu: \"Off\" is not a choice; write false"},
    {TEXT("metrics: {vcpu: TRUE}"), "1:17: metrics.vcpu: \"TRUE\" is not a choice; write true"},
    {TEXT("metrics: {vcpu: maybe}"),
     "1:17: metrics.vcpu: \"maybe\" is not a choice; write false or true"},
    {TEXT("metrics: {histograms: vcpus}"),
     "1:23: metrics.histograms: \"vcpus\" is not a choice; write vcpu, vm or off (did you mean "
     "vcpu?)"},
    {TEXT("bursts: {scope: off}"), "1:17: bursts.scope: \"off\" is not a choice; write vm or vcpu"},
    {TEXT("discovery: {unsafe_kernel: true}"),
     "1:28: discovery.unsafe_kernel: \"true\" is not a choice; write refuse or allow"},
    {TEXT("log: {level: warning}"),
     "1:14: log.level: \"warning\" is not a choice; write error, warn, info or debug"},
    {TEXT("discovery:\n  sources: [handoff, statfd]\n"),
     "2:22: discovery.sources: \"statfd\" is not a choice; write handoff, statsfd or bpf (did you "
     "mean statsfd?)"},
    {TEXT("discovery: {sources: [bpf, statsfd, bpf]}"),
     "1:37: discovery.sources: \"bpf\" stands here twice; write it once"},
    {TEXT("discovery: {sources: [bpf, statsfd, handoff, bpf]}"),
     "1:46: discovery.sources: \"bpf\" stands here twice"},
    {TEXT("recorder: {dump_on: [signal, signal]}"),
     "1:30: recorder.dump_on: \"signal\" stands here twice"},
    {TEXT("recorder: {dump_on: [sigusr1]}"),
     "1:22: recorder.dump_on: \"sigusr1\" is not a choice; write vmm_killed or signal"},
    /* Lists. */
    {TEXT("discovery: {sources: []}"),
     "1:22: discovery.sources: an empty list; write for example [statsfd]"},
    {TEXT("web: {listen: []}"), "1:15: web.listen: an empty list"},
    {TEXT("metrics:\n  include:\n    []\n"), "3:5: metrics.include: an empty list"},
    {TEXT("web:\n  listen: \"127.0.0.1:1\"\n"),
     "2:11: web.listen: a list belongs here; write for example [\"127.0.0.1:10177\"]"},
    {TEXT("metrics:\n  exclude:\n  vcpu: true\n"),
     "2:3: metrics.exclude: a list belongs here; write for example [\"halt_*\"], or [] for none"},
    {TEXT("sampling: {cpu_affinity: [0, 1024]}"),
     "1:30: sampling.cpu_affinity: \"1024\" is too large; write 0 to 1023"},
    {TEXT("sampling: {cpu_affinity: [2, 0, 2]}"),
     "1:33: sampling.cpu_affinity: \"2\" stands here twice"},
    {TEXT("sampling: {cpu_affinity: [0-3]}"),
     "1:27: sampling.cpu_affinity: \"0-3\" is not a whole number"},
    {TEXT("sampling: {cpu_affinity: [[0]]}"),
     "1:27: sampling.cpu_affinity: one value belongs here, not a list or a section"},
    {TEXT("bursts: {windows: [60s, 1m]}"), "1:25: bursts.windows: \"1m\" stands here twice"},
    {TEXT("bursts: {windows: [999ms]}"),
     "1:20: bursts.windows: \"999ms\" is too small; write 1s to 1h"},
    {TEXT("bursts: {windows: [1s,2s,3s,4s,5s,6s,7s,8s,9s]}"),
     "1:44: bursts.windows: too many items; write at most 8"},
    {TEXT("metrics: {include: [\"\"]}"),
     "1:21: metrics.include: an empty glob matches no statistic"},
    {TEXT("metrics: {include: ['exits\\']}"),
     "1:21: metrics.include: the glob \"exits\\\\\" ends in a lone \\"},
    {TEXT("metrics: {include: [null]}"),
     "1:21: metrics.include: a value is missing; write for example \"*\", or \"null\" for that"},
    {TEXT("metrics: {include: [a, b, a]}"), "1:27: metrics.include: \"a\" stands here twice"},
    {TEXT("handoff: {allow_users: [\"\"]}"), "1:25: handoff.allow_users: \"\" cannot be a user"},
    {TEXT("handoff: {allow_users: [4294967295]}"),
     "1:25: handoff.allow_users: \"4294967295\" is too large for a uid"},
    {TEXT("web: {listen: [\":1\", \"::1\"]}"),
     "1:22: web.listen: \"::1\" has too many colons; write an IPv6 address in brackets"},
    {TEXT("web: {listen: [\":1\", \":1\"]}"), "1:22: web.listen: \":1\" stands here twice"},
    /* Paths. */
    {TEXT("handoff: {socket: handoff.sock}"),
     "1:19: handoff.socket: \"handoff.sock\" is not an absolute path; write for example "
     "/run/kvmstatd/handoff.sock"},
    {TEXT("handoff: {socket: \"\"}"), "1:19: handoff.socket: \"\" is not an absolute path"},
    {TEXT("handoff: {socket: /23456789012345678901234567890123456789012345678901234567890123456789"
          "012345678901234567890123456789012345678}"),
     "1:19: handoff.socket: \"/23456789012345678901234567890123456789012345678...\" has 108 bytes; "
     "write a path of at most 107"},
    {TEXT("recorder: {directory: dumps}"),
     "1:23: recorder.directory: \"dumps\" is not an absolute"},
    {TEXT("web: {config_file: web.yaml}"),
     "1:20: web.config_file: \"web.yaml\" is not an absolute"},
    /* Keys. */
    {TEXT("sampling:\n  intervall: 1s\n"),
     "2:3: sampling: there is no key \"intervall\"; did you mean interval?"},
    {TEXT("Sampling: {}"), "1:1: there is no key \"Sampling\"; did you mean sampling?"},
    {TEXT("# x\nprocessors: {}"),
     "2:1: there is no key \"processors\"; write sampling, discovery, handoff, metrics, bursts, "
     "scheduler, recorder, web, limits or log"},
    {TEXT("sampling: {rules: [{match: {name: x}}]}"),
     "1:29: sampling.rules.match: there is no key \"name\"; write vm, uuid, vmm or unit"},
    {TEXT("\"\\x1b[2J\": 1"), "1:1: a text with the control character \\x1b"},
    {TEXT("caf\xc3\xa9: 1"), "1:1: there is no key \"caf\\xc3\\xa9\""},
    {TEXT("log:\n  level: info\nweb: {}\nlog:\n  level: warn\n"),
     "4:1: log: the key stands here twice, first on line 1; write it once"},
    {TEXT("web:\n  timeout: 1s\n  max_requests: 1\n  timeout: 1s\n"),
     "4:3: web.timeout: the key stands here twice, first on line 2"},
    {TEXT("sampling:\n  rules:\n  - match: {vm: a, vm: b}\n"),
     "3:20: sampling.rules.match.vm: the key stands here twice, first on line 3"},
    {TEXT("? [a]\n: b\n"), "1:3: a key must be a word"},
    {TEXT("? {a: b}\n: b\n"), "1:3: a key must be a word"},
    {TEXT("<<: {}\n"), "1:1: there is no key \"<<\""},
    {TEXT(": x\n"), "1:1: not valid YAML: did not find expected key"},
    {TEXT("\"\": x\n"), "1:1: there is no key \"\""},
    /* Kinds. */
    {TEXT("- sampling\n"), "1:1: keys belong here; write for example sampling: {interval: 100ms}"},
    {TEXT("sampling\n"), "1:1: keys belong here"},
    {TEXT("sampling: 100ms\n"),
     "1:11: sampling: keys belong here; write for example sampling: {interval: 100ms}"},
    {TEXT("web: [a]\n"), "1:6: web: keys belong here"},
    {TEXT("sampling: {interval: [1s]}"), "1:22: sampling.interval: one value belongs here"},
    {TEXT("sampling: {interval: {s: 1}}"), "1:22: sampling.interval: one value belongs here"},
    {TEXT("sampling:\n  interval:\n  rules: []\n"),
     "2:3: sampling.interval: a value is missing; write for example 100ms, or leave the key out"},
    {TEXT("sampling: {interval: ~}"), "1:22: sampling.interval: a value is missing"},
    {TEXT("sampling: {interval: \"\"}"), "1:22: sampling.interval: \"\" is not a duration"},
    /* Rules. */
    {TEXT("sampling: {rules: {}}"),
     "1:19: sampling.rules: a list belongs here; write for example [{match: {vm: \"db-*\"}, "
     "interval: 20ms}], or [] for none"},
    {TEXT("sampling: {rules: [a]}"), "1:20: sampling.rules: a rule belongs here"},
    {TEXT("sampling:\n  rules:\n    - match: {vm: a}\n"),
     "3:7: sampling.rules: the rule changes nothing; write interval: 20ms or enabled: false"},
    {TEXT("sampling:\n  rules:\n    - interval: 1s\n"),
     "3:7: sampling.rules: the rule does not say which VMs it is for"},
    {TEXT("sampling:\n  rules:\n    - match: {}\n      interval: 1s\n"),
     "3:7: sampling.rules: the rule does not say which VMs it is for"},
    {TEXT("sampling:\n  rules:\n    - match: {vm: a}\n      interval: 1\n"),
     "4:17: sampling.rules.interval: \"1\" has no unit; write for example 20ms"},
    {TEXT("sampling:\n  rules:\n    - match: {vm: a}\n      enabled: no\n"),
     "4:16: sampling.rules.enabled: \"no\" is not a choice; write false"},
    {TEXT("sampling:\n  rules:\n    - match: web-*\n      enabled: false\n"),
     "3:14: sampling.rules.match: keys belong here; write for example match: {vm: \"db-*\"}"},
    {TEXT("sampling:\n  rules:\n    - match: {vm: }\n      enabled: false\n"),
     "3:15: sampling.rules.match.vm: a value is missing"},
    {TEXT("sampling:\n  rules:\n    - match: {vm: \"a\\0b\"}\n"),
     "3:19: a text with the control character \\x00"},
    /* YAML that has no use here. */
    {TEXT("sampling:\n  rules:\n    - match: {unit: *.service}\n"),
     "3:21: * begins an alias in YAML; write a glob that begins with it in quotes"},
    {TEXT("metrics: {include: [*]}"), "1:21: * begins an alias in YAML"},
    {TEXT("metrics: {include: [*exits]}"), "1:21: anchors and aliases (& and *) are not taken"},
    {TEXT("log: &a {level: info}\n"), "1:6: anchors and aliases"},
    {TEXT("log: {level: &a info}\n"), "1:14: anchors and aliases"},
    {TEXT("&a log: {level: info}\n"), "1:1: anchors and aliases"},
    {TEXT("metrics: {include: &a [*a]}"), "1:20: anchors and aliases"},
    {TEXT("&a {log: *a}"), "1:1: anchors and aliases"},
    {TEXT("log: {level: !!str info}\n"), "1:14: the tag \"tag:yaml.org,2002:str\" is not taken"},
    {TEXT("web: {max_requests: !!int 4}\n"), "1:21: the tag"},
    {TEXT("log: !x {level: info}\n"), "1:6: the tag \"!x\" is not taken"},
    {TEXT("web: {listen: !x [\":1\"]}\n"), "1:15: the tag \"!x\" is not taken"},
    {TEXT("%YAML 1.1\n---\nlog: {}\n"), "1:1: directives (lines that begin with %) are not taken"},
    {TEXT("# \xc3\xa9\n%TAG ! x\n---\n"), "2:1: directives"},
    {TEXT("log: {}\n---\nlog: {}\n"), "2:1: a second document begins here; write all in one"},
    {TEXT("log: {}\n...\n---\nweb: {}\n"), "3:1: a second document begins here"},
    {TEXT("handoff:\n  socket: |\n    /run/x\n"), "2:11: a text with the control character \\x0a"},
    {TEXT("handoff:\n  socket: \"/run\\x7f\"\n"), "2:11: a text with the control character \\x7f"},
    /* What is not YAML. */
    {TEXT("sampling:\n\tinterval: 1s\n"), "2:1: a tab where YAML allows none; indent with spaces"},
    {TEXT("# caf\xc3\xa9\nsampling:\n\tinterval: 1s\n"), "3:1: a tab where YAML allows none"},
    {TEXT("sampling: {interval: 1s\n"), "2:1: not valid YAML: did not find expected ',' or '}'"},
    {TEXT("web:\n  config_file: \"x\n"), "3:1: not valid YAML: found unexpected end of stream"},
    {TEXT("sampling:\n  interval: 1s\n rules: []\n"), "3:2: not valid YAML"},
    {TEXT("sampling: interval: 1s\n"),
     "1:11: sampling: keys belong here; write for example sampling: {interval: 100ms}"},
    {TEXT("log: @x\n"), "1:6: not valid YAML: found character that cannot start any token"},
    {TEXT("log: {}\n}\n"), "2:1: not valid YAML"},
    {TEXT("log:\n  level: in\0fo\n"),
     "2:12: control characters are not allowed; write the file in UTF-8, without control"},
    {TEXT("log:\n  level: in\x1b"
          "fo\n"),
     "2:12: control characters are not allowed"},
    {TEXT("\0"), "1:1: control characters are not allowed"},
    {TEXT("# caf\xe9\n"), "1:6: incomplete UTF-8 octet sequence; write the file in UTF-8"},
    {TEXT("# caf\xe9 au lait\n"), "1:7: invalid trailing UTF-8 octet; write the file in UTF-8"},
    {TEXT("# \xc3\xa9\xff\n"), "1:4: invalid leading UTF-8 octet"},
    {TEXT("# \xc0\xaf\n"), "1:3: invalid length of a UTF-8 sequence"},
    {TEXT("# \xed\xa0\x80\n"), "1:3: invalid Unicode character"},
    {TEXT("log: {} # \xc3"), "1:11: incomplete UTF-8 octet sequence"},
    {TEXT("\xff\xfel\0o\0g\0:\0"), "1:1: invalid leading UTF-8 octet"},
};

START_TEST(refused)
{
    struct config *config = NULL;
    struct config_error error = {{0}};
    /* Exactly as large as the text, so that a read past its end is seen by the address sanitizer.
     */
    char *copy = malloc(bad[_i].len);
    memcpy(copy, bad[_i].text, bad[_i].len);
    int r = config_parse("f.yaml", copy, bad[_i].len, &config, &error);
    free(copy);
    ck_assert_msg(r == -EINVAL, "taken: %s", bad[_i].text);
    ck_assert_ptr_null(config);

    char want[512];
    snprintf(want, sizeof want, "f.yaml:%s", bad[_i].want);
    ck_assert_msg(strncmp(error.message, want, strlen(want)) == 0, "\n got %s\nwant %s",
                  error.message, want);
    ck_assert(is_printable_line(error.message));
    /* What is wrong, and what would be right. */
    ck_assert_msg(strchr(error.message, ';') != NULL, "%s", error.message);
}
END_TEST

/* `head`, then `item` n times with its # made 2, 3, 4 …, then `tail`. */
static char *many(const char *head, const char *item, size_t n, const char *tail)
{
    char *text = calloc(1, 1 << 18), *at = stpcpy(text, head);
    for (size_t i = 0; i < n; i++) {
        for (const char *c = item; *c; c++)
            at += *c == '#' ? sprintf(at, "%zu", i + 2) : sprintf(at, "%c", *c);
    }
    strcpy(at, tail);
    return text;
}

static const char one_rule[] = "  - {match: {vm: x}, interval: #ms}\n";

START_TEST(too_many_intervals)
{
    struct config *config = NULL;
    struct config_error error = {{0}};
    size_t most = CONFIG_INTERVALS_MAX - 1; /* sampling.interval is one more */

    char *text = many("sampling:\n  rules:\n", one_rule, most, "");
    strcat(text, "  - {match: {vm: y}, interval: 2ms}\n"
                 "  - {match: {vm: y}, interval: 100ms}\n"
                 "  - {match: {vm: y}, interval: 1h, enabled: false}\n");
    config_unref(config_of(text));
    free(text);

    text = many("sampling:\n  rules:\n", one_rule, most + 1, "  interval: 1s\n");
    ck_assert_int_eq(config_parse("f.yaml", text, strlen(text), &config, &error), -EINVAL);
    ck_assert_str_eq(error.message,
                     "f.yaml:34:32: sampling.rules: one interval too many; write at most 32 "
                     "different ones, sampling.interval among them");
    free(text);
}
END_TEST

START_TEST(too_many_items)
{
    static const struct {
        const char *head, *item;
        size_t most;
        const char *tail, *want;
    } lists[] = {
        {"sampling: {rules: [", "{match: {vm: x#}, enabled: false},", CONFIG_RULES_MAX, "]}",
         "sampling.rules: too many rules; write at most 1024"},
        {"metrics: {include: [", "g#,", 256, "]}", "metrics.include: too many items"},
        {"handoff: {allow_users: [", "#,", 64, "]}", "handoff.allow_users: too many items"},
        {"web: {listen: [", "\":#\",", 16, "]}", "web.listen: too many items"},
    };
    for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
        struct config *config = NULL;
        struct config_error error = {{0}};
        char *text = many(lists[i].head, lists[i].item, lists[i].most, lists[i].tail);
        config_unref(config_of(text));
        free(text);
        text = many(lists[i].head, lists[i].item, lists[i].most + 1, lists[i].tail);
        ck_assert_int_eq(config_parse("f.yaml", text, strlen(text), &config, &error), -EINVAL);
        ck_assert_msg(strstr(error.message, lists[i].want) != NULL, "%s", error.message);
        free(text);
    }
}
END_TEST

START_TEST(too_large)
{
    struct config *config = NULL;
    struct config_error error = {{0}};
    char *text = malloc(CONFIG_FILE_MAX_BYTES + 1);
    memset(text, '#', CONFIG_FILE_MAX_BYTES + 1);
    ck_assert_int_eq(config_parse("f.yaml", text, CONFIG_FILE_MAX_BYTES, &config, &error), 0);
    config_unref(config);
    ck_assert_int_eq(config_parse("f.yaml", text, CONFIG_FILE_MAX_BYTES + 1, &config, &error),
                     -EINVAL);
    ck_assert_str_eq(error.message, "f.yaml: larger than 1 MiB, which is no configuration; write "
                                    "at most 1048576 bytes");
    free(text);
}
END_TEST

/* Places stay right far behind the reader's buffers, and columns are characters, not bytes. */
START_TEST(far_away)
{
    static const char line[] = "# \xc3\xa9\xe2\x82\xac\n";
    static const struct {
        const char *end, *want;
    } ends[] = {
        {"# \xe2\x82\xac\x01", "f.yaml:20001:4: control characters"},
        {"log: {\xe2\x82\xac: 1}", "f.yaml:20001:7: log: there is no key"},
        {"log:\n\tlevel: info", "f.yaml:20002:1: a tab"},
        {"%YAML 1.1", "f.yaml:20001:1: directives"},
    };
    for (size_t i = 0; i < ARRAY_LEN(ends); i++) {
        struct config *config = NULL;
        struct config_error error = {{0}};
        char *text = calloc(20001, sizeof line + 16), *at = text;
        for (size_t n = 0; n < 20000; n++)
            at = stpcpy(at, line);
        strcpy(at, ends[i].end);
        ck_assert_int_eq(config_parse("f.yaml", text, strlen(text), &config, &error), -EINVAL);
        ck_assert_msg(strncmp(error.message, ends[i].want, strlen(ends[i].want)) == 0, "%s",
                      error.message);
        free(text);
    }
}
END_TEST

/*
 * The largest files of one token after another. Without the bounds that refuse them where they
 * begin they would take minutes, which the test's time limit would end.
 */
START_TEST(monsters)
{
    static const char *const tokens[] = {"[",   "{",        "? ",      "- ",  "a: ",        "!",
                                         "&a ", "%TAG !a ", "\"",      "*a ", "|\n",        "\t",
                                         ",",   "--- ",     "\n---\n", "'",   "%TAG ! a\n", "[a: "};
    char *text = malloc(CONFIG_FILE_MAX_BYTES);
    for (size_t i = 0; i < ARRAY_LEN(tokens); i++) {
        struct config *config = NULL;
        struct config_error error = {{0}};
        size_t width = strlen(tokens[i]);
        for (size_t at = 0; at < CONFIG_FILE_MAX_BYTES; at++)
            text[at] = tokens[i][at % width];
        int r = config_parse("f.yaml", text, CONFIG_FILE_MAX_BYTES, &config, &error);
        ck_assert_msg(r == -EINVAL, "%s", tokens[i]);
        ck_assert(is_printable_line(error.message));
    }
    free(text);
}
END_TEST

/* 1 MiB of different directives, which libyaml would compare each with all before it. */
START_TEST(directives)
{
    struct config *config = NULL;
    struct config_error error = {{0}};
    char *text = malloc(CONFIG_FILE_MAX_BYTES);
    size_t len = (size_t)sprintf(text, "# first a line that is none\r");
    for (unsigned i = 0; len + 32 < CONFIG_FILE_MAX_BYTES; i++)
        len += (size_t)sprintf(text + len, "%%TAG !%x! x\r", i);
    ck_assert_int_eq(config_parse("f.yaml", text, len, &config, &error), -EINVAL);
    ck_assert_ptr_nonnull(strstr(error.message, "directives"));
    free(text);
}
END_TEST

START_TEST(name_of_file)
{
    struct config *config = NULL;
    struct config_error error = {{0}};
    ck_assert_int_eq(config_parse("a\n\x1b\"b", "x", 1, &config, &error), -EINVAL);
    ck_assert_ptr_nonnull(strstr(error.message, "a\\x0a\\x1b\\\"b:1:1: "));

    char name[4096];
    memset(name, 'd', sizeof name);
    strcpy(name + sizeof name - 8, "/f.yaml");
    ck_assert_int_eq(config_parse(name, "x", 1, &config, &error), -EINVAL);
    ck_assert_int_eq(strncmp(error.message, "...ddd", 6), 0);
    ck_assert_ptr_nonnull(strstr(error.message, "d/f.yaml:1:1: keys belong here; write"));

    memset(name, '\xff', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    ck_assert_int_eq(config_parse(name, "x", 1, &config, &error), -EINVAL);
    ck_assert(is_printable_line(error.message));
    ck_assert_ptr_nonnull(strstr(error.message, ":1:1: keys belong here"));
}
END_TEST

/* Whatever a byte of the default file becomes: an answer, and a message that is one line. */
START_TEST(mutations)
{
    char *original = default_file();
    size_t len = strlen(original), refusals = 0;
    static const char odd[] = "\0\t\n\"'%&*,-:?[]{}|>#!~0\x1b\x80\xff\xc3";
    for (size_t i = 0; i < 3000; i++) {
        struct config *config = NULL;
        struct config_error error = {{0}};
        char *copy = malloc(len);
        memcpy(copy, original, len);
        for (size_t n = 1 + testing_random_below(3); n > 0; n--)
            copy[testing_random_below(len)] = odd[testing_random_below(sizeof odd - 1)];
        int r = config_parse("f.yaml", copy, len, &config, &error);
        if (r < 0) {
            ck_assert_int_eq(r, -EINVAL);
            ck_assert(is_printable_line(error.message));
            ck_assert_int_eq(strncmp(error.message, "f.yaml:", 7), 0);
            refusals++;
        }
        config_unref(config);
        free(copy);
    }
    ck_assert_uint_gt(refusals, 0);
    free(original);
}
END_TEST

Suite *suite_refused(void)
{
    Suite *suite = suite_create("refused");
    TCase *tc = tcase_create("refused");
    tcase_set_timeout(tc, 30);
    tcase_add_loop_test(tc, refused, 0, ARRAY_LEN(bad));
    tcase_add_test(tc, too_many_intervals);
    tcase_add_test(tc, too_many_items);
    tcase_add_test(tc, too_large);
    tcase_add_test(tc, far_away);
    tcase_add_test(tc, monsters);
    tcase_add_test(tc, directives);
    tcase_add_test(tc, name_of_file);
    tcase_add_test(tc, mutations);
    suite_add_tcase(suite, tc);
    return suite;
}
