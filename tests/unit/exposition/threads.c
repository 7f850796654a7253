/* SPDX-License-Identifier: Apache-2.0 */
#include "threads.h"

#include <string.h>

#include "clock.h"
#include "stage.h"
#include "suites.h"

static const struct kvmstats_desc descs[] = {
    STAGE_DESC("exits", CUMULATIVE, NONE, 0, 1),
    /* Would be called as one of ours. */
    STAGE_DESC("cpu_ns", CUMULATIVE, SECONDS, -9, 1),
};

struct fixture {
    struct stage stage;
    uint64_t ids[2];
    struct cputimes *times;
};

/* VMs "a" and "b\"" with two vCPUs each, of which b has one that is known; 15 s and 90 s. */
static void fixture_init(struct fixture *f, bool peaks_by_vcpu)
{
    static const struct cputimes_vcpu vcpus[] = {
        {.vcpu = 0, .run_ns = 1500000001, .wait_ns = 0},
        {.vcpu = 5, .run_ns = UINT64_MAX, .wait_ns = 70},
        {.vcpu = 1, .run_ns = 3, .wait_ns = 4},
    };
    static const char *const names[] = {"a", "b\""};
    stage_init(&f->stage);
    const struct schema *schema = stage_schema(&f->stage, SCOPE_VCPU, descs, ARRAY_LEN(descs));
    for (size_t i = 0; i < 2; i++) {
        const struct vm_identity_spec spec = {.vm = names[i], .name = names[i]};
        size_t at = stage_vm_add(&f->stage, &spec, 0, NULL, schema, 2);
        f->ids[i] = f->stage.vms[at].vm->id;
    }
    stage_layout(&f->stage, 0);

    ck_assert_int_eq(cputimes_new(2, 3, 2, peaks_by_vcpu, &f->times), 0);
    f->times->n_vms = 2;
    f->times->n_vcpus = 3;
    memcpy(f->times->vcpus, vcpus, sizeof vcpus);
    f->times->vms[0] = (struct cputimes_vm){
        .id = f->ids[0], .n_vcpus = 2, .whole = true, .run_ns = 2000000000, .wait_ns = 71};
    f->times->vms[1] = (struct cputimes_vm){
        .id = f->ids[1], .first_vcpu = 2, .n_vcpus = 1, .run_ns = 3, .wait_ns = 4};
    f->times->windows_ns[0] = 15 * NSEC_PER_SEC;
    f->times->windows_ns[1] = 90 * NSEC_PER_SEC;
    for (size_t i = 0; i < (peaks_by_vcpu ? 6u : 4u); i++)
        f->times->peaks[i] = i * 250000000;
}

static char *render(struct fixture *f, const char *yaml, enum exposition_format format)
{
    struct config_error error;
    config_unref(f->stage.config);
    ck_assert_int_eq(config_parse("test", yaml, strlen(yaml), &f->stage.config, &error), 0);
    struct exposition *exposition = stage_exposition(&f->stage);
    cputimes_publish(&f->stage.store->cputimes, f->times);
    char *text = stage_render(&f->stage, exposition, NULL, format);
    exposition_free(exposition);
    return text;
}

START_TEST(of_vcpus)
{
    struct fixture f;
    fixture_init(&f, false);
    CLEANUP_FREE char *text = render(&f, "{}", _i);
    assert_line(text, "kvm_vcpu_cpu_seconds_total{vm=\"a\",vcpu=\"0\"} 1.500000001");
    assert_line(text, "kvm_vcpu_cpu_seconds_total{vm=\"a\",vcpu=\"5\"} 18446744073.709551615");
    assert_line(text, "kvm_vcpu_cpu_seconds_total{vm=\"b\\\"\",vcpu=\"1\"} 0.000000003");
    assert_line(text, "kvm_vcpu_runqueue_wait_seconds_total{vm=\"a\",vcpu=\"0\"} 0");
    ck_assert_int_eq(count_of(text, "kvm_vcpu_cpu_seconds_total{"), 3);
    ck_assert_int_eq(count_of(text, "kvm_vcpu_runqueue_wait_seconds_total{"), 3);
    /* Of a VM some of whose vCPUs are not known there is no sum. */
    assert_line(text, "kvm_vcpu_runqueue_wait_peak_ratio{vm=\"a\",window=\"15s\"} 0");
    assert_line(text, "kvm_vcpu_runqueue_wait_peak_ratio{vm=\"a\",window=\"90s\"} 0.25");
    ck_assert_int_eq(count_of(text, "peak_ratio{"), 2);
    if (_i == EXPOSITION_OPENMETRICS) {
        assert_line(text, "# TYPE kvm_vcpu_cpu_seconds counter");
        assert_line(text, "# UNIT kvm_vcpu_runqueue_wait_seconds seconds");
    } else {
        assert_line(text, "# TYPE kvm_vcpu_cpu_seconds_total counter");
        assert_line(text, "# TYPE kvm_vcpu_runqueue_wait_peak_ratio gauge");
    }
    stage_deinit(&f.stage);
}
END_TEST

