/* SPDX-License-Identifier: Apache-2.0 */
#include "families.h"

#include <stdio.h>
#include <string.h>

#include "stage.h"
#include "suites.h"

#define D(name, type, unit, exponent, size) STAGE_DESC(name, type, unit, exponent, size)

static const struct {
    struct kvmstats_desc desc;
    const char *name, *raw;
    enum family_type type;
} named[] = {
    {D("exits", CUMULATIVE, NONE, 0, 1), "kvm_vcpu_exits", "kvm_vcpu_exits", FAMILY_COUNTER},
    {D("pages_4k", INSTANT, NONE, 0, 1), "kvm_vcpu_pages_4k", "kvm_vcpu_pages_4k", FAMILY_GAUGE},
    {D("max_x", PEAK, NONE, 0, 1), "kvm_vcpu_max_x", "kvm_vcpu_max_x", FAMILY_GAUGE},
    {D("blocking", INSTANT, BOOLEAN, 0, 1), "kvm_vcpu_blocking", "kvm_vcpu_blocking", FAMILY_GAUGE},
    {D("flag", CUMULATIVE, BOOLEAN, 0, 1), "kvm_vcpu_flag", "kvm_vcpu_flag", FAMILY_GAUGE},

    /* SECONDS: a trailing unit goes, _seconds comes, once. */
    {D("halt_wait_ns", CUMULATIVE, SECONDS, -9, 1), "kvm_vcpu_halt_wait_seconds",
     "kvm_vcpu_halt_wait_ns", FAMILY_COUNTER},
    {D("a_us", INSTANT, SECONDS, -6, 1), "kvm_vcpu_a_seconds", "kvm_vcpu_a_us", FAMILY_GAUGE},
    {D("a_ms", PEAK, SECONDS, -3, 1), "kvm_vcpu_a_seconds", "kvm_vcpu_a_ms", FAMILY_GAUGE},
    {D("a_s", INSTANT, SECONDS, 0, 1), "kvm_vcpu_a_seconds", "kvm_vcpu_a_s", FAMILY_GAUGE},
    {D("a", INSTANT, SECONDS, 0, 1), "kvm_vcpu_a_seconds", "kvm_vcpu_a", FAMILY_GAUGE},
    {D("a_seconds", INSTANT, SECONDS, 0, 1), "kvm_vcpu_a_seconds", "kvm_vcpu_a_seconds",
     FAMILY_GAUGE},
    {D("a_ns_ns", INSTANT, SECONDS, -9, 1), "kvm_vcpu_a_ns_seconds", "kvm_vcpu_a_ns_ns",
     FAMILY_GAUGE},
    {D("trans", INSTANT, SECONDS, 0, 1), "kvm_vcpu_trans_seconds", "kvm_vcpu_trans", FAMILY_GAUGE},
    {D("seconds", INSTANT, SECONDS, 0, 1), "kvm_vcpu_seconds", "kvm_vcpu_seconds", FAMILY_GAUGE},
    {D("wait_ns", CUMULATIVE, NONE, 0, 1), "kvm_vcpu_wait_ns", "kvm_vcpu_wait_ns", FAMILY_COUNTER},

    {D("a", CUMULATIVE, BYTES, 0, 1), "kvm_vcpu_a_bytes", "kvm_vcpu_a", FAMILY_COUNTER},
    {D("a_bytes", INSTANT, BYTES, 10, 1), "kvm_vcpu_a_bytes", "kvm_vcpu_a_bytes", FAMILY_GAUGE},
    {D("a", INSTANT, CYCLES, 0, 1), "kvm_vcpu_a_cycles", "kvm_vcpu_a", FAMILY_GAUGE},
    {D("a_cycles", CUMULATIVE, CYCLES, 0, 1), "kvm_vcpu_a_cycles", "kvm_vcpu_a_cycles",
     FAMILY_COUNTER},

    /* _total is not doubled and stands behind the unit. */
    {D("a_total", CUMULATIVE, NONE, 0, 1), "kvm_vcpu_a", "kvm_vcpu_a", FAMILY_COUNTER},
    {D("a_ns_total", CUMULATIVE, SECONDS, -9, 1), "kvm_vcpu_a_seconds", "kvm_vcpu_a_ns",
     FAMILY_COUNTER},
    {D("a_bytes_total", CUMULATIVE, BYTES, 0, 1), "kvm_vcpu_a_bytes", "kvm_vcpu_a_bytes",
     FAMILY_COUNTER},
    {D("a_total", INSTANT, NONE, 0, 1), "kvm_vcpu_a_total", "kvm_vcpu_a_total", FAMILY_GAUGE},

    /* Histograms keep _hist before the unit. */
    {D("halt_wait_hist", LOG_HIST, SECONDS, -9, 32), "kvm_vcpu_halt_wait_hist_seconds",
     "kvm_vcpu_halt_wait_hist", FAMILY_HISTOGRAM},
    {D("a_hist", LINEAR_HIST, BYTES, 0, 8), "kvm_vcpu_a_hist_bytes", "kvm_vcpu_a_hist",
     FAMILY_HISTOGRAM},
    {D("a_hist", LINEAR_HIST, NONE, 0, 8), "kvm_vcpu_a_hist", "kvm_vcpu_a_hist", FAMILY_HISTOGRAM},
    {D("a_total", LOG_HIST, CYCLES, 0, 8), "kvm_vcpu_a_total_cycles", "kvm_vcpu_a_total",
     FAMILY_HISTOGRAM},

    /* What Prometheus doesn't allow. */
    {D("a-b.c d", INSTANT, NONE, 0, 1), "kvm_vcpu_a_b_c_d", "kvm_vcpu_a_b_c_d", FAMILY_GAUGE},
    {D("a:b", INSTANT, NONE, 0, 1), "kvm_vcpu_a_b", "kvm_vcpu_a_b", FAMILY_GAUGE},
    {D("\xc3\xa9\n\"", INSTANT, NONE, 0, 1), "kvm_vcpu_____", "kvm_vcpu_____", FAMILY_GAUGE},
    {D("9lives", INSTANT, NONE, 0, 1), "kvm_vcpu_9lives", "kvm_vcpu_9lives", FAMILY_GAUGE},
    {D("num_2M_pages", INSTANT, NONE, 0, 1), "kvm_vcpu_num_2M_pages", "kvm_vcpu_num_2M_pages",
     FAMILY_GAUGE},
};

