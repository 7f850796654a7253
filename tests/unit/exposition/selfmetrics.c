/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "stage.h"
#include "suites.h"

static char *render(struct store *store, const struct roster *roster, enum exposition_format format)
{
    struct stage stage;
    stage_init(&stage);
    struct store *own = stage.store;
    stage.store = store ? store : own;
    struct exposition *exposition = stage_exposition(&stage);
    char *text = stage_render(&stage, exposition, roster, format);
    exposition_free(exposition);
    stage.store = own;
    stage_deinit(&stage);
    return text;
}

START_TEST(a_roster)
{
    struct roster roster = {
        .read = 3,
        .kernel_vms = 9,
        .targets = {
            [SCOPE_VM][TARGET_SOURCE_STATSFD] = 2, [SCOPE_VCPU][TARGET_SOURCE_STATSFD] = 8}};
    roster.unreadable[UNREADABLE_NO_STATS_FD] = 4;
    roster.unreadable[UNREADABLE_DISABLED] = 5;
    CLEANUP_FREE char *text = render(NULL, &roster, _i);
    assert_line(text, "kvmstatd_vms 3");
    assert_line(text, "kvmstatd_kernel_vms 9");
    assert_line(text, "kvmstatd_vms_unreadable{reason=\"no_stats_fd\"} 4");
    assert_line(text, "kvmstatd_vms_unreadable{reason=\"ambiguous\"} 0");
    ck_assert_int_eq(count_of(text, "kvmstatd_vms_unreadable{"), UNREADABLE_REASONS - 2);
    assert_lacks(text, "reason=\"disabled\"");
    assert_lacks(text, "reason=\"\"");
    assert_line(text, "kvmstatd_targets{scope=\"vm\",source=\"statsfd\"} 2");
    assert_line(text, "kvmstatd_targets{scope=\"vcpu\",source=\"statsfd\"} 8");
}
END_TEST

/* What isn't known is absent. */
START_TEST(unknowns)
{
    struct roster roster = {.kernel_vms = -1};
    CLEANUP_FREE char *silent_kernel = render(NULL, &roster, _i);
    assert_lacks(silent_kernel, "kvmstatd_kernel_vms");
    CLEANUP_FREE char *no_roster = render(NULL, NULL, _i);
    assert_lacks(no_roster, "kvmstatd_vms");
    assert_lacks(no_roster, "kvmstatd_targets");
    assert_lacks(no_roster, "kvmstatd_config_last_reload_success_timestamp_seconds");
}
END_TEST

START_TEST(counts_of_its_own)
{
    struct store *store;
    ck_assert_int_eq(store_new(&store), 0);
    store->self.ticks = 11;
    store->self.ticks_missed = 1;
    store->self.read_errors[READ_ERROR_IO] = 6;
    store->self.handoff_rejected[HANDOFF_REJECT_PEER] = 7;
    store->self.render_duration_ns = 2500000;
    store->self.config_reload_ok = true;
    store->self.config_reload_ok_wall_ns = 1700000000500000000;
    selfhist_observe(&store->self.sweep_duration, 20000);
    selfhist_observe(&store->self.sweep_duration, 2000000000);
    CLEANUP_FREE char *text = render(store, NULL, _i);
    assert_line(text, "kvmstatd_build_info{version=\"1.2.3\",revision=\"abc\"} 1");
    assert_line(text, "kvmstatd_ticks_total 11");
    assert_line(text, "kvmstatd_ticks_missed_total 1");
    assert_line(text, "kvmstatd_read_errors_total{reason=\"short\"} 0");
    assert_line(text, "kvmstatd_read_errors_total{reason=\"io\"} 6");
    assert_line(text, "kvmstatd_handoff_rejected_total{reason=\"peer\"} 7");
    assert_line(text, "kvmstatd_render_duration_seconds 0.0025");
    assert_line(text, "kvmstatd_config_last_reload_successful 1");
    assert_line(text, "kvmstatd_config_last_reload_success_timestamp_seconds 1700000000.5");
    assert_line(text, "kvmstatd_sweep_duration_seconds_bucket{le=\"0.00001\"} 0\n"
                      "kvmstatd_sweep_duration_seconds_bucket{le=\"0.000025\"} 1");
    assert_line(text, "kvmstatd_sweep_duration_seconds_bucket{le=\"1.0\"} 1\n"
                      "kvmstatd_sweep_duration_seconds_bucket{le=\"+Inf\"} 2\n"
                      "kvmstatd_sweep_duration_seconds_sum 2.00002\n"
                      "kvmstatd_sweep_duration_seconds_count 2");
    assert_line(text, "kvmstatd_discovery_seconds_count 0");
    assert_line(text, "kvmstatd_release_seconds_count 0");
    assert_line(text, "kvmstatd_tick_lateness_seconds_count 0");
    /* Rendering has told how long it took. */
    ck_assert_int_ne(store->self.render_duration_ns, 2500000);
    store_free(store);
}
END_TEST

static double value_of(const char *text, const char *name)
{
    double value = -1;
    char start[128];
    (void)snprintf(start, sizeof start, "\n%s ", name);
    const char *line = strstr(text, start);
    ck_assert_msg(line != NULL, "no sample %s", name);
    ck_assert_int_eq(sscanf(line + strlen(start), "%lf", &value), 1);
    return value;
}

START_TEST(the_process)
{
    CLEANUP_FREE char *before = render(NULL, NULL, _i);
    int fds[3] = {dup(0), dup(0), dup(0)};
    CLEANUP_FREE char *text = render(NULL, NULL, _i);
    double now = (double)time(NULL);
    ck_assert_double_gt(value_of(text, "process_cpu_seconds_total"), 0);
    /* QEMU's emulation of user programs makes up a /proc/self/stat: no memory, no threads in it. */
    if (!getenv("KVMSTATD_EMULATOR")) {
        ck_assert_double_gt(value_of(text, "process_resident_memory_bytes"), 100e3);
        ck_assert_double_ge(value_of(text, "process_threads"), 1);
    }
    ck_assert_double_ge(value_of(text, "process_virtual_memory_bytes"),
                        value_of(text, "process_resident_memory_bytes"));
    ck_assert_double_eq(value_of(text, "process_open_fds"),
                        value_of(before, "process_open_fds") + 3);
    ck_assert_double_gt(value_of(text, "process_max_fds"), value_of(text, "process_open_fds"));
    ck_assert_double_gt(value_of(text, "process_start_time_seconds"), now - 1e6);
    ck_assert_double_le(value_of(text, "process_start_time_seconds"), now + 1);
    ck_assert_double_gt(value_of(text, "kvmstatd_render_duration_seconds"), 0);
    close(fds[0]);
    close(fds[1]);
    close(fds[2]);
}
END_TEST

Suite *selfmetrics_suite(void)
{
    Suite *suite = suite_create("selfmetrics");
    TCase *tc = tcase_create("selfmetrics");
    tcase_add_loop_test(tc, a_roster, 0, 2);
    tcase_add_loop_test(tc, unknowns, 0, 2);
    tcase_add_loop_test(tc, counts_of_its_own, 0, 2);
    tcase_add_loop_test(tc, the_process, 0, 2);
    suite_add_tcase(suite, tc);
    return suite;
}
