/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "stage.h"
#include "suites.h"

#define D(name, type, unit, exponent, size) STAGE_DESC(name, type, unit, exponent, size)

static const struct kvmstats_desc descs[] = {
    D("exits", CUMULATIVE, NONE, 0, 1),       D("wait_hist", LOG_HIST, SECONDS, -9, 2),
    D("wait_ns", CUMULATIVE, SECONDS, -9, 1), D("depth", INSTANT, NONE, 0, 1),
    D("deepest", PEAK, NONE, 0, 1),           D("blocking", INSTANT, BOOLEAN, 0, 1),
};

struct fixture {
    struct stage stage;
    const struct schema *schema;
    struct exposition *exposition;
};

/* One VM "a" with three vCPUs, all of whose series are sums. */
static void fixture_init(struct fixture *f)
{
    struct vm_identity_spec spec = {.vm = "a"};
    stage_init(&f->stage);
    f->stage.config->metrics.vcpu = false;
    f->schema = stage_schema(&f->stage, SCOPE_VCPU, descs, ARRAY_LEN(descs));
    stage_vm_add(&f->stage, &spec, 0, NULL, f->schema, 3);
    stage_layout(&f->stage, 0);
    f->exposition = stage_exposition(&f->stage);
}

static void fixture_deinit(struct fixture *f)
{
    exposition_free(f->exposition);
    stage_deinit(&f->stage);
}

static void set_all(struct fixture *f, const char *stat, size_t k, uint64_t a, uint64_t b,
                    uint64_t c)
{
    *stage_cell(&f->stage, 0, 0, stat, k) = a;
    *stage_cell(&f->stage, 0, 1, stat, k) = b;
    *stage_cell(&f->stage, 0, 2, stat, k) = c;
}

static void expect_line(struct fixture *f, const char *line)
{
    CLEANUP_FREE char *text = stage_render(&f->stage, f->exposition, NULL, EXPOSITION_OPENMETRICS);
    assert_line(text, line);
}

START_TEST(all_kinds)
{
    struct fixture f;
    fixture_init(&f);
    set_all(&f, "exits", 0, 1, 2, 4);
    set_all(&f, "wait_hist", 0, 1, 0, 1);
    set_all(&f, "wait_hist", 1, 0, 5, 0);
    set_all(&f, "wait_ns", 0, 10, 20, 40);
    set_all(&f, "depth", 0, 3, 0, 4);
    set_all(&f, "deepest", 0, 30, 0, 40);
    set_all(&f, "blocking", 0, 1, 0, 255);
    CLEANUP_FREE char *text = stage_render(&f.stage, f.exposition, NULL, EXPOSITION_OPENMETRICS);
    assert_line(text, "kvm_vcpu_exits_total{vm=\"a\"} 7");
    assert_line(text, "kvm_vcpu_wait_hist_seconds_bucket{vm=\"a\",le=\"0.0\"} 2\n"
                      "kvm_vcpu_wait_hist_seconds_bucket{vm=\"a\",le=\"+Inf\"} 7\n"
                      "kvm_vcpu_wait_hist_seconds_sum{vm=\"a\"} 0.00000007\n"
                      "kvm_vcpu_wait_hist_seconds_count{vm=\"a\"} 7");
    assert_line(text, "kvm_vcpu_wait_seconds_total{vm=\"a\"} 0.00000007");
    assert_line(text, "kvm_vcpu_depth{vm=\"a\"} 7");
    assert_line(text, "kvm_vcpu_deepest{vm=\"a\"} 70");
    /* How many are blocking. */
    assert_line(text, "kvm_vcpu_blocking{vm=\"a\"} 2");
    assert_lacks(text, "vcpu=");
    assert_line(text, "# HELP kvm_vcpu_exits Times the vCPU left guest mode, for whatever reason. "
                      "Summed over the VM's vCPUs.");
    fixture_deinit(&f);
}
END_TEST

START_TEST(the_default_sums_histograms_only)
{
    struct fixture f;
    fixture_init(&f);
    f.stage.config->metrics.vcpu = true;
    set_all(&f, "wait_hist", 1, 1, 2, 4);
    CLEANUP_FREE char *text = stage_render(&f.stage, f.exposition, NULL, EXPOSITION_OPENMETRICS);
    assert_line(text, "kvm_vcpu_exits_total{vm=\"a\",vcpu=\"2\"} 0");
    assert_line(text, "kvm_vcpu_wait_hist_seconds_count{vm=\"a\"} 7");
    assert_lacks(text, "kvm_vcpu_wait_hist_seconds_bucket{vm=\"a\",vcpu");
    fixture_deinit(&f);
}
END_TEST

