/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From ticks to peaks and distributions, through the real planner and sampler: each rate must be
 * what the readings in the frames and their times say.
 */
#include <string.h>

#include "clock.h"
#include "rig.h"
#include "suites.h"

/* One tick, whenever it is due. */
static void tick(struct rig *rig)
{
    uint64_t ticks = atomic_load(&rig->store->self.ticks);
    for (int i = 0; i < 10000 && atomic_load(&rig->store->self.ticks) == ticks; i++) {
        sleep_ms(1);
        rig_step(rig);
    }
    ck_assert_uint_gt(atomic_load(&rig->store->self.ticks), ticks);
}

/* What the newest frame says of a target. */
struct seen {
    uint64_t exits;
    int64_t read_ns;
    enum target_status status;
};

static struct seen look(struct rig *rig, const struct fake_vm *vm, int32_t vcpu)
{
    struct view view;
    struct seen seen = {0};
    ck_assert_int_eq(view_take(rig->store, &view), 0);
    for (size_t i = 0; i < view.n_vms; i++) {
        const struct view_vm *v = &view.vms[i];
        for (uint32_t t = 0; v->vm->vm->id == vm->id && t < v->vm->n_targets; t++) {
            if (v->targets[t].vcpu != vcpu)
                continue;
            seen.status = (enum target_status)v->status[t];
            seen.read_ns = v->frame->read_ns[v->vm->first_target + t];
            memcpy(&seen.exits, frame_block(v->frame, &v->targets[t]), sizeof seen.exits);
        }
    }
    view_drop(&view);
    return seen;
}

static double rate_over(struct seen before, struct seen now, int64_t resolution_ns)
{
    int64_t gap_ns = MAX_OF(now.read_ns - before.read_ns, resolution_ns);
    return (double)(now.exits - before.exits) * 1e9 / (double)gap_ns;
}

/* At intervals of 5 ms. After a late tick the next one may come soon: half of that counts. */
static double rate_between(struct seen before, struct seen now)
{
    return rate_over(before, now, 5 * NSEC_PER_MSEC / 2);
}

/* What is kept of a VM; vcpu -1: of all its vCPUs, or of the VM scope. */
struct kept {
    struct bursts *bursts; /* a reference; NULL: nothing is */
    struct burst_set *set; /* NULL: not of this one */
    int64_t now_ns;
};

static struct kept kept_of(struct rig *rig, const struct fake_vm *vm, enum scope scope,
                           int32_t vcpu)
{
    struct view view;
    struct kept kept = {0};
    ck_assert_int_eq(view_take(rig->store, &view), 0);
    for (size_t i = 0; i < view.n_vms; i++) {
        if (view.vms[i].vm->vm->id == vm->id && view.vms[i].vm->bursts) {
            kept.bursts = bursts_ref(view.vms[i].vm->bursts);
            kept.now_ns = view.vms[i].frame->end_ns;
        }
    }
    view_drop(&view);
    for (uint32_t p = 0; kept.bursts && p < kept.bursts->n_sets; p++) {
        if (kept.bursts->parts[p].scope == scope && kept.bursts->parts[p].vcpu == vcpu)
            kept.set = kept.bursts->parts[p].set;
    }
    return kept;
}

/* The peak of the rate of exits; negative: none. */
static double peak(struct rig *rig, const struct fake_vm *vm, int32_t vcpu)
{
    struct kept kept = kept_of(rig, vm, SCOPE_VCPU, vcpu);
    ck_assert_ptr_nonnull(kept.set);
    ck_assert_str_eq(kept.set->stats->descs[0]->name, "exits");
    uint64_t key = windows_read(kept.set->windows[0], 0, kept.now_ns);
    bursts_unref(kept.bursts);
    return key == WINDOW_NOTHING ? -1 : window_double_of_key(key);
}

static uint64_t observations(struct rig *rig, const struct fake_vm *vm, int32_t vcpu)
{
    struct kept kept = kept_of(rig, vm, SCOPE_VCPU, vcpu);
    uint64_t n = 0;
    ck_assert_ptr_nonnull(kept.set);
    for (size_t i = 0; i < DISTRIBUTION_CLASSIC; i++)
        n += kept.set->distributions[0]->classic[i];
    bursts_unref(kept.bursts);
    return n;
}

static const char quick[] = "sampling: {interval: 5ms}\n";

