/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "stage.h"
#include "suites.h"

#define D(name, type, unit, exponent, size) STAGE_DESC(name, type, unit, exponent, size)

static const struct kvmstats_desc vm_descs[] = {
    D("flushes", CUMULATIVE, NONE, 0, 1), D("pages_4k", INSTANT, NONE, 0, 1),
    D("rmap", PEAK, BYTES, 0, 1),         D("lock_hist", LINEAR_HIST, NONE, 0, 3),
    D("array", INSTANT, NONE, 0, 3),
};
static const struct kvmstats_desc vcpu_descs[] = {
    D("exits", CUMULATIVE, NONE, 0, 1),
    D("halt_wait_ns", CUMULATIVE, SECONDS, -9, 1),
    D("halt_wait_hist", LOG_HIST, SECONDS, -9, 4),
    D("lonely_hist", LOG_HIST, SECONDS, -9, 3),
    D("blocking", INSTANT, BOOLEAN, 0, 1),
};

struct fixture {
    struct stage stage;
    const struct schema *vm_schema, *vcpu_schema;
    struct exposition *exposition;
};

/* One VM "web1" with two vCPUs. */
static void fixture_init(struct fixture *f)
{
    struct vm_identity_spec spec = {
        .vm = "web1",
        .name = "web1",
        .uuid = "u-1",
        .vmm = "qemu",
        .machine = "m\"1",
        .unit = "a\\b\n",
        .source = "statsfd",
        .pid = 42,
        .start_wall_ns = 1700000000250000000,
    };
    stage_init(&f->stage);
    f->vm_schema = stage_schema(&f->stage, SCOPE_VM, vm_descs, ARRAY_LEN(vm_descs));
    f->vcpu_schema = stage_schema(&f->stage, SCOPE_VCPU, vcpu_descs, ARRAY_LEN(vcpu_descs));
    stage_vm_add(&f->stage, &spec, 0, f->vm_schema, f->vcpu_schema, 2);
    stage_layout(&f->stage, 0);
    *stage_cell(&f->stage, 0, -1, "flushes", 0) = 7;
    *stage_cell(&f->stage, 0, -1, "lock_hist", 0) = 1;
    *stage_cell(&f->stage, 0, -1, "lock_hist", 2) = 4;
    *stage_cell(&f->stage, 0, -1, "array", 2) = 5;
    *stage_cell(&f->stage, 0, 0, "exits", 0) = UINT64_MAX;
    *stage_cell(&f->stage, 0, 1, "exits", 0) = 9007199254740993;
    *stage_cell(&f->stage, 0, 0, "halt_wait_ns", 0) = 1500000001;
    *stage_cell(&f->stage, 0, 0, "halt_wait_hist", 1) = 2;
    *stage_cell(&f->stage, 0, 0, "halt_wait_hist", 3) = 10;
    *stage_cell(&f->stage, 0, 1, "blocking", 0) = 77;
}

static void fixture_deinit(struct fixture *f)
{
    exposition_free(f->exposition);
    stage_deinit(&f->stage);
}

static char *render(struct fixture *f, enum exposition_format format)
{
    if (!f->exposition)
        f->exposition = stage_exposition(&f->stage);
    return stage_render(&f->stage, f->exposition, NULL, format);
}

/* What is said of VMs, up to what the daemon says of itself. */
static char *without_self(char *text)
{
    char *self = strstr(text, strstr(text, "# EOF\n") ? "# TYPE kvmstatd_" : "# HELP kvmstatd_");
    ck_assert_ptr_nonnull(self);
    *self = '\0';
    return text;
}

static void drop_lines_with(char *text, const char *part)
{
    for (char *at; (at = strstr(text, part));) {
        char *end = strchr(at, '\n') + 1;
        while (at > text && at[-1] != '\n')
            at--;
        memmove(at, end, strlen(end) + 1);
    }
}