START_TEST(names)
{
    struct kvmstats_desc desc = named[_i].desc;
    desc.known = true;
    CLEANUP_FREE char *name = family_name(SCOPE_VCPU, &desc, false);
    CLEANUP_FREE char *raw = family_name(SCOPE_VCPU, &desc, true);
    ck_assert_str_eq(name, named[_i].name);
    ck_assert_str_eq(raw, named[_i].raw);
    ck_assert_int_eq(family_type_of(&desc), named[_i].type);

    CLEANUP_FREE char *vm = family_name(SCOPE_VM, &desc, false);
    ck_assert_int_eq(strncmp(vm, "kvm_vm_", 7), 0);
    ck_assert_str_eq(vm + 7, named[_i].name + 9);
}
END_TEST

/* A type, unit or base never heard of: a gauge of the raw value, its name unchanged. */
START_TEST(unknown)
{
    struct kvmstats_desc desc = D("wait_ns", CUMULATIVE, SECONDS, -9, 1);
    desc.known = false;
    CLEANUP_FREE char *name = family_name(SCOPE_VM, &desc, false);
    ck_assert_str_eq(name, "kvm_vm_wait_ns");
    ck_assert_int_eq(family_type_of(&desc), FAMILY_GAUGE);
    ck_assert_int_eq(family_number_form(&desc), NUMBER_PLAIN);
    ck_assert_ptr_null(family_unit(&desc));
}
END_TEST

