/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "group.h"
#include "recorder.h"
#include "rig.h"
#include "suites.h"

static const char fast[] = "sampling: {interval: 2ms}\n";

START_TEST(values_arrive_and_follow)
{
    struct rig rig;
    rig_start(&rig, fast);
    struct fake_vm vm = fake_vm_start(&rig, "web");
    int fd = fake_target(&rig, &vm, -1), fd0 = fake_target(&rig, &vm, 0);
    fake_target_set(fd, 5);
    fake_target_set(fd0, 7);
    ck_assert_int_eq(planner_commit(rig.planner), 0);
    wait_exits(&rig, vm.id, -1, 5);
    wait_exits(&rig, vm.id, 0, 7);
    fake_target_set(fd0, 8);
    wait_exits(&rig, vm.id, 0, 8);
    ck_assert_str_eq(planner_vm_label(vm.planned), "web");
    close(fd);
    close(fd0);
    rig_stop(&rig);
    fake_vm_kill(&vm);
}
END_TEST

START_TEST(first_sample_is_timed)
{
    struct rig rig;
    uint64_t n = 0;
    rig_prepare(&rig, "sampling: {interval: 1h}\n");
    struct fake_vm vm = fake_vm_start(&rig, "web");
    close(fake_target(&rig, &vm, -1));
    ck_assert_int_eq(planner_commit(rig.planner), 0);
    rig_step(&rig);
    for (size_t i = 0; i < SELFHIST_BUCKETS_MAX; i++)
        n += rig.store->self.discovery.buckets[i];
    ck_assert_uint_eq(n, 1);
    rig_stop(&rig);
    fake_vm_kill(&vm);
}
END_TEST

START_TEST(what_a_recorder_counts_goes_with_it)
{
    struct rig rig;
    struct recorder *recorder;
    rig_prepare(&rig, "sampling: {interval: 1h}\n");
    struct selfstats *self = &rig.store->self;
    struct fake_vm vm = fake_vm_start(&rig, "web");
    close(fake_target(&rig, &vm, -1));
    ck_assert_int_eq(recorder_new(1 << 20, self, &recorder), 0);
    sampler_set_recorder(rig.sampler, recorder);
    ck_assert_int_eq(planner_commit(rig.planner), 0);
    rig_step(&rig);
    ck_assert_uint_gt(atomic_load(&self->recorder_bytes), 0);
    ck_assert_int_gt(atomic_load(&self->recorder_since_ns), 0);
    sampler_set_recorder(rig.sampler, NULL);
    rig_step(&rig);
    ck_assert_uint_eq(atomic_load(&self->recorder_bytes), 0);
    ck_assert_int_eq(atomic_load(&self->recorder_since_ns), 0);
    recorder_unref(recorder);
    rig_stop(&rig);
    fake_vm_kill(&vm);
}
END_TEST

START_TEST(newcomer_of_a_slow_group_does_not_wait)
{
    struct rig rig;
    rig_start(&rig, "sampling: {interval: 1h}\n");
    struct fake_vm a = fake_vm_start(&rig, "a");
    close(fake_target(&rig, &a, 0));
    ck_assert_int_eq(planner_commit(rig.planner), 0);
    wait_exits(&rig, a.id, 0, 0);
    struct fake_vm b = fake_vm_start(&rig, "b");
    int fd = fake_target(&rig, &b, 0);
    fake_target_set(fd, 3);
    ck_assert_int_eq(planner_commit(rig.planner), 0);
    wait_exits(&rig, b.id, 0, 3);
    close(fd);
    rig_stop(&rig);
    fake_vm_kill(&a);
    fake_vm_kill(&b);
}
END_TEST