START_TEST(text_as_it_stands)
{
    struct fixture f = {0};
    fixture_init(&f);
    f.stage.config->metrics.histograms = CONFIG_HISTOGRAMS_VCPU;
    CLEANUP_FREE char *text = without_self(render(&f, EXPOSITION_TEXT));
    drop_lines_with(text, "last_sample");
    drop_lines_with(text, "# HELP");
    ck_assert_str_eq(
        text,
        "# TYPE kvm_vm_info gauge\n"
        "kvm_vm_info{vm=\"web1\",uuid=\"u-1\",vmm=\"qemu\",pid=\"42\",machine=\"m\\\"1\","
        "unit=\"a\\\\b\\n\",source=\"statsfd\"} 1\n"
        "# TYPE kvm_vm_vcpus gauge\n"
        "kvm_vm_vcpus{vm=\"web1\"} 2\n"
        "# TYPE kvm_vm_start_time_seconds gauge\n"
        "kvm_vm_start_time_seconds{vm=\"web1\"} 1700000000.25\n"
        "# TYPE kvm_vm_flushes_total counter\n"
        "kvm_vm_flushes_total{vm=\"web1\"} 7\n"
        "# TYPE kvm_vm_pages_4k gauge\n"
        "kvm_vm_pages_4k{vm=\"web1\"} 0\n"
        "# TYPE kvm_vm_rmap_bytes gauge\n"
        "kvm_vm_rmap_bytes{vm=\"web1\"} 0\n"
        "# TYPE kvm_vm_lock_hist histogram\n"
        "kvm_vm_lock_hist_bucket{vm=\"web1\",le=\"9.0\"} 1\n"
        "kvm_vm_lock_hist_bucket{vm=\"web1\",le=\"19.0\"} 1\n"
        "kvm_vm_lock_hist_bucket{vm=\"web1\",le=\"+Inf\"} 5\n"
        "kvm_vm_lock_hist_count{vm=\"web1\"} 5\n"
        "# TYPE kvm_vm_array gauge\n"
        "kvm_vm_array{vm=\"web1\",index=\"0\"} 0\n"
        "kvm_vm_array{vm=\"web1\",index=\"1\"} 0\n"
        "kvm_vm_array{vm=\"web1\",index=\"2\"} 5\n"
        "# TYPE kvm_vcpu_exits_total counter\n"
        "kvm_vcpu_exits_total{vm=\"web1\",vcpu=\"0\"} 18446744073709551615\n"
        "kvm_vcpu_exits_total{vm=\"web1\",vcpu=\"1\"} 9007199254740993\n"
        "# TYPE kvm_vcpu_halt_wait_seconds_total counter\n"
        "kvm_vcpu_halt_wait_seconds_total{vm=\"web1\",vcpu=\"0\"} 1.500000001\n"
        "kvm_vcpu_halt_wait_seconds_total{vm=\"web1\",vcpu=\"1\"} 0\n"
        "# TYPE kvm_vcpu_halt_wait_hist_seconds histogram\n"
        "kvm_vcpu_halt_wait_hist_seconds_bucket{vm=\"web1\",vcpu=\"0\",le=\"0.0\"} 0\n"
        "kvm_vcpu_halt_wait_hist_seconds_bucket{vm=\"web1\",vcpu=\"0\",le=\"0.000000001\"} 2\n"
        "kvm_vcpu_halt_wait_hist_seconds_bucket{vm=\"web1\",vcpu=\"0\",le=\"0.000000003\"} 2\n"
        "kvm_vcpu_halt_wait_hist_seconds_bucket{vm=\"web1\",vcpu=\"0\",le=\"+Inf\"} 12\n"
        "kvm_vcpu_halt_wait_hist_seconds_sum{vm=\"web1\",vcpu=\"0\"} 1.500000001\n"
        "kvm_vcpu_halt_wait_hist_seconds_count{vm=\"web1\",vcpu=\"0\"} 12\n"
        "kvm_vcpu_halt_wait_hist_seconds_bucket{vm=\"web1\",vcpu=\"1\",le=\"0.0\"} 0\n"
        "kvm_vcpu_halt_wait_hist_seconds_bucket{vm=\"web1\",vcpu=\"1\",le=\"0.000000001\"} 0\n"
        "kvm_vcpu_halt_wait_hist_seconds_bucket{vm=\"web1\",vcpu=\"1\",le=\"0.000000003\"} 0\n"
        "kvm_vcpu_halt_wait_hist_seconds_bucket{vm=\"web1\",vcpu=\"1\",le=\"+Inf\"} 0\n"
        "kvm_vcpu_halt_wait_hist_seconds_sum{vm=\"web1\",vcpu=\"1\"} 0\n"
        "kvm_vcpu_halt_wait_hist_seconds_count{vm=\"web1\",vcpu=\"1\"} 0\n"
        "# TYPE kvm_vcpu_lonely_hist_seconds histogram\n"
        "kvm_vcpu_lonely_hist_seconds_bucket{vm=\"web1\",vcpu=\"0\",le=\"0.0\"} 0\n"
        "kvm_vcpu_lonely_hist_seconds_bucket{vm=\"web1\",vcpu=\"0\",le=\"0.000000001\"} 0\n"
        "kvm_vcpu_lonely_hist_seconds_bucket{vm=\"web1\",vcpu=\"0\",le=\"+Inf\"} 0\n"
        "kvm_vcpu_lonely_hist_seconds_count{vm=\"web1\",vcpu=\"0\"} 0\n"
        "kvm_vcpu_lonely_hist_seconds_bucket{vm=\"web1\",vcpu=\"1\",le=\"0.0\"} 0\n"
        "kvm_vcpu_lonely_hist_seconds_bucket{vm=\"web1\",vcpu=\"1\",le=\"0.000000001\"} 0\n"
        "kvm_vcpu_lonely_hist_seconds_bucket{vm=\"web1\",vcpu=\"1\",le=\"+Inf\"} 0\n"
        "kvm_vcpu_lonely_hist_seconds_count{vm=\"web1\",vcpu=\"1\"} 0\n"
        "# TYPE kvm_vcpu_blocking gauge\n"
        "kvm_vcpu_blocking{vm=\"web1\",vcpu=\"0\"} 0\n"
        "kvm_vcpu_blocking{vm=\"web1\",vcpu=\"1\"} 1\n");
    fixture_deinit(&f);
}
END_TEST

