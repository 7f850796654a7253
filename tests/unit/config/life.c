/* SPDX-License-Identifier: Apache-2.0 */
/* References, comparing, and what others ask of a configuration. */
#include <pthread.h>

#include "clock.h"
#include "suites.h"

START_TEST(references)
{
    struct config *config = config_of("");
    ck_assert_ptr_eq(config_ref(config), config);
    config_unref(config);
    ck_assert_str_eq(config->web.listen.items[0], "127.0.0.1:10177");
    config_unref(config);
    config_unref(NULL);
}
END_TEST

static void *ref_and_unref(void *config)
{
    for (int i = 0; i < 10000; i++)
        config_unref(config_ref(config));
    config_unref(config);
    return NULL;
}

/* The last of several threads frees it; the sanitizers would see too early, twice or never. */
START_TEST(references_of_threads)
{
    pthread_t threads[4];
    struct config *config = config_of("");
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, ref_and_unref, config_ref(config)), 0);
    config_unref(config);
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
}
END_TEST

static const struct {
    const char *a, *b;
    bool equal;
} pairs[] = {
    {"sampling: {interval: 1s}", "sampling: {interval: 1000ms}", true},
    {"sampling: {cpu_affinity: [0, 1]}", "sampling: {cpu_affinity: [1, 0]}", true},
    {"sampling: {cpu_affinity: [0, 1]}", "sampling: {cpu_affinity: [0, 2]}", false},
    {"sampling: {cpu_affinity: [0]}", "sampling: {cpu_affinity: [0, 1]}", false},
    {"discovery: {sources: [bpf, statsfd]}", "discovery: {sources: [statsfd, bpf]}", false},
    {"discovery: {sources: [handoff]}", "discovery: {sources: [handoff, statsfd]}", false},
    {"recorder: {dump_on: [signal]}", "recorder: {dump_on: [vmm_killed]}", false},
    {"bursts: {windows: [1s]}", "bursts: {windows: []}", false},
    {"metrics: {include: [a]}", "metrics: {include: [b]}", false},
    {"metrics: {include: [a]}", "metrics: {include: [a, b]}", false},
    {"web: {config_file: /a}", "web: {config_file: /b}", false},
    {"web: {config_file: /a}", "web: {config_file: '/a'}", true},
    {"sampling: {rules: [{match: {vm: a}, enabled: true}]}",
     "sampling: {rules: [{enabled: true, match: {vm: 'a'}}]}", true},
    {"sampling: {rules: [{match: {vm: a}, enabled: true}]}",
     "sampling: {rules: [{match: {unit: a}, enabled: true}]}", false},
    {"sampling: {rules: [{match: {vm: a}, enabled: true}]}",
     "sampling: {rules: [{match: {vm: a}, enabled: false}]}", false},
    {"sampling: {rules: [{match: {vm: a}, interval: 1s}]}",
     "sampling: {rules: [{match: {vm: a}, interval: 2s}]}", false},
    {"sampling: {rules: [{match: {vm: a}, interval: 1s}]}", "", false},
};

START_TEST(equality)
{
    struct config *a = config_of(pairs[_i].a), *b = config_of(pairs[_i].b);
    ck_assert_msg(config_equal(a, b) == pairs[_i].equal, "%s / %s", pairs[_i].a, pairs[_i].b);
    ck_assert(config_equal(b, a) == pairs[_i].equal);
    ck_assert(config_equal(a, a) && config_equal(b, b));
    config_unref(a);
    config_unref(b);
}
END_TEST