START_TEST(exited_vmm_is_let_go_at_once)
{
    struct rig rig;
    rig_start(&rig, "sampling: {interval: 1h}\n");
    unsigned before = open_fds();
    struct fake_vm vm = fake_vm_start(&rig, "web");
    close(fake_target(&rig, &vm, -1));
    close(fake_target(&rig, &vm, 0));
    ck_assert_int_eq(planner_commit(rig.planner), 0);
    wait_exits(&rig, vm.id, 0, 0);
    ck_assert_uint_eq(open_fds(), before + 3);
    fake_vm_kill(&vm);
    /* No tick comes for an hour: it is the exit itself that must do it. */
    for (int i = 0; i < 5000 && open_fds() != before; i++)
        sleep_ms(1);
    ck_assert_uint_eq(open_fds(), before);
    ck_assert_uint_eq(seen_times(&rig, vm.id), 0);

    struct sampler_event *event = NULL;
    for (int i = 0; i < 5000 && !event; i++) {
        event = (struct sampler_event *)mailbox_collect(sampler_events(rig.sampler));
        sleep_ms(1);
    }
    ck_assert_ptr_nonnull(event);
    ck_assert_int_eq(event->kind, SAMPLER_EVENT_VM_EXITED);
    ck_assert_uint_eq(event->vm_id, vm.id);
    ck_assert_ptr_eq(planner_vm_by_id(rig.planner, event->vm_id), vm.planned);
    free(event);
    planner_vm_remove(rig.planner, vm.planned);
    ck_assert_ptr_null(planner_vm_by_id(rig.planner, vm.id));
    ck_assert_int_eq(planner_commit(rig.planner), 0);
    rig_stop(&rig);
}
END_TEST

/* The VMM exits while a plan that gives it one more target is on its way. */
START_TEST(late_target_of_an_exited_vmm_is_closed)
{
    struct rig rig;
    rig_prepare(&rig, fast);
    unsigned before = open_fds();
    struct fake_vm vm = fake_vm_start(&rig, "web");
    close(fake_target(&rig, &vm, 0));
    ck_assert_int_eq(planner_commit(rig.planner), 0);
    rig_step(&rig);
    close(fake_target(&rig, &vm, 1));
    ck_assert_int_eq(planner_commit(rig.planner), 0);
    fake_vm_kill(&vm);
    sampler_run_once(rig.sampler); /* plan and exit in one go */
    sampler_run_once(rig.sampler);
    ck_assert_int_eq(reaper_start(rig.reaper), 0);
    for (int i = 0; i < 5000 && open_fds() != before; i++)
        sleep_ms(1);
    ck_assert_uint_eq(open_fds(), before);
    rig_stop(&rig);
}
END_TEST

START_TEST(removed_vm_is_gone_and_closed)
{
    struct rig rig;
    rig_start(&rig, "sampling: {interval: 1h}\n");
    unsigned before = open_fds();
    struct fake_vm vm = fake_vm_start(&rig, "web"), other = fake_vm_start(&rig, "other");
    close(fake_target(&rig, &vm, 0));
    int fd = fake_target(&rig, &other, 0);
    fake_target_set(fd, 9);
    ck_assert_int_eq(planner_commit(rig.planner), 0);
    wait_exits(&rig, vm.id, 0, 0);
    planner_vm_remove(rig.planner, vm.planned);
    ck_assert_int_eq(planner_commit(rig.planner), 0);
    for (int i = 0; i < 5000 && seen_times(&rig, vm.id); i++)
        sleep_ms(1);
    ck_assert_uint_eq(seen_times(&rig, vm.id), 0);
    wait_exits(&rig, other.id, 0, 9);
    close(fd);
    for (int i = 0; i < 5000 && open_fds() != before + 2; i++)
        sleep_ms(1);
    ck_assert_uint_eq(open_fds(), before + 2);
    rig_stop(&rig);
    fake_vm_kill(&vm);
    fake_vm_kill(&other);
}
END_TEST