/* A VM with two vCPUs, read once. */
struct pair {
    struct rig rig;
    struct fake_vm vm;
    int fds[2];
};

static void pair_start(struct pair *p, const char *yaml)
{
    rig_prepare(&p->rig, yaml);
    p->vm = fake_vm_start(&p->rig, "web");
    p->fds[0] = fake_target(&p->rig, &p->vm, 0);
    p->fds[1] = fake_target(&p->rig, &p->vm, 1);
    fake_target_set(p->fds[0], 1000000);
    fake_target_set(p->fds[1], 5);
    ck_assert_int_eq(planner_commit(p->rig.planner), 0);
    rig_step(&p->rig);
}

static void pair_stop(struct pair *p)
{
    close(p->fds[0]);
    close(p->fds[1]);
    rig_stop(&p->rig);
    fake_vm_kill(&p->vm);
}

START_TEST(rate_is_what_the_readings_say)
{
    struct pair p;
    pair_start(&p, quick);
    ck_assert(peak(&p.rig, &p.vm, -1) < 0); /* one reading is no rate */
    ck_assert_uint_eq(observations(&p.rig, &p.vm, -1), 0);
    double highest = 0;
    for (unsigned i = 1; i <= 20; i++) {
        struct seen a = look(&p.rig, &p.vm, 0), b = look(&p.rig, &p.vm, 1);
        fake_target_set(p.fds[0], a.exits + testing_random_below(1000));
        fake_target_set(p.fds[1], b.exits + testing_random_below(1000));
        if (i % 5 == 0)
            sleep_ms(20); /* missed ticks lengthen the time */
        tick(&p.rig);
        double rate =
            rate_between(a, look(&p.rig, &p.vm, 0)) + rate_between(b, look(&p.rig, &p.vm, 1));
        highest = MAX_OF(highest, rate);
        ck_assert(peak(&p.rig, &p.vm, -1) == highest);
        ck_assert_uint_eq(observations(&p.rig, &p.vm, -1), i);
    }
    pair_stop(&p);
}
END_TEST

/* It adds nothing while it cannot be read; what it gained meanwhile is spread over that time. */
START_TEST(held_vcpu_comes_back_without_a_spike)
{
    struct pair p;
    pair_start(&p, quick);
    tick(&p.rig);
    ck_assert(peak(&p.rig, &p.vm, -1) == 0);
    struct seen before = look(&p.rig, &p.vm, 0), other;
    fake_target_break(p.fds[0]);
    for (int i = 0; i < 4; i++) {
        tick(&p.rig);
        ck_assert_int_eq(look(&p.rig, &p.vm, 0).status, TARGET_HELD);
        ck_assert(peak(&p.rig, &p.vm, -1) == 0);
    }
    ck_assert_uint_eq(observations(&p.rig, &p.vm, -1), 5); /* of the other one */
    other = look(&p.rig, &p.vm, 1);
    fake_target_set_pages(p.fds[0], 0);
    fake_target_set(p.fds[0], before.exits + 100000);
    tick(&p.rig);
    struct seen after = look(&p.rig, &p.vm, 0);
    ck_assert_int_eq(after.status, TARGET_READ);
    ck_assert(peak(&p.rig, &p.vm, -1) == rate_between(before, after));
    ck_assert_int_gt(after.read_ns - before.read_ns, after.read_ns - other.read_ns);

    fake_target_break(p.fds[0]); /* and where none can be read there is no observation */
    fake_target_break(p.fds[1]);
    uint64_t n = observations(&p.rig, &p.vm, -1);
    tick(&p.rig);
    ck_assert_uint_eq(observations(&p.rig, &p.vm, -1), n);
    pair_stop(&p);
}
END_TEST

START_TEST(counter_that_went_back_is_no_observation)
{
    struct pair p;
    pair_start(&p, "sampling: {interval: 5ms}\nbursts: {scope: vcpu}\n");
    fake_target_set(p.fds[0], 10);
    tick(&p.rig);
    ck_assert(peak(&p.rig, &p.vm, 0) < 0);
    ck_assert_uint_eq(observations(&p.rig, &p.vm, 0), 0);
    ck_assert(peak(&p.rig, &p.vm, 1) == 0);
    struct seen before = look(&p.rig, &p.vm, 0);
    fake_target_set(p.fds[0], 30);
    tick(&p.rig);
    ck_assert(peak(&p.rig, &p.vm, 0) == rate_between(before, look(&p.rig, &p.vm, 0)));
    ck_assert_uint_eq(observations(&p.rig, &p.vm, 0), 1);
    ck_assert_uint_eq(observations(&p.rig, &p.vm, 1), 2);
    pair_stop(&p);
}
END_TEST