START_TEST(openmetrics_differs)
{
    struct fixture f = {0};
    fixture_init(&f);
    CLEANUP_FREE char *text = render(&f, EXPOSITION_OPENMETRICS);
    assert_line(text, "# TYPE kvm_vm info");
    assert_line(text, "# TYPE kvm_vcpu_exits counter");
    assert_line(text, "# TYPE kvm_vcpu_halt_wait_seconds counter\n"
                      "# UNIT kvm_vcpu_halt_wait_seconds seconds");
    assert_line(text, "# UNIT kvm_vm_rmap_bytes bytes");
    assert_lacks(text, "# UNIT kvm_vcpu_exits");
    assert_line(text, "kvm_vcpu_halt_wait_hist_seconds_sum{vm=\"web1\"} 1.500000001");
    assert_line(text, "kvm_vcpu_halt_wait_hist_seconds_count{vm=\"web1\"} 12");
    /* No sibling: no sum, so no count. */
    assert_line(text, "kvm_vcpu_lonely_hist_seconds_bucket{vm=\"web1\",le=\"+Inf\"} 0");
    assert_lacks(text, "kvm_vcpu_lonely_hist_seconds_sum");
    assert_lacks(text, "kvm_vcpu_lonely_hist_seconds_count");
    ck_assert_str_eq(text + strlen(text) - 6, "# EOF\n");
    ck_assert_int_eq(count_of(text, "# EOF"), 1);
    assert_lacks(text, "\n\n");
    fixture_deinit(&f);
}
END_TEST

START_TEST(last_sample_is_the_frames_time)
{
    struct fixture f = {0};
    double value;
    fixture_init(&f);
    int64_t before_ms = (stage_frame(&f.stage, 0)->end_ns + clock_wall_offset_ns()) / 1000000;
    CLEANUP_FREE char *text = render(&f, EXPOSITION_TEXT);
    const char *line = strstr(text, "\nkvm_vm_last_sample_timestamp_seconds{vm=\"web1\"} ");
    ck_assert_ptr_nonnull(line);
    ck_assert_int_eq(sscanf(strchr(line, ' '), "%lf", &value), 1);
    /* The wall clock may be set between the two; not by half a minute in a test. */
    ck_assert_int_lt(llabs((long long)(value * 1000) - before_ms), 30000);
    fixture_deinit(&f);
}
END_TEST

START_TEST(nothing_at_all)
{
    struct stage stage;
    stage_init(&stage);
    struct exposition *exposition = stage_exposition(&stage);
    CLEANUP_FREE char *text = stage_render(&stage, exposition, NULL, _i);
    assert_lacks(text, "kvm_vm");
    assert_lacks(text, "kvm_vcpu");
    ck_assert_int_gt(count_of(text, "kvmstatd_"), 10);
    exposition_free(exposition);
    stage_deinit(&stage);
}
END_TEST