START_TEST(siblings)
{
    static const struct kvmstats_desc descs[] = {
        D("a_hist", LOG_HIST, SECONDS, -9, 8),      D("a", CUMULATIVE, SECONDS, -9, 1),
        D("a_ns", CUMULATIVE, SECONDS, -9, 1),      D("b_hist", LOG_HIST, SECONDS, -9, 8),
        D("b_ns", INSTANT, SECONDS, -9, 1),         D("c_hist", LOG_HIST, SECONDS, -9, 8),
        D("c_ns", CUMULATIVE, NONE, 0, 1),          D("d_hist", LINEAR_HIST, BYTES, 0, 8),
        D("d_bytes", CUMULATIVE, BYTES, 0, 1),      D("e_hist", LOG_HIST, SECONDS, -9, 8),
        D("e_us", CUMULATIVE, SECONDS, -6, 1),      D("f", LOG_HIST, SECONDS, -9, 8),
        D("f_ns", CUMULATIVE, SECONDS, -9, 1),      D("g_hist", LOG_HIST, NONE, 0, 8),
        D("g_ns", CUMULATIVE, NONE, 0, 1),          D("h_hist", LOG_HIST, SECONDS, -9, 8),
        D("h_more_ns", CUMULATIVE, SECONDS, -9, 1), D("i_hist", LOG_HIST, SECONDS, -9, 8),
        D("i_ns", CUMULATIVE, SECONDS, -9, 2),
    };
    static const struct {
        const char *hist, *sum;
    } expected[] = {
        {"a_hist", "a_ns"},    {"b_hist", NULL},   {"c_hist", NULL},
        {"d_hist", "d_bytes"}, {"e_hist", "e_us"}, {"f", NULL},
        {"g_hist", NULL},      {"h_hist", NULL},   {"i_hist", NULL},
    };
    struct stage stage;
    stage_init(&stage);
    const struct kvmstats_schema *schema =
        stage_schema(&stage, SCOPE_VCPU, descs, ARRAY_LEN(descs))->decoded;
    for (size_t i = 0; i < ARRAY_LEN(expected); i++) {
        const struct kvmstats_desc *sum =
            family_sum_sibling(schema, kvmstats_schema_find(schema, expected[i].hist));
        ck_assert_pstr_eq(sum ? sum->name : NULL, expected[i].sum);
    }
    stage_deinit(&stage);
}
END_TEST

static char notices[4096];

static void take_notice(const char *line)
{
    strcat(notices, line);
    strcat(notices, "\n");
}

/* All of one VM with one vCPU, whose every value is 1. */
static char *render_descs(const struct kvmstats_desc *descs, size_t n, enum exposition_format f)
{
    struct stage stage;
    stage_init(&stage);
    notices[0] = '\0';
    stage.config->metrics.histograms = CONFIG_HISTOGRAMS_VCPU;
    const struct schema *schema = stage_schema(&stage, SCOPE_VCPU, descs, n);
    struct vm_identity_spec spec = {.vm = "a"};
    stage_vm_add(&stage, &spec, 0, NULL, schema, 1);
    stage_layout(&stage, 0);
    struct frame *frame = stage_frame(&stage, 0);
    const uint64_t one = 1;
    for (size_t i = 0; i < frame->layout->data_bytes; i += sizeof one)
        memcpy(frame->data + i, &one, sizeof one);
    struct exposition *exposition = stage_exposition(&stage);
    exposition_set_notice(exposition, take_notice);
    char *text = stage_render(&stage, exposition, NULL, f);
    free(stage_render(&stage, exposition, NULL, f)); /* what was said once is not said again */
    exposition_free(exposition);
    stage_deinit(&stage);
    return text;
}

