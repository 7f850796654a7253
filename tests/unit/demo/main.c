/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line of the demo VM: what is refused, and that what a launcher hands on is what it
 * was given.
 */
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "guest.h"
#include "load.h"
#include "options.h"
#include "testing.h"

#define MAX_WORDS 40

static enum options_result parse_words(char **argv, struct options *ret)
{
    int argc = 0;
    while (argv[argc])
        argc++;
    optind = 0; /* getopt_long() starts anew */
    opterr = 0;
    return options_parse(argc, argv, ret);
}

/* Parses words of one line, separated by single spaces. The words live until the next call. */
static enum options_result parse(const char *line, struct options *ret)
{
    static char text[1024];
    char *argv[MAX_WORDS] = {text};
    (void)snprintf(text, sizeof text, "%s", line);
    size_t n = 0;
    char *rest = text;
    for (char *word; (word = strsep(&rest, " "));)
        argv[n++] = word;
    return parse_words(argv, ret);
}

START_TEST(test_defaults)
{
    struct options options;
    ck_assert_int_eq(parse("demo", &options), OPTIONS_RUN);
    ck_assert_ptr_null(options.name);
    ck_assert_str_eq(options.load->name, "mix");
    ck_assert(options.keep_stats_fds);
    ck_assert_uint_eq(options.vcpus, 1);
    ck_assert_uint_eq(options.vms, 1);
    ck_assert_uint_eq(options.fds, 0);
    ck_assert_uint_eq(options.rate, 1000);
    ck_assert_uint_eq(options.rounds, 0);
}
END_TEST

static const char *const wrong[] = {
    "demo --vcpus 0",
    "demo --vcpus 513",
    "demo --vcpus -1",
    "demo --vcpus 1x",
    "demo --vcpus ",
    "demo --vcpus +1",
    "demo --vms 0",
    "demo --rate 1000001",
    "demo --fds 1e3",
    "demo --rounds 4294967296",
    "demo --burst-every 7",
    "demo --burst-every s",
    "demo --burst-every 7m",
    "demo --burst-every 3601s",
    "demo --burst-every 18446744073709552s",
    "demo --burst-ms 100ms",
    "demo --burst-exits 0",
    "demo --load nap",
    "demo --load ",
    "demo --stats-fds all",
    "demo --name ",
    "demo --name a\tb",
    "demo --name a\nb",
    "demo --name",
    "demo --unknown",
    "demo what",
    "demo --fds 0x10",
    "demo --vcpus 99999999999999999999",
};

START_TEST(test_wrong_is_refused)
{
    struct options options = {.rate = 77};
    ck_assert_ptr_nonnull(freopen("/dev/null", "w", stderr)); /* what is wrong is said there */
    ck_assert_msg(parse(wrong[_i], &options) == OPTIONS_USAGE, "taken: %s", wrong[_i]);
    ck_assert_uint_eq(options.rate, 77);
}
END_TEST

START_TEST(test_name_has_a_bound)
{
    char line[300] = "demo --name ";
    struct options options;
    ck_assert_ptr_nonnull(freopen("/dev/null", "w", stderr));
    size_t at = strlen(line);
    memset(line + at, 'x', OPTIONS_NAME_MAX + 1);
    line[at + OPTIONS_NAME_MAX + 1] = '\0';
    ck_assert_int_eq(parse(line, &options), OPTIONS_USAGE);
    line[at + OPTIONS_NAME_MAX] = '\0';
    ck_assert_int_eq(parse(line, &options), OPTIONS_RUN);
}
END_TEST

START_TEST(test_handed_on_unchanged)
{
    for (int i = 0; i < 200; i++) {
        struct options given = {
            .name = testing_random_below(4) ? "a name, \"with\" \xff bytes" : NULL,
            .load = load_at(testing_random_below(load_count())),
            .keep_stats_fds = testing_random_below(2),
            .vcpus = 1 + testing_random_below(GUEST_MAX_VCPUS),
            .vms = 1 + testing_random_below(100000),
            .fds = testing_random_below(1000001),
            .rate = testing_random_below(1000001),
            .rounds = testing_random_below(UINT64_C(1) << 32),
            .burst_ms = 1 + testing_random_below(60000),
            .burst_every_ms = 1 + testing_random_below(3600000),
            .burst_exits = 1 + testing_random_below(100000000),
        };
        struct options_argv line;
        struct options parsed;
        options_to_argv(&given, "demo", &line);
        ck_assert_int_eq(parse_words(line.argv, &parsed), OPTIONS_RUN);
        if (given.name)
            ck_assert_str_eq(parsed.name, given.name);
        else
            ck_assert_ptr_null(parsed.name);
        ck_assert_ptr_eq(parsed.load, given.load);
        ck_assert_int_eq(parsed.keep_stats_fds, given.keep_stats_fds);
        ck_assert_uint_eq(parsed.vcpus, given.vcpus);
        ck_assert_uint_eq(parsed.vms, given.vms);
        ck_assert_uint_eq(parsed.fds, given.fds);
        ck_assert_uint_eq(parsed.rate, given.rate);
        ck_assert_uint_eq(parsed.rounds, given.rounds);
        ck_assert_uint_eq(parsed.burst_ms, given.burst_ms);
        ck_assert_uint_eq(parsed.burst_every_ms, given.burst_every_ms);
        ck_assert_uint_eq(parsed.burst_exits, given.burst_exits);
    }
}
END_TEST

