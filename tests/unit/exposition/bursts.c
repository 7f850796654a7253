/* SPDX-License-Identifier: Apache-2.0 */
/* What is shown of what happened between two scrapes: names, numbers, and what is left out. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "burst_families.h"
#include "clock.h"
#include "shortest.h"
#include "stage.h"
#include "suites.h"

#define D(name, type, unit, exponent, size) STAGE_DESC(name, type, unit, exponent, size)

static const struct kvmstats_desc vcpu_descs[] = {
    D("exits", CUMULATIVE, NONE, 0, 1),    D("halt_wait_ns", CUMULATIVE, SECONDS, -9, 1),
    D("written", CUMULATIVE, BYTES, 0, 1), D("queue", INSTANT, BYTES, 0, 1),
    D("blocking", INSTANT, BOOLEAN, 0, 1), D("halt_wait_hist", LOG_HIST, SECONDS, -9, 4),
    D("pair", CUMULATIVE, NONE, 0, 2),
};

static unsigned wants_all(void *ctx, const char *name)
{
    (void)ctx;
    (void)name;
    return BURST_WANT_PEAK | BURST_WANT_DISTRIBUTION;
}

struct fixture {
    struct stage stage;
    struct layout *layout;
    struct burst_stats *stats;
    struct burst_set *set;
    struct exposition *exposition;
};

/* VM "web1" with two vCPUs; its set is of the vCPUs from `first` on, all together or one. */
static void fixture_init(struct fixture *f, int32_t vcpu)
{
    static const int64_t windows_ns[] = {15 * NSEC_PER_SEC, 1500 * NSEC_PER_MSEC,
                                         60 * NSEC_PER_SEC};
    struct vm_identity_spec spec = {
        .vm = "web1", .name = "", .uuid = "", .vmm = "", .machine = "", .unit = "", .pid = 1};
    stage_init(&f->stage);
    const struct schema *schema =
        stage_schema(&f->stage, SCOPE_VCPU, vcpu_descs, ARRAY_LEN(vcpu_descs));
    stage_vm_add(&f->stage, &spec, 0, NULL, schema, 2);
    f->layout = stage_layout(&f->stage, 0);
    ck_assert_int_eq(burst_stats_new(schema, windows_ns, ARRAY_LEN(windows_ns), &f->stats), 0);
    burst_stats_choose(f->stats, wants_all, NULL);
    ck_assert_int_eq(burst_set_new(f->stats, NULL, &f->set), 0);
    ck_assert_int_eq(bursts_new(1, &f->layout->vms[0].bursts), 0);
    f->layout->vms[0].bursts->parts[0] = (struct burst_part){
        .set = burst_set_ref(f->set),
        .first = vcpu < 0 ? 0 : (uint32_t)vcpu,
        .n = vcpu < 0 ? 2 : 1,
        .vcpu = vcpu,
        .scope = SCOPE_VCPU,
    };
    f->layout->vms[0].bursts->n_sets = 1;
    f->exposition = stage_exposition(&f->stage);
}

static void fixture_deinit(struct fixture *f)
{
    exposition_free(f->exposition);
    burst_set_unref(f->set);
    burst_stats_unref(f->stats);
    stage_deinit(&f->stage);
}

static void observe(struct fixture *f, const double rates[3], uint64_t level)
{
    static const uint8_t seen[] = {1, 1, 1};
    ck_assert_uint_eq(f->stats->n_rates, 3);
    ck_assert_uint_eq(f->stats->n_stats, 4);
    const struct burst_tick tick = {
        .now_ns = clock_now_ns(),
        .patience_ns = NSEC_PER_SEC,
        .rates = rates,
        .seen = seen,
        .levels = &level,
    };
    burst_set_tick(f->set, &tick);
}