START_TEST(failed_read_holds_the_last_values)
{
    struct rig rig;
    uint8_t status = TARGET_READ;
    rig_start(&rig, fast);
    struct fake_vm vm = fake_vm_start(&rig, "web");
    int fd0 = fake_target(&rig, &vm, 0), fd1 = fake_target(&rig, &vm, 1);
    fake_target_set(fd0, 41);
    ck_assert_int_eq(planner_commit(rig.planner), 0);
    wait_exits(&rig, vm.id, 0, 41);
    ck_assert_int_eq(ftruncate(fd0, 520), 0); /* header stays, data is cut */
    for (int i = 0; i < 5000 && status != TARGET_HELD; i++) {
        ck_assert_uint_eq(seen_exits(&rig, vm.id, 0, &status), 41);
        sleep_ms(1);
    }
    ck_assert_int_eq(status, TARGET_HELD);
    ck_assert_uint_gt(rig.store->self.read_errors[READ_ERROR_SHORT], 0);
    fake_target_set(fd1, 6); /* its neighbour does not suffer */
    wait_exits(&rig, vm.id, 1, 6);
    (void)seen_exits(&rig, vm.id, 1, &status);
    ck_assert_int_eq(status, TARGET_READ);

    /* Said once, however many ticks it lasts. */
    sleep_ms(50);
    struct sampler_event *event =
        (struct sampler_event *)mailbox_collect(sampler_events(rig.sampler));
    ck_assert_ptr_nonnull(event);
    ck_assert_ptr_null(event->letter.next);
    ck_assert_int_eq(event->kind, SAMPLER_EVENT_READ_FAILED);
    ck_assert_int_eq(event->vcpu, 0);
    ck_assert_int_eq(event->error, 0);
    free(event);

    fake_target_set_pages(fd0, 0); /* whole again */
    fake_target_set(fd0, 42);
    wait_exits(&rig, vm.id, 0, 42);
    (void)seen_exits(&rig, vm.id, 0, &status);
    ck_assert_int_eq(status, TARGET_READ);
    close(fd0);
    close(fd1);
    rig_stop(&rig);
    fake_vm_kill(&vm);
}
END_TEST

/* Held values survive the change of the layout around them. */
START_TEST(held_values_are_carried_over)
{
    struct rig rig;
    uint8_t status;
    rig_prepare(&rig, "sampling: {interval: 1ms}\n");
    struct fake_vm b = fake_vm_start(&rig, "b");
    int fd = fake_target(&rig, &b, 3);
    fake_target_set(fd, 77);
    ck_assert_int_eq(planner_commit(rig.planner), 0);
    rig_step(&rig);
    ck_assert_int_eq(ftruncate(fd, 520), 0);
    struct fake_vm a = fake_vm_start(&rig, "a");
    close(fake_target(&rig, &a, 0));
    close(fake_target(&rig, &b, 1)); /* b's place moves, and so does its vCPU's */
    ck_assert_int_eq(planner_commit(rig.planner), 0);
    for (int i = 0; i < 3; i++) {
        sleep_ms(2);
        rig_step(&rig);
        ck_assert_uint_eq(seen_exits(&rig, b.id, 3, &status), 77);
    }
    ck_assert_int_eq(status, TARGET_HELD);
    close(fd);
    rig_stop(&rig);
    fake_vm_kill(&a);
    fake_vm_kill(&b);
}
END_TEST

static const struct layout_vm *find_place(struct view *view, uint64_t vm_id)
{
    for (size_t i = 0; i < view->n_vms; i++) {
        if (view->vms[i].vm->vm->id == vm_id)
            return view->vms[i].vm;
    }
    return NULL;
}