START_TEST(of_vms)
{
    struct fixture f;
    fixture_init(&f, true);
    f.times->peaks[3] = CPUTIMES_NO_PEAK;
    CLEANUP_FREE char *text = render(&f, "metrics: {vcpu: false}", _i);
    assert_line(text, "kvm_vcpu_cpu_seconds_total{vm=\"a\"} 2");
    assert_line(text, "kvm_vcpu_runqueue_wait_seconds_total{vm=\"a\"} 0.000000071");
    ck_assert_int_eq(count_of(text, "kvm_vcpu_cpu_seconds_total{"), 1);
    assert_line(text, "kvm_vcpu_runqueue_wait_peak_ratio{vm=\"a\",vcpu=\"5\",window=\"15s\"} 0.5");
    assert_line(text,
                "kvm_vcpu_runqueue_wait_peak_ratio{vm=\"b\\\"\",vcpu=\"1\",window=\"90s\"} 1.25");
    ck_assert_int_eq(count_of(text, "peak_ratio{"), 5); /* what was not observed is absent */
    stage_deinit(&f.stage);
}
END_TEST

/* The reading is older or newer than the view: the view says which VMs there are. */
START_TEST(of_those_in_the_view)
{
    struct fixture f;
    fixture_init(&f, false);
    atomic_store(&f.stage.vms[0].vm->gone, true);
    f.times->vms[1].id += 1000;
    CLEANUP_FREE char *text = render(&f, "{}", _i);
    assert_lacks(text, "cpu_seconds_total{vm");
    assert_lacks(text, "runqueue"); /* nor a family without samples */
    stage_deinit(&f.stage);
}
END_TEST

START_TEST(of_nothing)
{
    struct fixture f;
    fixture_init(&f, false);
    cputimes_unref(f.times);
    f.times = NULL;
    CLEANUP_FREE char *text = render(&f, "{}", _i);
    assert_lacks(text, "runqueue");
    stage_deinit(&f.stage);
}
END_TEST

/* A statistic that KVM may come to have keeps its raw name, and there are no two of one name. */
START_TEST(names_are_taken)
{
    struct fixture f;
    fixture_init(&f, false);
    CLEANUP_FREE char *text = render(&f, "{}", _i);
    ck_assert_int_eq(count_of(text, "# HELP kvm_vcpu_cpu_seconds"), 1);
    ck_assert_int_eq(count_of(text, "# TYPE kvm_vcpu_cpu_ns"), 1);
    stage_deinit(&f.stage);
}
END_TEST

Suite *threads_suite(void)
{
    Suite *suite = suite_create("times of threads");
    TCase *tc = tcase_create("threads");
    tcase_add_loop_test(tc, of_vcpus, 0, EXPOSITION_OPENMETRICS + 1);
    tcase_add_loop_test(tc, of_vms, 0, EXPOSITION_OPENMETRICS + 1);
    tcase_add_loop_test(tc, of_those_in_the_view, 0, EXPOSITION_OPENMETRICS + 1);
    tcase_add_loop_test(tc, of_nothing, 0, EXPOSITION_OPENMETRICS + 1);
    tcase_add_loop_test(tc, names_are_taken, 0, EXPOSITION_OPENMETRICS + 1);
    suite_add_tcase(suite, tc);
    return suite;
}