START_TEST(peaks_and_lows)
{
    struct fixture f;
    fixture_init(&f, -1);
    observe(&f, (const double[]){1000.25, 0.5, 1e7}, UINT64_MAX - 1);
    observe(&f, (const double[]){3, 2.125, 0}, 9007199254740993);
    CLEANUP_FREE char *text = stage_render(&f.stage, f.exposition, NULL, EXPOSITION_TEXT);
    static const char *const lines[] = {
        "# TYPE kvm_vcpu_exits_peak_rate gauge",
        "kvm_vcpu_exits_peak_rate{vm=\"web1\",window=\"15s\"} 1000.25",
        "kvm_vcpu_exits_peak_rate{vm=\"web1\",window=\"1500ms\"} 1000.25",
        "kvm_vcpu_exits_peak_rate{vm=\"web1\",window=\"1m\"} 1000.25",
        "kvm_vcpu_halt_wait_peak_ratio{vm=\"web1\",window=\"15s\"} 2.125",
        "kvm_vcpu_written_bytes_peak_rate{vm=\"web1\",window=\"15s\"} 10000000",
        "kvm_vcpu_queue_peak_bytes{vm=\"web1\",window=\"15s\"} 18446744073709551614",
        "kvm_vcpu_queue_low_bytes{vm=\"web1\",window=\"15s\"} 9007199254740993",
    };
    for (size_t i = 0; i < ARRAY_LEN(lines); i++)
        ck_assert_msg(has_line(text, lines[i]), "%s is not in\n%s", lines[i], text);
    /* Booleans, histograms and arrays have none. */
    ck_assert_ptr_null(strstr(text, "blocking_peak"));
    ck_assert_ptr_null(strstr(text, "pair_peak"));
    ck_assert_ptr_null(strstr(text, "hist_peak"));
    CLEANUP_FREE char *open = stage_render(&f.stage, f.exposition, NULL, EXPOSITION_OPENMETRICS);
    ck_assert(has_line(open, "# UNIT kvm_vcpu_queue_peak_bytes bytes"));
    ck_assert_ptr_null(strstr(open, "# UNIT kvm_vcpu_written_bytes_peak_rate"));
    fixture_deinit(&f);
}
END_TEST

START_TEST(one_of_each_vcpu)
{
    struct fixture f;
    fixture_init(&f, 1);
    observe(&f, (const double[]){7, 0, 0}, 0);
    CLEANUP_FREE char *text = stage_render(&f.stage, f.exposition, NULL, EXPOSITION_TEXT);
    ck_assert(has_line(text, "kvm_vcpu_exits_peak_rate{vm=\"web1\",vcpu=\"1\",window=\"15s\"} 7"));
    ck_assert(has_line(text, "kvm_vcpu_exits_tick_rate_count{vm=\"web1\",vcpu=\"1\"} 1"));
    fixture_deinit(&f);
}
END_TEST

/* Nothing observed is no series, and not 0. */
START_TEST(nothing_is_not_zero)
{
    struct fixture f;
    fixture_init(&f, -1);
    CLEANUP_FREE char *text = stage_render(&f.stage, f.exposition, NULL, EXPOSITION_TEXT);
    ck_assert_ptr_null(strstr(text, "window="));
    observe(&f, (const double[]){0, 0, 0}, 0);
    CLEANUP_FREE char *zero = stage_render(&f.stage, f.exposition, NULL, EXPOSITION_TEXT);
    ck_assert(has_line(zero, "kvm_vcpu_exits_peak_rate{vm=\"web1\",window=\"15s\"} 0"));
    fixture_deinit(&f);
}
END_TEST

START_TEST(distributions)
{
    struct fixture f;
    fixture_init(&f, -1);
    observe(&f, (const double[]){1, 0.0001, 1000}, 0);
    observe(&f, (const double[]){1.5, 0.25, 1000.5}, 0);
    observe(&f, (const double[]){2e7, 1e9, 1e12}, 0);
    CLEANUP_FREE char *text = stage_render(&f.stage, f.exposition, NULL, _i);
    static const char *const lines[] = {
        "# TYPE kvm_vcpu_exits_tick_rate histogram",
        "kvm_vcpu_exits_tick_rate_bucket{vm=\"web1\",le=\"1.0\"} 1",
        "kvm_vcpu_exits_tick_rate_bucket{vm=\"web1\",le=\"2.0\"} 2",
        "kvm_vcpu_exits_tick_rate_bucket{vm=\"web1\",le=\"10000000.0\"} 2",
        "kvm_vcpu_exits_tick_rate_bucket{vm=\"web1\",le=\"+Inf\"} 3",
        "kvm_vcpu_exits_tick_rate_sum{vm=\"web1\"} 20000002.5",
        "kvm_vcpu_exits_tick_rate_count{vm=\"web1\"} 3",
        "kvm_vcpu_halt_wait_tick_ratio_bucket{vm=\"web1\",le=\"0.0001\"} 1",
        "kvm_vcpu_halt_wait_tick_ratio_bucket{vm=\"web1\",le=\"0.2\"} 1",
        "kvm_vcpu_halt_wait_tick_ratio_bucket{vm=\"web1\",le=\"0.5\"} 2",
        "kvm_vcpu_halt_wait_tick_ratio_bucket{vm=\"web1\",le=\"1000.0\"} 2",
        "kvm_vcpu_written_bytes_tick_rate_bucket{vm=\"web1\",le=\"1000.0\"} 1",
        "kvm_vcpu_written_bytes_tick_rate_bucket{vm=\"web1\",le=\"10000000000.0\"} 2",
    };
    for (size_t i = 0; i < ARRAY_LEN(lines); i++)
        ck_assert_msg(has_line(text, lines[i]), "%s is not in\n%s", lines[i], text);
    ck_assert_int_eq(count_of(text, "kvm_vcpu_exits_tick_rate_bucket"), DISTRIBUTION_CLASSIC);
    fixture_deinit(&f);
}
END_TEST