/* Of all vCPUs together: what the others gained is no rate of the whole. */
START_TEST(sum_of_which_one_went_back_is_no_observation)
{
    struct pair p;
    pair_start(&p, quick);
    fake_target_set(p.fds[0], 10);
    fake_target_set(p.fds[1], 1000);
    tick(&p.rig);
    ck_assert(peak(&p.rig, &p.vm, -1) < 0);
    ck_assert_uint_eq(observations(&p.rig, &p.vm, -1), 0);
    struct seen a = look(&p.rig, &p.vm, 0), b = look(&p.rig, &p.vm, 1);
    fake_target_set(p.fds[0], 30);
    fake_target_set(p.fds[1], 1001);
    tick(&p.rig);
    double rate = rate_between(a, look(&p.rig, &p.vm, 0)) + rate_between(b, look(&p.rig, &p.vm, 1));
    ck_assert(peak(&p.rig, &p.vm, -1) == rate);
    ck_assert_uint_eq(observations(&p.rig, &p.vm, -1), 1);
    fake_target_set(p.fds[0], 40);
    fake_target_set(p.fds[1], 1); /* in whichever order */
    tick(&p.rig);
    ck_assert_uint_eq(observations(&p.rig, &p.vm, -1), 1);
    pair_stop(&p);
}
END_TEST

/* A vCPU with a past joins: its first reading is no burst, its second counts. */
START_TEST(plugged_vcpu_counts_from_its_second_reading)
{
    struct pair p;
    pair_start(&p, quick);
    tick(&p.rig);
    int fd = fake_target(&p.rig, &p.vm, 2);
    fake_target_set(fd, UINT64_C(1) << 40);
    ck_assert_int_eq(planner_commit(p.rig.planner), 0);
    tick(&p.rig);
    ck_assert_int_eq(look(&p.rig, &p.vm, 2).status, TARGET_READ);
    ck_assert(peak(&p.rig, &p.vm, -1) == 0);
    struct seen before = look(&p.rig, &p.vm, 2);
    fake_target_set(fd, before.exits + 50);
    tick(&p.rig);
    ck_assert(peak(&p.rig, &p.vm, -1) == rate_between(before, look(&p.rig, &p.vm, 2)));
    close(fd);
    pair_stop(&p);
}
END_TEST

/* Unplugged and back: its distribution goes on, as the kernel's counters do. */
START_TEST(vcpu_that_comes_back_goes_on)
{
    struct pair p;
    pair_start(&p, "sampling: {interval: 5ms}\nbursts: {scope: vcpu}\n");
    tick(&p.rig);
    tick(&p.rig);
    ck_assert_uint_eq(observations(&p.rig, &p.vm, 1), 2);
    planner_target_remove(p.rig.planner, p.vm.planned, 1);
    ck_assert_int_eq(planner_commit(p.rig.planner), 0);
    tick(&p.rig);
    struct kept kept = kept_of(&p.rig, &p.vm, SCOPE_VCPU, 1);
    ck_assert_ptr_null(kept.set);
    bursts_unref(kept.bursts);
    close(p.fds[1]);
    p.fds[1] = fake_target(&p.rig, &p.vm, 1);
    ck_assert_int_eq(planner_commit(p.rig.planner), 0);
    tick(&p.rig);
    tick(&p.rig);
    ck_assert_uint_ge(observations(&p.rig, &p.vm, 1), 3);
    ck_assert_uint_ge(observations(&p.rig, &p.vm, 0), 4);
    pair_stop(&p);
}
END_TEST