/* Missing is absent: not 0, and not the last value. */
START_TEST(unreadable_targets)
{
    struct fixture f = {0};
    fixture_init(&f);
    *stage_status(&f.stage, 0, 0) = TARGET_HELD;
    *stage_status(&f.stage, 0, -1) = TARGET_HELD;
    CLEANUP_FREE char *text = render(&f, _i);
    assert_lacks(text, "vcpu=\"0\"");
    assert_lacks(text, "flushes");
    assert_line(text, "kvm_vcpu_blocking{vm=\"web1\",vcpu=\"1\"} 1");
    *stage_status(&f.stage, 0, 1) = TARGET_ABSENT;
    CLEANUP_FREE char *held = render(&f, _i);
    /* Nothing of this tick: it is known, its last sample is not of this frame. */
    ck_assert_int_eq(count_of(held, "kvm_vm_info{"), 1);
    assert_lacks(held, "last_sample");
    assert_lacks(held, "exits");
    *stage_status(&f.stage, 0, 0) = TARGET_ABSENT;
    *stage_status(&f.stage, 0, -1) = TARGET_ABSENT;
    CLEANUP_FREE char *absent = render(&f, _i);
    assert_lacks(absent, "web1");
    assert_lacks(absent, "kvm_vcpu");
    fixture_deinit(&f);
}
END_TEST

START_TEST(a_vm_that_ended_is_gone)
{
    struct fixture f = {0};
    fixture_init(&f);
    atomic_store(&f.stage.vms[0].vm->gone, true);
    CLEANUP_FREE char *text = render(&f, _i);
    assert_lacks(text, "web1");
    fixture_deinit(&f);
}
END_TEST

static void set_list(struct string_list *list, const char *item)
{
    for (size_t i = 0; i < list->n; i++)
        free(list->items[i]);
    list->items = realloc(list->items, sizeof *list->items);
    list->items[0] = strdup(item);
    list->n = 1;
}

START_TEST(include_and_exclude)
{
    struct fixture f = {0};
    fixture_init(&f);
    set_list(&f.stage.config->metrics.include, "halt*");
    set_list(&f.stage.config->metrics.exclude, "*_ns");
    CLEANUP_FREE char *text = render(&f, _i);
    assert_lacks(text, "exits");
    assert_lacks(text, "pages_4k");
    assert_lacks(text, "halt_wait_seconds");
    /* The sibling still gives the sum. */
    assert_line(text, "kvm_vcpu_halt_wait_hist_seconds_sum{vm=\"web1\"} 1.500000001");
    ck_assert_int_eq(count_of(text, "kvm_vm_info{"), 1);
    fixture_deinit(&f);
}
END_TEST

START_TEST(no_histograms)
{
    struct fixture f = {0};
    fixture_init(&f);
    f.stage.config->metrics.histograms = CONFIG_HISTOGRAMS_OFF;
    CLEANUP_FREE char *text = without_self(render(&f, _i));
    assert_lacks(text, "_bucket");
    assert_lacks(text, "_hist");
    assert_line(text, "kvm_vcpu_blocking{vm=\"web1\",vcpu=\"1\"} 1");
    fixture_deinit(&f);
}
END_TEST

/* Buckets whose bound fits no integer are +Inf; le never repeats. */
START_TEST(endless_buckets)
{
    static const struct kvmstats_desc descs[] = {
        D("x_hist", LOG_HIST, NONE, 0, 70),
    };
    struct stage stage;
    struct vm_identity_spec spec = {.vm = "a"};
    stage_init(&stage);
    stage_vm_add(&stage, &spec, 0, stage_schema(&stage, SCOPE_VM, descs, 1), NULL, 0);
    stage_layout(&stage, 0);
    for (size_t k = 0; k < 70; k++)
        *stage_cell(&stage, 0, -1, "x_hist", k) = 1;
    struct exposition *exposition = stage_exposition(&stage);
    CLEANUP_FREE char *text = stage_render(&stage, exposition, NULL, EXPOSITION_TEXT);
    assert_line(text, "kvm_vm_x_hist_bucket{vm=\"a\",le=\"18446744073709551615.0\"} 65");
    assert_line(text, "kvm_vm_x_hist_bucket{vm=\"a\",le=\"+Inf\"} 70");
    ck_assert_int_eq(count_of(text, "kvm_vm_x_hist_bucket{"), 66);
    exposition_free(exposition);
    stage_deinit(&stage);
}
END_TEST