/* A statistic that is called as a peak would be keeps its name, and the peak is left out. */
static char notices[512];

static void note(const char *line)
{
    strcat(notices, line);
}

START_TEST(names_of_the_kernel_win)
{
    static const struct kvmstats_desc descs[] = {
        D("exits", CUMULATIVE, NONE, 0, 1),
        D("exits_peak_rate", INSTANT, NONE, 0, 1),
    };
    struct vm_identity_spec spec = {
        .vm = "web2", .name = "", .uuid = "", .vmm = "", .machine = "", .unit = "", .pid = 2};
    struct stage stage;
    stage_init(&stage);
    const struct schema *schema = stage_schema(&stage, SCOPE_VCPU, descs, ARRAY_LEN(descs));
    stage_vm_add(&stage, &spec, 0, NULL, schema, 1);
    stage_layout(&stage, 0);
    struct exposition *exposition = stage_exposition(&stage);
    exposition_set_notice(exposition, note);
    CLEANUP_FREE char *text = stage_render(&stage, exposition, NULL, EXPOSITION_TEXT);
    ck_assert(has_line(text, "kvm_vcpu_exits_peak_rate{vm=\"web2\",vcpu=\"0\"} 0"));
    ck_assert_ptr_nonnull(strstr(notices, "kvm_vcpu_exits_peak_rate is left out"));
    exposition_free(exposition);
    stage_deinit(&stage);
}
END_TEST

/* The shortest decimal that reads back as the same double. */
START_TEST(shortest_is_shortest)
{
    for (int i = 0; i < 200000; i++) {
        char text[SHORTEST_BYTES], printed[SHORTEST_BYTES];
        double value = ldexp((double)(testing_random() >> testing_random_below(64)),
                             (int)testing_random_below(120) - 90);
        if (i % 3 == 0)
            value = (double)testing_random_below(100000000) * 1e9 /
                    (1e8 + (double)testing_random_below(1000000)); /* as rates are */
        size_t len = shortest_format(text, value), digits = 0;
        ck_assert_uint_eq(len, strlen(text));
        ck_assert_msg(strtod(text, NULL) == value, "%s is not %a", text, value);
        for (const char *c = text + strspn(text, "0."); *c && *c != 'e'; c++)
            digits += *c != '.';
        if (!strchr(text, '.'))
            continue; /* an integer has all of its digits */
        (void)snprintf(printed, sizeof printed, "%.*e", (int)MAX_OF(digits, (size_t)2) - 2, value);
        ck_assert_msg(digits < 2 || strtod(printed, NULL) != value, "%s could be %s", text,
                      printed);
    }
}
END_TEST

Suite *bursts_suite(void)
{
    Suite *suite = suite_create("bursts");
    TCase *tc = tcase_create("bursts");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, peaks_and_lows);
    tcase_add_test(tc, one_of_each_vcpu);
    tcase_add_test(tc, nothing_is_not_zero);
    tcase_add_loop_test(tc, distributions, EXPOSITION_TEXT, EXPOSITION_OPENMETRICS + 1);
    tcase_add_test(tc, names_of_the_kernel_win);
    tcase_add_test(tc, shortest_is_shortest);
    suite_add_tcase(suite, tc);
    return suite;
}