START_TEST(the_later_of_two_keeps_its_raw_name)
{
    static const struct kvmstats_desc descs[] = {
        D("wait_ns", CUMULATIVE, SECONDS, -9, 1),
        D("wait_us", CUMULATIVE, SECONDS, -6, 1),
    };
    CLEANUP_FREE char *text = render_descs(descs, ARRAY_LEN(descs), _i);
    assert_line(text, "kvm_vcpu_wait_seconds_total{vm=\"a\",vcpu=\"0\"} 0.000000001");
    assert_line(text, "kvm_vcpu_wait_us_total{vm=\"a\",vcpu=\"0\"} 0.000001");
    assert_lacks(text, "# UNIT kvm_vcpu_wait_us");
    ck_assert_str_eq(notices,
                     "statistic \"wait_us\" of the vCPU is exported as kvm_vcpu_wait_us: another "
                     "one is called kvm_vcpu_wait_seconds already\n");
}
END_TEST

/* In OpenMetrics the counter's family is x_seconds: both formats have the same names. */
START_TEST(counter_and_histogram_clash)
{
    static const struct kvmstats_desc descs[] = {
        D("x_ns", CUMULATIVE, SECONDS, -9, 1),
        D("x", LOG_HIST, SECONDS, -9, 2),
    };
    CLEANUP_FREE char *text = render_descs(descs, ARRAY_LEN(descs), _i);
    assert_line(text, "kvm_vcpu_x_seconds_total{vm=\"a\",vcpu=\"0\"} 0.000000001");
    assert_line(text, "kvm_vcpu_x_bucket{vm=\"a\",vcpu=\"0\",le=\"0.0\"} 1");
    ck_assert_int_eq(count_of(notices, "\n"), 1);
}
END_TEST

/* Sample names count as well: x_bucket is taken by histogram x. */
START_TEST(sample_names_clash)
{
    static const struct kvmstats_desc descs[] = {
        D("x", LOG_HIST, NONE, 0, 2),        D("x_bucket", INSTANT, NONE, 0, 1),
        D("x_count", INSTANT, NONE, 0, 1),   D("x_sum", CUMULATIVE, NONE, 0, 1),
        D("y", CUMULATIVE, NONE, 0, 1),      D("y_total", INSTANT, NONE, 0, 1),
        D("z_total", INSTANT, NONE, 0, 1),   D("z", CUMULATIVE, NONE, 0, 1),
        D("w_bucket", INSTANT, BYTES, 0, 1), D("v_bucket", INSTANT, NONE, 0, 1),
        D("v", LINEAR_HIST, NONE, 0, 3),
    };
    CLEANUP_FREE char *text = render_descs(descs, ARRAY_LEN(descs), _i);
    ck_assert_int_eq(count_of(text, "kvm_vcpu_x_bucket{"), 2);
    assert_lacks(text, "kvm_vcpu_x_sum");
    assert_lacks(text, "# TYPE kvm_vcpu_x_count");
    assert_line(text, "kvm_vcpu_y_total{vm=\"a\",vcpu=\"0\"} 1");
    ck_assert_int_eq(count_of(text, "kvm_vcpu_y_total{"), 1);
    ck_assert_int_eq(count_of(text, "kvm_vcpu_z_total{"), 1);
    assert_line(text, "# TYPE kvm_vcpu_z_total gauge");
    assert_line(text, "kvm_vcpu_w_bucket_bytes{vm=\"a\",vcpu=\"0\"} 1");
    ck_assert_int_eq(count_of(text, "kvm_vcpu_v_bucket{"), 1);
    ck_assert_int_eq(count_of(notices, "is left out"), 6);
}
END_TEST

/* What the daemon itself says of a VM is never a statistic's. */
START_TEST(own_names_are_taken)
{
    static const struct kvmstats_desc descs[] = {
        D("info", INSTANT, NONE, 0, 1),
        D("vcpus", INSTANT, NONE, 0, 1),
        D("start_time", INSTANT, SECONDS, 0, 1),
    };
    struct stage stage;
    stage_init(&stage);
    const struct schema *schema = stage_schema(&stage, SCOPE_VM, descs, ARRAY_LEN(descs));
    struct vm_identity_spec spec = {.vm = "a"};
    stage_vm_add(&stage, &spec, 0, schema, NULL, 0);
    stage_layout(&stage, 0);
    struct exposition *exposition = stage_exposition(&stage);
    CLEANUP_FREE char *text = stage_render(&stage, exposition, NULL, _i);
    ck_assert_int_eq(count_of(text, "\nkvm_vm_info{") + (strncmp(text, "kvm_vm_info{", 12) == 0),
                     1);
    ck_assert_int_eq(count_of(text, "\nkvm_vm_vcpus{"), 1);
    assert_line(text, "kvm_vm_start_time{vm=\"a\"} 0");
    exposition_free(exposition);
    stage_deinit(&stage);
}
END_TEST