START_TEST(leaving_vcpu_keeps_its_share)
{
    struct rig rig;
    struct view view;
    rig_prepare(&rig, "sampling: {interval: 1ms}\n");
    struct fake_vm vm = fake_vm_start(&rig, "web");
    int fds[3];
    for (int i = 0; i < 3; i++) {
        fds[i] = fake_target(&rig, &vm, i);
        fake_target_set(fds[i], (uint64_t)(100 << i));
    }
    ck_assert_int_eq(planner_commit(rig.planner), 0);
    rig_step(&rig);
    fake_target_set(fds[1], 222); /* after the last tick: the last reading sees it */
    planner_target_remove(rig.planner, vm.planned, 1);
    ck_assert_int_eq(planner_target_fd(vm.planned, 1), -1);
    ck_assert_int_eq(planner_commit(rig.planner), 0);
    sleep_ms(2);
    rig_step(&rig);
    sleep_ms(2);
    rig_step(&rig);
    planner_target_remove(rig.planner, vm.planned, 0);
    ck_assert_int_eq(planner_commit(rig.planner), 0);
    sleep_ms(2);
    rig_step(&rig);
    sleep_ms(2);
    rig_step(&rig);
    ck_assert_int_eq(view_take(rig.store, &view), 0);
    const struct layout_vm *place = find_place(&view, vm.id);
    ck_assert_ptr_nonnull(place);
    ck_assert_uint_eq(place->n_targets, 1);
    ck_assert_ptr_nonnull(place->retired);
    ck_assert_uint_eq(place->retired[0], 222 + 100);
    view_drop(&view);

    /* The same vCPU comes back, as when its VMM opens its stats fd anew: it is not counted twice.
     */
    close(fds[1]);
    fds[1] = fake_target(&rig, &vm, 1);
    ck_assert_int_eq(planner_commit(rig.planner), 0);
    sleep_ms(2);
    rig_step(&rig);
    sleep_ms(2);
    rig_step(&rig);
    ck_assert_int_eq(view_take(rig.store, &view), 0);
    place = find_place(&view, vm.id);
    ck_assert_ptr_nonnull(place);
    ck_assert_uint_eq(place->retired[0], 100);
    view_drop(&view);
    for (int i = 0; i < 3; i++)
        close(fds[i]);
    rig_stop(&rig);
    fake_vm_kill(&vm);
}
END_TEST

START_TEST(limits_hold)
{
    struct rig rig;
    struct planned_vm *planned;
    const struct schema *schema = NULL;
    rig_prepare(&rig, "limits: {max_vms: 1, max_vcpus_per_vm: 1}\n");
    struct fake_vm vm = fake_vm_start(&rig, "one");
    const struct planned_vm_spec spec = {.name = "two", .pid = 1};
    unsigned before = open_fds();
    ck_assert_int_eq(planner_vm_add(rig.planner, &spec, dup(0), &planned), -ENOSPC);
    ck_assert_uint_eq(open_fds(), before);
    close(fake_target(&rig, &vm, -1));
    close(fake_target(&rig, &vm, 0));
    schema = &rig.store->schemas.entries[0];
    before = open_fds();
    ck_assert_int_eq(
        planner_target_add(rig.planner, vm.planned, 0, schema, TARGET_SOURCE_STATSFD, dup(0)),
        -EEXIST);
    ck_assert_int_eq(
        planner_target_add(rig.planner, vm.planned, 1, schema, TARGET_SOURCE_STATSFD, dup(0)),
        -ENOSPC);
    ck_assert_uint_eq(open_fds(), before);
    rig_stop(&rig);
    fake_vm_kill(&vm);
}
END_TEST

static uint64_t hist_count(const struct selfhist *hist)
{
    uint64_t n = 0;
    for (size_t i = 0; i < SELFHIST_BUCKETS_MAX; i++)
        n += hist->buckets[i];
    return n;
}

/* Overrun ticks are counted as missed, once, and not made up for. */
START_TEST(overruns_are_missed_ticks)
{
    struct rig rig;
    rig_prepare(&rig, "sampling: {interval: 50ms}\n");
    struct fake_vm vm = fake_vm_start(&rig, "web");
    close(fake_target(&rig, &vm, 0));
    ck_assert_int_eq(planner_commit(rig.planner), 0);
    rig_step(&rig);
    struct selfstats *self = &rig.store->self;
    ck_assert_uint_eq(self->ticks, 1);
    sleep_ms(225); /* ticks at 50, 100, 150 and 200 ms go by */
    rig_step(&rig);
    rig_step(&rig);
    ck_assert_uint_ge(self->ticks_missed, 3);
    /* Every grid point is either served or missed, whatever the machine was up to. */
    ck_assert_uint_le(self->ticks, 3);
    ck_assert_uint_eq(hist_count(&self->tick_lateness), self->ticks);
    rig_stop(&rig);
    fake_vm_kill(&vm);
}
END_TEST