/* Deadlines stand in a fixed grid, but what is late is not made up. */
START_TEST(test_pacer_keeps_its_grid)
{
    struct options options = {.rate = 1000};
    struct pacer pacer;
    options.load = load_find("io");
    pacer_init(&pacer, &options, 0);
    ck_assert_int_eq(pacer.period_ns, NSEC_PER_MSEC);
    pacer.deadline_ns = clock_now_ns() + NSEC_PER_MSEC;
    int64_t planned_ns = pacer.deadline_ns + NSEC_PER_MSEC;
    pacer_wait(&pacer);
    ck_assert_int_ge(clock_now_ns(), planned_ns);
    ck_assert_int_ge(pacer.deadline_ns, planned_ns);

    int64_t before_ns = clock_now_ns();
    pacer.deadline_ns = before_ns - NSEC_PER_SEC;
    pacer_wait(&pacer);
    ck_assert_int_ge(pacer.deadline_ns, before_ns);

    options.rate = 0;
    options.load = load_find("mmio");
    pacer_init(&pacer, &options, 0);
    ck_assert_int_eq(pacer.period_ns, 0);
}
END_TEST

START_TEST(test_durations_have_units)
{
    struct options options;
    ck_assert_int_eq(parse("demo --burst-every 7s", &options), OPTIONS_RUN);
    ck_assert_uint_eq(options.burst_every_ms, 7000);
    ck_assert_int_eq(parse("demo --burst-every 700ms", &options), OPTIONS_RUN);
    ck_assert_uint_eq(options.burst_every_ms, 700);
}
END_TEST

/* A burst has the exits it should, and what it was is told when it is over. */
START_TEST(test_burst_is_what_it_says)
{
    struct options options = {
        .name = "a \"b\"",
        .load = load_find("burst"),
        .burst_ms = 20,
        .burst_every_ms = 50,
        .burst_exits = 100,
    };
    struct pacer pacer;
    char said[512] = "";
    unsigned vcpu;
    unsigned long long exits;
    long long start_ns, took_ns;
    FILE *file = tmpfile();
    ck_assert_ptr_nonnull(file);
    ck_assert_int_ge(dup2(fileno(file), STDOUT_FILENO), 0); /* each test is a process of its own */
    pacer_init(&pacer, &options, 3);
    pacer_wait(&pacer); /* up to the first burst */
    int64_t before_ns = clock_now_ns();
    for (int i = 0; i < 100; i++) {
        ck_assert_uint_eq(pacer.made, (uint64_t)i);
        pacer_wait(&pacer);
    }
    ck_assert_uint_eq(pacer.made, 0); /* and now the next one begins */
    (void)fflush(stdout);
    rewind(file);
    ck_assert_ptr_nonnull(fgets(said, sizeof said, file));
    ck_assert_int_eq(sscanf(said,
                            "burst {\"vm\": \"a \\\"b\\\"\", \"vcpu\": %u, \"exits\": %llu, "
                            "\"start_monotonic_ns\": %lld, \"start_seconds\": %*[0-9.], "
                            "\"duration_ns\": %lld}",
                            &vcpu, &exits, &start_ns, &took_ns),
                     4);
    ck_assert_uint_eq(vcpu, 3);
    ck_assert_uint_eq(exits, 100);
    ck_assert_int_le(start_ns, before_ns);
    ck_assert_int_ge(took_ns, 99 * options.burst_ms * NSEC_PER_MSEC / 100 - 200000);
}
END_TEST

START_TEST(test_guest_memory_is_small)
{
    ck_assert_uint_le(guest_memory_size(GUEST_MAX_VCPUS), 64 * 1024);
    ck_assert_uint_eq(guest_memory_size(4) % 4096, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("demo");
    TCase *tcase = tcase_create("demo");
    tcase_add_test(tcase, test_defaults);
    tcase_add_loop_test(tcase, test_wrong_is_refused, 0, sizeof wrong / sizeof wrong[0]);
    tcase_add_test(tcase, test_name_has_a_bound);
    tcase_add_test(tcase, test_handed_on_unchanged);
    tcase_add_test(tcase, test_pacer_keeps_its_grid);
    tcase_add_test(tcase, test_durations_have_units);
    tcase_add_test(tcase, test_burst_is_what_it_says);
    tcase_add_test(tcase, test_guest_memory_is_small);
    suite_add_tcase(suite, tcase);
    return testing_run(suite, NULL);
}