/* Twice the same in one schema: no series can be there twice. */
START_TEST(duplicates)
{
    static const struct kvmstats_desc descs[] = {
        D("exits", CUMULATIVE, NONE, 0, 1),
        D("exits", CUMULATIVE, NONE, 0, 1),
        D("a-b", INSTANT, NONE, 0, 1),
        D("a.b", INSTANT, NONE, 0, 1),
    };
    CLEANUP_FREE char *text = render_descs(descs, ARRAY_LEN(descs), _i);
    ck_assert_int_eq(count_of(text, "kvm_vcpu_exits_total{"), 1);
    ck_assert_int_eq(count_of(text, "kvm_vcpu_a_b{"), 1);
    ck_assert_int_eq(count_of(notices, "is left out"), 2);
}
END_TEST

START_TEST(helps)
{
    static const struct kvmstats_desc descs[] = {
        D("exits", CUMULATIVE, NONE, 0, 1),
        D("no\"\\\nvel", PEAK, BYTES, 0, 1),
        D("odd", INSTANT, NONE, 0, 1),
    };
    struct kvmstats_desc all[ARRAY_LEN(descs)];
    memcpy(all, descs, sizeof all);
    all[2].type = 11;
    all[2].unit = 12;
    CLEANUP_FREE char *text = render_descs(all, ARRAY_LEN(all), _i);
    bool open = _i == EXPOSITION_OPENMETRICS;
    assert_line(
        text,
        open ? "# HELP kvm_vcpu_exits Times the vCPU left guest mode, for whatever reason."
             : "# HELP kvm_vcpu_exits_total Times the vCPU left guest mode, for whatever reason.");
    assert_line(text,
                open ? "# HELP kvm_vcpu_no___vel_bytes KVM's statistic no\\\"\\\\?vel of a vCPU "
                       "(peak, bytes); this build has no description of it."
                     : "# HELP kvm_vcpu_no___vel_bytes KVM's statistic no\"\\\\?vel of a vCPU "
                       "(peak, bytes); this build has no description of it.");
    assert_line(text, "# HELP kvm_vcpu_odd KVM's statistic odd of a vCPU (unknown type, unknown "
                      "unit); this build has no description of it.");
    assert_line(text, "# TYPE kvm_vcpu_odd gauge");
}
END_TEST

Suite *families_suite(void)
{
    Suite *suite = suite_create("families");
    TCase *tc = tcase_create("families");
    tcase_add_loop_test(tc, names, 0, ARRAY_LEN(named));
    tcase_add_test(tc, unknown);
    tcase_add_test(tc, siblings);
    tcase_add_loop_test(tc, the_later_of_two_keeps_its_raw_name, EXPOSITION_TEXT,
                        EXPOSITION_OPENMETRICS + 1);
    tcase_add_loop_test(tc, counter_and_histogram_clash, EXPOSITION_TEXT,
                        EXPOSITION_OPENMETRICS + 1);
    tcase_add_loop_test(tc, sample_names_clash, EXPOSITION_TEXT, EXPOSITION_OPENMETRICS + 1);
    tcase_add_loop_test(tc, own_names_are_taken, EXPOSITION_TEXT, EXPOSITION_OPENMETRICS + 1);
    tcase_add_loop_test(tc, duplicates, EXPOSITION_TEXT, EXPOSITION_OPENMETRICS + 1);
    tcase_add_loop_test(tc, helps, EXPOSITION_TEXT, EXPOSITION_OPENMETRICS + 1);
    suite_add_tcase(suite, tc);
    return suite;
}