/* A VM that moves between rate groups is in every view exactly once, with values that never fall.
 */
struct watcher {
    struct rig *rig;
    uint64_t ids[2];
    atomic_bool stop;
    atomic_ulong views;
};

static void *watch_views(void *arg)
{
    struct watcher *w = arg;
    while (!atomic_load(&w->stop)) {
        struct view view;
        unsigned times[2] = {0};
        if (view_take(w->rig->store, &view) < 0)
            abort();
        for (size_t i = 0; i < view.n_vms; i++) {
            for (int j = 0; j < 2; j++)
                times[j] += view.vms[i].vm->vm->id == w->ids[j];
        }
        view_drop(&view);
        if (times[0] != 1 || times[1] != 1)
            abort();
        atomic_fetch_add(&w->views, 1);
    }
    return NULL;
}

START_TEST(moving_vm_is_there_exactly_once)
{
    struct rig rig;
    pthread_t thread;
    rig_start(&rig, fast);
    struct fake_vm a = fake_vm_start(&rig, "a"), b = fake_vm_start(&rig, "b");
    struct fake_vm stays = fake_vm_start(&rig, "stays"); /* is served within the others' sweeps */
    close(fake_target(&rig, &a, 0));
    close(fake_target(&rig, &b, 0));
    close(fake_target(&rig, &stays, 0));
    ck_assert_int_eq(planner_commit(rig.planner), 0);
    wait_exits(&rig, a.id, 0, 0);
    wait_exits(&rig, b.id, 0, 0);
    struct watcher watcher = {.rig = &rig, .ids = {a.id, b.id}};
    ck_assert_int_eq(pthread_create(&thread, NULL, watch_views, &watcher), 0);
    for (int i = 0; i < 200; i++) {
        /* Both change places at once, now and then into new groups. */
        char yaml[256];
        snprintf(yaml, sizeof yaml,
                 "sampling: {rules: [{match: {vm: a}, interval: %dms}, "
                 "{match: {vm: b}, interval: %dms}, {match: {vm: stays}, interval: 1ms}]}\n",
                 i % 2 ? 3 : 7 + i, i % 2 ? 7 : 3);
        rig_set_config(&rig, yaml);
        ck_assert_int_eq(planner_commit(rig.planner), 0);
        sleep_ms(5);
    }
    atomic_store(&watcher.stop, true);
    pthread_join(thread, NULL);
    ck_assert_uint_gt(watcher.views, 100);
    rig_stop(&rig);
    fake_vm_kill(&stays);
    fake_vm_kill(&a);
    fake_vm_kill(&b);
}
END_TEST

/* VMs come, grow, shrink and go, some killed, while readers look: nothing leaks, nothing tears. */
START_TEST(churn_leaves_nothing_behind)
{
    enum {
        VMS = 8,
        ROUNDS = 300,
    };
    struct rig rig;
    struct fake_vm vms[VMS] = {{0}};
    rig_start(&rig, fast);
    unsigned before = open_fds();
    for (int round = 0; round < ROUNDS; round++) {
        size_t i = testing_random_below(VMS);
        struct fake_vm *vm = &vms[i];
        if (!vm->pid) {
            *vm = fake_vm_start(&rig, testing_random() & 1 ? "same" : "");
            for (int j = 0; j < 4; j++)
                close(fake_target(&rig, vm, j - 1));
        } else if (testing_random_below(3) == 0) {
            if (testing_random() & 1)
                fake_vm_kill(vm); /* the removal crosses the exit on the way */
            planner_vm_remove(rig.planner, vm->planned);
            if (kill(vm->pid, 0) == 0)
                fake_vm_kill(vm);
            *vm = (struct fake_vm){0};
        } else {
            planner_target_remove(rig.planner, vm->planned, 1);
            close(fake_target(&rig, vm, 1));
        }
        ck_assert_int_eq(planner_commit(rig.planner), 0);
        struct view view;
        ck_assert_int_eq(view_take(rig.store, &view), 0);
        view_drop(&view);
        struct letter *letter = mailbox_collect(sampler_events(rig.sampler));
        while (letter) {
            struct letter *next = letter->next;
            free(letter);
            letter = next;
        }
    }
    for (size_t i = 0; i < VMS; i++) {
        if (!vms[i].pid)
            continue;
        planner_vm_remove(rig.planner, vms[i].planned);
        fake_vm_kill(&vms[i]);
    }
    ck_assert_int_eq(planner_commit(rig.planner), 0);
    for (int i = 0; i < 5000 && open_fds() != before; i++)
        sleep_ms(1);
    ck_assert_uint_eq(open_fds(), before);
    rig_stop(&rig);
}
END_TEST