/* Other VMs come, and it moves to another rate group: the peak and the distribution stay. */
START_TEST(layouts_and_moves_lose_nothing)
{
    struct pair p;
    pair_start(&p, quick);
    fake_target_set(p.fds[1], 1000005);
    tick(&p.rig);
    double high = peak(&p.rig, &p.vm, -1);
    ck_assert(high > 0);
    struct fake_vm other = fake_vm_start(&p.rig, "a");
    close(fake_target(&p.rig, &other, 0));
    ck_assert_int_eq(planner_commit(p.rig.planner), 0);
    tick(&p.rig);
    ck_assert(peak(&p.rig, &p.vm, -1) == high);
    rig_set_config(&p.rig, "sampling:\n"
                           "  interval: 5ms\n"
                           "  rules: [{match: {vm: web}, interval: 10ms}]\n");
    ck_assert_int_eq(planner_commit(p.rig.planner), 0);
    tick(&p.rig);
    tick(&p.rig);
    ck_assert_int_eq(planner_vm_interval_ns(p.vm.planned), 10 * NSEC_PER_MSEC);
    ck_assert(peak(&p.rig, &p.vm, -1) == high);
    ck_assert_uint_ge(observations(&p.rig, &p.vm, -1), 3);
    pair_stop(&p);
    fake_vm_kill(&other);
}
END_TEST

/* The tick in which a target begins to be read another way has a rate like any other. */
START_TEST(change_of_source_has_no_gap)
{
    struct pair p;
    pair_start(&p, quick);
    tick(&p.rig);
    struct seen before = look(&p.rig, &p.vm, 1);
    int fd = fake_target_from(&p.rig, &p.vm, 1, TARGET_SOURCE_HANDOFF);
    fake_target_set(fd, before.exits + 70000);
    ck_assert_int_eq(planner_commit(p.rig.planner), 0);
    tick(&p.rig);
    ck_assert(peak(&p.rig, &p.vm, -1) == rate_between(before, look(&p.rig, &p.vm, 1)));
    close(fd);
    pair_stop(&p);
}
END_TEST

/* Nor the one by which it has been taken away and added again, both before the same commit. */
START_TEST(removed_and_back_in_one_commit_has_no_gap)
{
    struct pair p;
    pair_start(&p, quick);
    tick(&p.rig);
    struct seen before = look(&p.rig, &p.vm, 1);
    planner_target_remove(p.rig.planner, p.vm.planned, 1);
    close(p.fds[1]);
    p.fds[1] = fake_target_from(&p.rig, &p.vm, 1, TARGET_SOURCE_HANDOFF);
    fake_target_set(p.fds[1], before.exits + 70000);
    ck_assert_int_eq(planner_commit(p.rig.planner), 0);
    tick(&p.rig);
    ck_assert(peak(&p.rig, &p.vm, -1) == rate_between(before, look(&p.rig, &p.vm, 1)));
    pair_stop(&p);
}
END_TEST

/* A VM that comes to a slow group has it all read at once. */
static struct fake_vm join(struct pair *p, const char *name)
{
    struct fake_vm vm = fake_vm_start(&p->rig, name);
    close(fake_target(&p->rig, &vm, 0));
    ck_assert_int_eq(planner_commit(p->rig.planner), 0);
    rig_step(&p->rig);
    return vm;
}

/* Of ticks whose interval is long. */
static const int64_t resolution_ns = 50 * NSEC_PER_MSEC;

/* Ticks come early where VMs join: a single exit in a millisecond is no thousand a second. */
START_TEST(early_tick_fakes_no_spike)
{
    struct pair p;
    pair_start(&p, "sampling: {interval: 10s}\n");
    fake_target_set(p.fds[1], 6);
    struct seen before = look(&p.rig, &p.vm, 1);
    struct fake_vm other = join(&p, "a");
    ck_assert_uint_eq(look(&p.rig, &p.vm, 1).exits, 6);
    ck_assert(peak(&p.rig, &p.vm, -1) == rate_over(before, look(&p.rig, &p.vm, 1), resolution_ns));
    pair_stop(&p);
    fake_vm_kill(&other);
}
END_TEST

/* Where VMs join all the time, ticks are early all the time: they count by their own time. */
START_TEST(early_ticks_in_a_row_have_real_rates)
{
    struct pair p;
    struct fake_vm others[3];
    double highest = 0;
    pair_start(&p, "sampling: {interval: 10s}\n");
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        struct seen before = look(&p.rig, &p.vm, 0);
        fake_target_set(p.fds[0], before.exits + 100 * (i + 1));
        while (clock_now_ns() <= before.read_ns + resolution_ns)
            sleep_ms(1);
        others[i] = join(&p, "other");
        struct seen now = look(&p.rig, &p.vm, 0);
        ck_assert_uint_ne(now.exits, before.exits);
        highest = MAX_OF(highest, rate_over(before, now, 0));
        ck_assert(peak(&p.rig, &p.vm, -1) == highest);
    }
    pair_stop(&p);
    for (size_t i = 0; i < ARRAY_LEN(others); i++)
        fake_vm_kill(&others[i]);
}
END_TEST