/* `vcpu: false` leaves no series of a vCPU, histograms or not. */
START_TEST(no_vcpu_series_at_all)
{
    struct fixture f;
    fixture_init(&f);
    f.stage.config->metrics.histograms = CONFIG_HISTOGRAMS_VCPU;
    CLEANUP_FREE char *text = stage_render(&f.stage, f.exposition, NULL, EXPOSITION_OPENMETRICS);
    assert_lacks(text, "vcpu=");
    assert_line(text, "kvm_vcpu_wait_hist_seconds_count{vm=\"a\"} 0");
    fixture_deinit(&f);
}
END_TEST

/* debugfs lets root clear counters: the sum stays, then rises by what the counters rise. */
START_TEST(a_reset_counter)
{
    struct fixture f;
    fixture_init(&f);
    set_all(&f, "exits", 0, 100, 200, 400);
    set_all(&f, "wait_hist", 1, 100, 0, 0);
    expect_line(&f, "kvm_vcpu_exits_total{vm=\"a\"} 700");
    stage_tick(&f.stage, 0);
    set_all(&f, "exits", 0, 101, 0, 401);
    set_all(&f, "wait_hist", 1, 0, 0, 0);
    expect_line(&f, "kvm_vcpu_exits_total{vm=\"a\"} 700");
    stage_tick(&f.stage, 0);
    set_all(&f, "exits", 0, 101, 5, 401);
    set_all(&f, "wait_hist", 1, 0, 0, 3);
    expect_line(&f, "kvm_vcpu_exits_total{vm=\"a\"} 705");
    expect_line(&f, "kvm_vcpu_wait_hist_seconds_count{vm=\"a\"} 103");
    stage_tick(&f.stage, 0);
    set_all(&f, "exits", 0, 0, 0, 0);
    expect_line(&f, "kvm_vcpu_exits_total{vm=\"a\"} 705");
    stage_tick(&f.stage, 0);
    set_all(&f, "exits", 0, 0, 1000, 0);
    expect_line(&f, "kvm_vcpu_exits_total{vm=\"a\"} 1705");
    fixture_deinit(&f);
}
END_TEST

/* Gauges have no memory. */
START_TEST(gauges_may_fall)
{
    struct fixture f;
    fixture_init(&f);
    set_all(&f, "depth", 0, 5, 5, 5);
    set_all(&f, "deepest", 0, 5, 5, 5);
    expect_line(&f, "kvm_vcpu_depth{vm=\"a\"} 15");
    stage_tick(&f.stage, 0);
    set_all(&f, "depth", 0, 1, 0, 0);
    set_all(&f, "deepest", 0, 1, 0, 0);
    expect_line(&f, "kvm_vcpu_depth{vm=\"a\"} 1");
    expect_line(&f, "kvm_vcpu_deepest{vm=\"a\"} 1");
    fixture_deinit(&f);
}
END_TEST

START_TEST(a_held_vcpu)
{
    struct fixture f;
    fixture_init(&f);
    set_all(&f, "exits", 0, 1, 2, 4);
    set_all(&f, "depth", 0, 1, 2, 4);
    set_all(&f, "blocking", 0, 1, 1, 1);
    *stage_status(&f.stage, 0, 1) = TARGET_HELD;
    expect_line(&f, "kvm_vcpu_exits_total{vm=\"a\"} 7");
    expect_line(&f, "kvm_vcpu_depth{vm=\"a\"} 5");
    expect_line(&f, "kvm_vcpu_blocking{vm=\"a\"} 2");
    *stage_status(&f.stage, 0, 0) = TARGET_ABSENT;
    *stage_status(&f.stage, 0, 2) = TARGET_HELD;
    /* Nothing fresh: what counts is still shown, what is momentary is not. */
    CLEANUP_FREE char *text = stage_render(&f.stage, f.exposition, NULL, EXPOSITION_OPENMETRICS);
    assert_line(text, "kvm_vcpu_exits_total{vm=\"a\"} 7");
    assert_lacks(text, "kvm_vcpu_depth");
    assert_lacks(text, "kvm_vcpu_blocking");
    fixture_deinit(&f);
}
END_TEST

START_TEST(no_vcpu_can_be_read)
{
    struct fixture f;
    fixture_init(&f);
    for (int i = 0; i < 3; i++)
        *stage_status(&f.stage, 0, i) = TARGET_ABSENT;
    CLEANUP_FREE char *text = stage_render(&f.stage, f.exposition, NULL, EXPOSITION_OPENMETRICS);
    assert_lacks(text, "kvm_vcpu");
    fixture_deinit(&f);
}
END_TEST