/* A long sweep of a slow group lets a fast one through. */
START_TEST(fast_group_is_served_within_a_slow_sweep)
{
    struct rig rig;
    rig_start(&rig, "sampling: {interval: 20ms, rules: [{match: {vm: fast}, interval: 1ms}]}\n");
    struct fake_vm slow = fake_vm_start(&rig, "slow"), quick = fake_vm_start(&rig, "fast");
    for (int i = 0; i < 3000; i++)
        close(fake_target(&rig, &slow, i));
    int fd = fake_target(&rig, &quick, 0);
    ck_assert_int_eq(planner_commit(rig.planner), 0);
    for (uint64_t i = 1; i <= 50; i++) {
        fake_target_set(fd, i);
        wait_exits(&rig, quick.id, 0, i);
    }
    ck_assert_uint_eq(seen_exits(&rig, slow.id, 2999, NULL), 0);
    close(fd);
    rig_stop(&rig);
    fake_vm_kill(&slow);
    fake_vm_kill(&quick);
}
END_TEST

/* A group whose sweep takes longer than its interval is due again at once, always. */
START_TEST(always_due_group_leaves_time_for_the_rest)
{
    struct rig rig;
    rig_prepare(&rig, "");
    rig.config->sampling.interval_ns = 1;
    struct fake_vm vm = fake_vm_start(&rig, "web");
    close(fake_target(&rig, &vm, 0));
    ck_assert_int_eq(planner_commit(rig.planner), 0);
    rig_step(&rig); /* adopts the plan and watches the VMM */
    fake_vm_kill(&vm);
    rig_step(&rig);
    ck_assert_uint_ge(rig.store->self.ticks, 1);
    ck_assert_uint_eq(seen_times(&rig, vm.id), 0);
    rig_stop(&rig);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("sampler");
    TCase *tc = tcase_create("sampler");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, values_arrive_and_follow);
    tcase_add_test(tc, first_sample_is_timed);
    tcase_add_test(tc, what_a_recorder_counts_goes_with_it);
    tcase_add_test(tc, newcomer_of_a_slow_group_does_not_wait);
    tcase_add_test(tc, exited_vmm_is_let_go_at_once);
    tcase_add_test(tc, late_target_of_an_exited_vmm_is_closed);
    tcase_add_test(tc, removed_vm_is_gone_and_closed);
    tcase_add_test(tc, failed_read_holds_the_last_values);
    tcase_add_test(tc, held_values_are_carried_over);
    tcase_add_test(tc, leaving_vcpu_keeps_its_share);
    tcase_add_test(tc, limits_hold);
    tcase_add_test(tc, overruns_are_missed_ticks);
    tcase_add_test(tc, moving_vm_is_there_exactly_once);
    tcase_add_test(tc, churn_leaves_nothing_behind);
    tcase_add_test(tc, fast_group_is_served_within_a_slow_sweep);
    tcase_add_test(tc, always_due_group_leaves_time_for_the_rest);
    suite_add_tcase(s, tc);
    return s;
}

int main(void)
{
    return testing_run(suite(), bursts_suite(), delayed_suite(), return_suite(), labels_suite(),
                       recorded_suite(), (Suite *)NULL);
}