/* A VM that can't be read any more must not keep its last peak: its windows go on sliding. */
START_TEST(peak_of_an_unreadable_vm_goes)
{
    struct pair p;
    pair_start(&p, "sampling: {interval: 5ms}\nbursts: {windows: [1s]}\n");
    fake_target_set(p.fds[1], 100);
    tick(&p.rig);
    ck_assert(peak(&p.rig, &p.vm, -1) > 0);
    fake_target_break(p.fds[0]);
    fake_target_break(p.fds[1]);
    int64_t until_ns = clock_now_ns() + NSEC_PER_SEC + 2 * NSEC_PER_SEC / WINDOW_PARTS;
    while (clock_now_ns() <= until_ns)
        tick(&p.rig);
    tick(&p.rig); /* one that has begun after that time */
    ck_assert(peak(&p.rig, &p.vm, -1) < 0);
    pair_stop(&p);
}
END_TEST

static uint64_t level(struct rig *rig, const struct fake_vm *vm, bool low)
{
    struct kept kept = kept_of(rig, vm, SCOPE_VCPU, -1);
    ck_assert_ptr_nonnull(kept.set);
    const struct burst_stats *stats = kept.set->stats;
    ck_assert_uint_eq(stats->n_stats, stats->n_rates + 1);
    uint32_t series = burst_series_of_high(stats, stats->n_rates) + low;
    uint64_t key = windows_read(kept.set->windows[0], series, kept.now_ns);
    bursts_unref(kept.bursts);
    ck_assert_uint_ne(key, WINDOW_NOTHING);
    return low ? window_low_of_key(key) : window_high_of_key(key);
}

/* A gauge's highest and lowest sums; one that lacks a vCPU is neither. */
START_TEST(gauges_have_a_high_and_a_low)
{
    struct pair p;
    pair_start(&p, "sampling: {interval: 5ms}\nbursts: {stats: [\"*\"]}\n");
    ck_assert_uint_eq(level(&p.rig, &p.vm, false), 0);
    rig_stop(&p.rig);
    fake_vm_kill(&p.vm);

    struct pair q;
    rig_prepare(&q.rig, "sampling: {interval: 5ms}\nbursts: {stats: [\"*\"]}\n");
    q.vm = fake_vm_start(&q.rig, "web");
    for (int i = 0; i < 2; i++) {
        q.fds[i] = fake_target(&q.rig, &q.vm, i);
        fake_target_set_pages(q.fds[i], 9007199254740993);
    }
    ck_assert_int_eq(planner_commit(q.rig.planner), 0);
    rig_step(&q.rig);
    ck_assert_uint_eq(level(&q.rig, &q.vm, true), UINT64_C(2) * 9007199254740993);
    fake_target_set_pages(q.fds[0], 9007199254740992);
    tick(&q.rig);
    ck_assert_uint_eq(level(&q.rig, &q.vm, true), UINT64_C(2) * 9007199254740993 - 1);
    ck_assert_uint_eq(level(&q.rig, &q.vm, false), UINT64_C(2) * 9007199254740993);
    fake_target_break(q.fds[1]);
    tick(&q.rig);
    ck_assert_int_eq(look(&q.rig, &q.vm, 1).status, TARGET_HELD);
    ck_assert_uint_eq(level(&q.rig, &q.vm, true), UINT64_C(2) * 9007199254740993 - 1);
    pair_stop(&q);
}
END_TEST

static uint64_t key_in(const struct kept *kept, size_t window)
{
    return windows_read(kept->set->windows[window], 0, kept->now_ns);
}

/* SIGHUP: windows and distributions that stay go on, what is new begins, what is not wanted goes.
 */