START_TEST(match)
{
    static const struct {
        const char *vm, *uuid, *vmm, *unit;
        bool enabled;
        int64_t ms;
    } cases[] = {
        {"db-1", "", "qemu-system-x86_64", "", true, 20},
        {"db-1", "", "crosvm", "", true, 100}, /* all globs of a match must fit */
        {"db-", "", "qemu", "", true, 20},
        {"xdb-1", "", "qemu", "", true, 100}, /* a glob is about the whole name */
        {"DB-1", "", "qemu", "", true, 100},
        {"ci-7", "", "", "", false, 100},
        {"ci-10", "", "", "", true, 50}, /* ? is one; the next rule takes it */
        {"ci-10", "", "", "a.slice/b.scope", true, 50},
        {"ci-7", "4c4c", "", "", false, 100}, /* the first that fits */
        {"web", "4c4c", "", "a.slice/b.service", true, 500},
        {"", "", "", "", true, 100},
        {"[x]", "", "", "", true, 7},
        {"x", "", "", "", true, 100},
        {"only-unit", "", "", "", false, 9},
        {"only-unit", "", "", "u", true, 100},
    };
    struct config *c = config_of("sampling:\n"
                                 "  rules:\n"
                                 "  - {match: {vm: db-*, vmm: qemu*}, interval: 20ms}\n"
                                 "  - {match: {vm: 'ci-?'}, enabled: false}\n"
                                 "  - {match: {vm: ci-*}, interval: 50ms, enabled: true}\n"
                                 "  - {match: {uuid: 4c*, unit: '*.service'}, interval: 500ms}\n"
                                 "  - {match: {vm: '\\[x]'}, interval: 7ms}\n"
                                 "  - {match: {vm: only-unit, unit: ''}, interval: 9ms,\n"
                                 "     enabled: false}\n");
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct config_verdict v =
            config_match(c, cases[i].vm, cases[i].uuid, cases[i].vmm, cases[i].unit);
        ck_assert_msg(v.enabled == cases[i].enabled, "%s", cases[i].vm);
        ck_assert_msg(v.interval_ns == cases[i].ms * NSEC_PER_MSEC, "%s: %lld", cases[i].vm,
                      (long long)v.interval_ns);
    }
    config_unref(c);
}
END_TEST

START_TEST(wants_stat)
{
    struct config *c = config_of("");
    ck_assert(config_wants_stat(c, "exits") && config_wants_stat(c, "anything_new"));
    config_unref(c);

    c = config_of("metrics: {include: [halt_*, exits], exclude: ['*_hist', halt_exits]}");
    ck_assert(config_wants_stat(c, "exits"));
    ck_assert(config_wants_stat(c, "halt_wait_ns"));
    ck_assert(!config_wants_stat(c, "halt_exits"));
    ck_assert(!config_wants_stat(c, "halt_wait_hist"));
    ck_assert(!config_wants_stat(c, "io_exits"));
    ck_assert(!config_wants_stat(c, ""));
    config_unref(c);
}
END_TEST

/* A name from outside, however long, does not make matching slow (the time limit would end it). */
START_TEST(match_hostile)
{
    static char name[1 << 16];
    char text[1300] = "sampling: {rules: [{enabled: false, match: {vm: \"";
    for (int i = 0; i < 500; i++)
        strcat(text, "*a");
    strcat(text, "b\"}}]}");
    struct config *c = config_of(text);
    memset(name, 'a', sizeof name - 1);
    ck_assert(config_match(c, name, "", "", "").enabled);
    config_unref(c);
}
END_TEST

START_TEST(set_listen)
{
    char first[] = ":1", second[] = "unix:/x";
    char *items[] = {first, second};
    struct config *c = config_of(""), *want = config_of("web: {listen: [':1', 'unix:/x']}");
    ck_assert_int_eq(config_set_listen(c, &(struct string_list){2, items}), 0);
    first[1] = '2'; /* copies */
    ck_assert(config_equal(c, want));
    ck_assert_int_eq(config_set_listen(c, &(struct string_list){1, items}), 0);
    ck_assert_uint_eq(c->web.listen.n, 1);
    ck_assert_str_eq(c->web.listen.items[0], ":2");
    config_unref(c);
    config_unref(want);
}
END_TEST

Suite *suite_life(void)
{
    Suite *suite = suite_create("life");
    TCase *tc = tcase_create("life");
    tcase_add_test(tc, references);
    tcase_add_test(tc, references_of_threads);
    tcase_add_loop_test(tc, equality, 0, ARRAY_LEN(pairs));
    tcase_add_test(tc, match);
    tcase_add_test(tc, wants_stat);
    tcase_add_test(tc, match_hostile);
    tcase_add_test(tc, set_listen);
    suite_add_tcase(suite, tc);
    return suite;
}