/* A vCPU leaves: its last values stay in the sum, its momentary ones do not. */
START_TEST(a_vcpu_leaves)
{
    struct fixture f;
    fixture_init(&f);
    set_all(&f, "exits", 0, 1, 2, 4);
    set_all(&f, "depth", 0, 1, 2, 4);
    expect_line(&f, "kvm_vcpu_exits_total{vm=\"a\"} 7");
    f.stage.vms[0].n_vcpus = 2;
    struct layout *layout = stage_layout(&f.stage, 0);
    *stage_cell(&f.stage, 0, 0, "exits", 0) = 1;
    *stage_cell(&f.stage, 0, 1, "exits", 0) = 2;
    *stage_cell(&f.stage, 0, 0, "depth", 0) = 1;
    uint64_t *retired = calloc(1, f.schema->data_bytes);
    retired[kvmstats_schema_find(f.schema->decoded, "exits")->offset / 8] = 10;
    retired[kvmstats_schema_find(f.schema->decoded, "depth")->offset / 8] = 1000;
    layout->vms[0].retired = retired;
    layout->vms[0].retired_schema = f.schema;
    expect_line(&f, "kvm_vcpu_exits_total{vm=\"a\"} 13");
    expect_line(&f, "kvm_vcpu_depth{vm=\"a\"} 1");
    fixture_deinit(&f);
}
END_TEST

/* It leaves and nobody kept its values: the sum stays all the same. */
START_TEST(a_vcpu_leaves_unseen)
{
    struct fixture f;
    fixture_init(&f);
    set_all(&f, "exits", 0, 1, 2, 4);
    expect_line(&f, "kvm_vcpu_exits_total{vm=\"a\"} 7");
    f.stage.vms[0].n_vcpus = 1;
    stage_layout(&f.stage, 0);
    *stage_cell(&f.stage, 0, 0, "exits", 0) = 3;
    expect_line(&f, "kvm_vcpu_exits_total{vm=\"a\"} 7");
    stage_tick(&f.stage, 0);
    *stage_cell(&f.stage, 0, 0, "exits", 0) = 5;
    expect_line(&f, "kvm_vcpu_exits_total{vm=\"a\"} 9");
    fixture_deinit(&f);
}
END_TEST

/* A slow scraper holds an older frame: it is not taken for a reset, nor shown as a fall. */
START_TEST(an_older_frame)
{
    struct fixture f;
    struct view old;
    fixture_init(&f);
    set_all(&f, "exits", 0, 100, 0, 0);
    ck_assert_int_eq(view_take(f.stage.store, &old), 0);
    stage_tick(&f.stage, 0);
    set_all(&f, "exits", 0, 150, 0, 0);
    expect_line(&f, "kvm_vcpu_exits_total{vm=\"a\"} 150");
    CLEANUP_FREE char *late = stage_render_view(&old, f.exposition, NULL, EXPOSITION_OPENMETRICS);
    assert_line(late, "kvm_vcpu_exits_total{vm=\"a\"} 150");
    view_drop(&old);
    stage_tick(&f.stage, 0);
    set_all(&f, "exits", 0, 160, 0, 0);
    expect_line(&f, "kvm_vcpu_exits_total{vm=\"a\"} 160");
    fixture_deinit(&f);
}
END_TEST

/* After a configuration reload another exposition goes on where the first stopped. */
START_TEST(sums_outlive_the_exposition)
{
    struct fixture f;
    fixture_init(&f);
    set_all(&f, "exits", 0, 100, 0, 0);
    expect_line(&f, "kvm_vcpu_exits_total{vm=\"a\"} 100");
    exposition_free(f.exposition);
    f.exposition = stage_exposition(&f.stage);
    stage_tick(&f.stage, 0);
    set_all(&f, "exits", 0, 1, 0, 0);
    expect_line(&f, "kvm_vcpu_exits_total{vm=\"a\"} 100");
    fixture_deinit(&f);
}
END_TEST

Suite *sums_suite(void)
{
    Suite *suite = suite_create("sums");
    TCase *tc = tcase_create("sums");
    tcase_add_test(tc, all_kinds);
    tcase_add_test(tc, the_default_sums_histograms_only);
    tcase_add_test(tc, no_vcpu_series_at_all);
    tcase_add_test(tc, a_reset_counter);
    tcase_add_test(tc, gauges_may_fall);
    tcase_add_test(tc, a_held_vcpu);
    tcase_add_test(tc, no_vcpu_can_be_read);
    tcase_add_test(tc, a_vcpu_leaves);
    tcase_add_test(tc, a_vcpu_leaves_unseen);
    tcase_add_test(tc, an_older_frame);
    tcase_add_test(tc, sums_outlive_the_exposition);
    suite_add_tcase(suite, tc);
    return suite;
}