START_TEST(configuration_keeps_what_stays)
{
    struct pair p;
    pair_start(&p, "sampling: {interval: 5ms}\nbursts: {windows: [1h, 15s]}\n");
    fake_target_set(p.fds[1], 1000005);
    tick(&p.rig);
    double high = peak(&p.rig, &p.vm, -1);

    rig_set_config(&p.rig, "sampling: {interval: 5ms}\nbursts: {windows: [30s, 15s]}\n");
    ck_assert_int_eq(planner_commit(p.rig.planner), 0);
    tick(&p.rig);
    struct kept kept = kept_of(&p.rig, &p.vm, SCOPE_VCPU, -1);
    ck_assert_uint_eq(kept.set->stats->n_windows, 2);
    ck_assert_str_eq(kept.set->stats->window_labels[0], "30s");
    ck_assert_str_eq(kept.set->stats->window_labels[1], "15s");
    ck_assert(window_double_of_key(key_in(&kept, 0)) < high);
    ck_assert(window_double_of_key(key_in(&kept, 1)) == high);
    bursts_unref(kept.bursts);
    ck_assert_uint_ge(observations(&p.rig, &p.vm, -1), 2);

    rig_set_config(&p.rig, "sampling: {interval: 5ms}\nbursts: {stats: []}\n");
    ck_assert_int_eq(planner_commit(p.rig.planner), 0);
    tick(&p.rig);
    kept = kept_of(&p.rig, &p.vm, SCOPE_VCPU, -1);
    ck_assert_uint_eq(kept.set->stats->n_peaks, 0);
    bursts_unref(kept.bursts);
    ck_assert_uint_ge(observations(&p.rig, &p.vm, -1), 3);

    rig_set_config(&p.rig, "sampling: {interval: 5ms}\nbursts: {stats: [], distribution: []}\n");
    ck_assert_int_eq(planner_commit(p.rig.planner), 0);
    tick(&p.rig);
    ck_assert_ptr_null(kept_of(&p.rig, &p.vm, SCOPE_VCPU, -1).bursts);
    pair_stop(&p);
}
END_TEST

/* VMs, vCPUs and rates change at random, with the threads on: nothing breaks, nothing leaks. */
START_TEST(churn_with_readers)
{
    struct rig rig;
    int fds[4] = {-1, -1, -1, -1};
    rig_start(&rig, "sampling: {interval: 1ms}\nbursts: {scope: vcpu}\n");
    struct fake_vm vm = fake_vm_start(&rig, "web");
    fds[0] = fake_target(&rig, &vm, 0);
    for (int i = 0; i < 300; i++) {
        int at = 1 + (int)testing_random_below(3);
        if (fds[at] < 0) {
            fds[at] = fake_target(&rig, &vm, at);
        } else {
            planner_target_remove(rig.planner, vm.planned, at);
            fds[at] = fd_close(fds[at]);
        }
        if (i % 10 == 0)
            rig_set_config(&rig, i % 20 ? "sampling: {interval: 2ms}\n"
                                        : "sampling: {interval: 1ms}\nbursts: {scope: vcpu, "
                                          "stats: [\"*\"], windows: [1s, 2s]}\n");
        ck_assert_int_eq(planner_commit(rig.planner), 0);
        struct kept kept = kept_of(&rig, &vm, SCOPE_VCPU, i % 2 ? 0 : -1);
        if (kept.set && kept.set->stats->n_windows)
            (void)windows_read(kept.set->windows[0], 0, clock_now_ns());
        sleep_ms((unsigned)testing_random_below(3));
        bursts_unref(kept.bursts); /* it may be the last reference */
    }
    for (int i = 0; i < 4; i++)
        (void)fd_close(fds[i]);
    rig_stop(&rig);
    fake_vm_kill(&vm);
}
END_TEST

Suite *bursts_suite(void)
{
    Suite *suite = suite_create("bursts");
    TCase *tc = tcase_create("bursts");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, rate_is_what_the_readings_say);
    tcase_add_test(tc, held_vcpu_comes_back_without_a_spike);
    tcase_add_test(tc, counter_that_went_back_is_no_observation);
    tcase_add_test(tc, sum_of_which_one_went_back_is_no_observation);
    tcase_add_test(tc, plugged_vcpu_counts_from_its_second_reading);
    tcase_add_test(tc, vcpu_that_comes_back_goes_on);
    tcase_add_test(tc, layouts_and_moves_lose_nothing);
    tcase_add_test(tc, change_of_source_has_no_gap);
    tcase_add_test(tc, removed_and_back_in_one_commit_has_no_gap);
    tcase_add_test(tc, early_tick_fakes_no_spike);
    tcase_add_test(tc, early_ticks_in_a_row_have_real_rates);
    tcase_add_test(tc, peak_of_an_unreadable_vm_goes);
    tcase_add_test(tc, gauges_have_a_high_and_a_low);
    tcase_add_test(tc, configuration_keeps_what_stays);
    tcase_add_test(tc, churn_with_readers);
    suite_add_tcase(suite, tc);
    return suite;
}