/* A second kvm module was loaded: its statistics join the families of the first. */
START_TEST(several_schemas)
{
    static const struct kvmstats_desc newer[] = {
        D("brand_new", CUMULATIVE, NONE, 0, 1), D("halt_wait_hist", LOG_HIST, SECONDS, -9, 2),
        D("exits", CUMULATIVE, NONE, 0, 1),     D("halt_wait_ns", CUMULATIVE, SECONDS, -6, 1),
        D("blocking", INSTANT, NONE, 0, 1), /* no longer a boolean: another family */
    };
    struct fixture f = {0};
    fixture_init(&f);
    struct vm_identity_spec spec = {.vm = "db"};
    const struct schema *schema = stage_schema(&f.stage, SCOPE_VCPU, newer, ARRAY_LEN(newer));
    stage_vm_add(&f.stage, &spec, 1, NULL, schema, 1);
    stage_layout(&f.stage, 1);
    *stage_cell(&f.stage, 1, 0, "exits", 0) = 3;
    *stage_cell(&f.stage, 1, 0, "halt_wait_ns", 0) = 5;
    *stage_cell(&f.stage, 1, 0, "blocking", 0) = 6;
    CLEANUP_FREE char *text = render(&f, _i);
    ck_assert_int_eq(count_of(text, "# TYPE kvm_vcpu_exits"), 1);
    assert_line(text, "kvm_vcpu_exits_total{vm=\"db\",vcpu=\"0\"} 3\n"
                      "kvm_vcpu_exits_total{vm=\"web1\",vcpu=\"0\"} 18446744073709551615");
    assert_line(text, "kvm_vcpu_halt_wait_seconds_total{vm=\"db\",vcpu=\"0\"} 0.000005");
    assert_line(text, "kvm_vcpu_halt_wait_hist_seconds_bucket{vm=\"db\",le=\"0.0\"} 0\n"
                      "kvm_vcpu_halt_wait_hist_seconds_bucket{vm=\"db\",le=\"+Inf\"} 0\n"
                      "kvm_vcpu_halt_wait_hist_seconds_sum{vm=\"db\"} 0.000005");
    assert_line(text, "kvm_vcpu_brand_new_total{vm=\"db\",vcpu=\"0\"} 0");
    assert_lacks(text, "kvm_vcpu_blocking{vm=\"db\"");
    fixture_deinit(&f);
}
END_TEST

/* A schema met later changes no name that was given before. */
START_TEST(names_are_stable)
{
    static const struct kvmstats_desc other[] = {D("exits_total", CUMULATIVE, NONE, 0, 1),
                                                 D("halt_wait_us", CUMULATIVE, SECONDS, -6, 1)};
    struct fixture f = {0};
    fixture_init(&f);
    free(render(&f, _i));
    struct vm_identity_spec spec = {.vm = "db"};
    stage_vm_add(&f.stage, &spec, 1, NULL, stage_schema(&f.stage, SCOPE_VCPU, other, 2), 1);
    stage_layout(&f.stage, 1);
    CLEANUP_FREE char *text = render(&f, _i);
    assert_line(text, "kvm_vcpu_exits_total{vm=\"web1\",vcpu=\"1\"} 9007199254740993");
    assert_lacks(text, "kvm_vcpu_exits_total{vm=\"db\"");
    assert_line(text, "kvm_vcpu_halt_wait_us_total{vm=\"db\",vcpu=\"0\"} 0");
    fixture_deinit(&f);
}
END_TEST

static int failing_piece(void *ctx, const char *bytes, size_t len)
{
    (void)ctx;
    (void)bytes;
    (void)len;
    return -ENOSPC;
}

START_TEST(the_sinks_error_comes_back)
{
    struct fixture f = {0};
    fixture_init(&f);
    free(render(&f, EXPOSITION_TEXT));
    const struct exposition_sink sink = {failing_piece, NULL};
    CLEANUP_VIEW struct view view;
    ck_assert_int_eq(view_take(f.stage.store, &view), 0);
    ck_assert_int_eq(exposition_render(f.exposition, &view, NULL, EXPOSITION_TEXT, &sink), -ENOSPC);
    view_drop(&view);
    fixture_deinit(&f);
}
END_TEST

Suite *render_suite(void)
{
    Suite *suite = suite_create("render");
    TCase *tc = tcase_create("render");
    tcase_add_test(tc, text_as_it_stands);
    tcase_add_test(tc, openmetrics_differs);
    tcase_add_test(tc, last_sample_is_the_frames_time);
    tcase_add_loop_test(tc, nothing_at_all, 0, 2);
    tcase_add_loop_test(tc, unreadable_targets, 0, 2);
    tcase_add_loop_test(tc, a_vm_that_ended_is_gone, 0, 2);
    tcase_add_loop_test(tc, include_and_exclude, 0, 2);
    tcase_add_loop_test(tc, no_histograms, 0, 2);
    tcase_add_test(tc, endless_buckets);
    tcase_add_loop_test(tc, several_schemas, 0, 2);
    tcase_add_loop_test(tc, names_are_stable, 0, 2);
    tcase_add_test(tc, the_sinks_error_comes_back);
    suite_add_tcase(suite, tc);
    return suite;
}
