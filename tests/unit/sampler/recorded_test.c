/* SPDX-License-Identifier: Apache-2.0 */
/* What the sampler records of a VM whose targets come, go and change: all of it can be read. */
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "dumper.h"
#include "recorder.h"
#include "replay.h"
#include "rig.h"
#include "suites.h"

enum {
    VCPUS = 3,
    ROUNDS = 200,
};

/* What a frame had. */
struct seen {
    int64_t time_ns;
    uint32_t n;
    struct seen_target {
        int32_t vcpu;
        uint8_t status;
        uint64_t exits;
    } targets[VCPUS];
};

struct recorded {
    struct rig rig;
    struct recorder *recorder;
    struct fake_vm vm;
    int fds[VCPUS]; /* -1: the vCPU is not read */
    enum target_source sources[VCPUS];
    uint64_t exits;
    size_t n_seen;
    struct seen seen[ROUNDS];
};

static void start(struct recorded *r)
{
    memset(r, 0, sizeof *r);
    rig_prepare(&r->rig, "sampling: {interval: 1ms}\n");
    r->vm = fake_vm_start(&r->rig, "web");
    ck_assert_int_eq(recorder_new(8 << 20, &r->rig.store->self, &r->recorder), 0);
    sampler_set_recorder(r->rig.sampler, r->recorder);
    for (int i = 0; i < VCPUS; i++)
        r->fds[i] = -1;
}

static void stop(struct recorded *r)
{
    for (int i = 0; i < VCPUS; i++)
        (void)fd_close(r->fds[i]);
    recorder_unref(r->recorder);
    rig_stop(&r->rig);
    fake_vm_kill(&r->vm);
}

static void add(struct recorded *r, int32_t vcpu, enum target_source source)
{
    (void)fd_close(r->fds[vcpu]);
    r->sources[vcpu] = source;
    r->fds[vcpu] = fake_target_from(&r->rig, &r->vm, vcpu, source);
    fake_target_set(r->fds[vcpu], ++r->exits);
}

static void drop(struct recorded *r, int32_t vcpu)
{
    planner_target_remove(r->rig.planner, r->vm.planned, vcpu);
    r->fds[vcpu] = fd_close(r->fds[vcpu]);
}

static enum target_source other(enum target_source source)
{
    return source == TARGET_SOURCE_STATSFD ? TARGET_SOURCE_HANDOFF : TARGET_SOURCE_STATSFD;
}

static void change(struct recorded *r, int32_t vcpu)
{
    if (r->fds[vcpu] < 0) {
        add(r, vcpu, TARGET_SOURCE_STATSFD);
        return;
    }
    switch (testing_random_below(6)) {
    case 0:
        drop(r, vcpu);
        break;
    case 1: /* it goes and comes again, before anybody looks */
        drop(r, vcpu);
        add(r, vcpu, testing_random() & 1 ? TARGET_SOURCE_STATSFD : TARGET_SOURCE_HANDOFF);
        break;
    case 2: /* its successor takes over from it */
        add(r, vcpu, other(r->sources[vcpu]));
        break;
    case 3: /* and goes before it has begun */
        add(r, vcpu, other(r->sources[vcpu]));
        drop(r, vcpu);
        break;
    case 4:
        fake_target_break(r->fds[vcpu]);
        break;
    default:
        fake_target_set_pages(r->fds[vcpu], 1);
        fake_target_set(r->fds[vcpu], ++r->exits);
    }
}

/* Notes the newest frame of the VM, if it has one. */
static const struct view_vm *note(struct recorded *r, const struct view *view)
{
    if (view->n_vms == 0 || view->vms[0].vm->n_targets == 0)
        return NULL;
    const struct view_vm *vm = &view->vms[0];
    struct seen *seen = &r->seen[r->n_seen++];
    seen->time_ns = recorder_tick_ns(vm->frame, vm->vm->first_target, vm->vm->n_targets);
    seen->n = vm->vm->n_targets;
    for (uint32_t i = 0; i < seen->n; i++) {
        seen->targets[i] = (struct seen_target){vm->targets[i].vcpu, vm->status[i], 0};
        if (vm->status[i] != TARGET_ABSENT)
            memcpy(&seen->targets[i].exits, frame_block(vm->frame, &vm->targets[i]), 8);
    }
    return vm;
}

static void compare(const struct seen *seen, const struct replay *replay)
{
    ck_assert_uint_eq(replay->n_targets, seen->n);
    for (uint32_t i = 0; i < seen->n; i++) {
        const struct replay_target *target = &replay->targets[i];
        ck_assert_int_eq(target->id.vcpu, seen->targets[i].vcpu);
        ck_assert_int_eq(target->status, seen->targets[i].status);
        ck_assert_uint_eq(target->cells[0], seen->targets[i].exits);
    }
}

/* Goes back to the start and forth again. Returns how many of the noted frames were met. */
static size_t read_all(const struct recorded *r, const struct view_vm *vm)
{
    static struct replay_schemas schemas;
    CLEANUP_EXCERPT struct excerpt excerpt = {0};
    CLEANUP_REPLAY struct replay replay = {0};
    const struct schema *schema = vm->targets[0].schema;
    schemas = (struct replay_schemas){0};
    ck_assert_int_eq(replay_schemas_add(&schemas, schema->index, schema->decoded), 0);
    ck_assert_int_eq(recorder_copy(r->recorder, vm->vm->vm, INT64_MIN, &excerpt), 0);
    ck_assert_ptr_nonnull(excerpt.bytes);
    ck_assert_int_eq(replay_begin(&replay, &schemas, excerpt.bytes + excerpt.first,
                                  excerpt.len - excerpt.first, excerpt.first_ns, SIZE_MAX),
                     0);
    ck_assert_int_eq(replay_seek_frame(&replay, vm->frame, vm->vm, r->seen[r->n_seen - 1].time_ns),
                     0);
    ck_assert_int_eq(replay_rewind(&replay, INT64_MIN), 0);
    size_t met = 0;
    while (replay.at < replay.n_records) {
        int64_t time_ns = replay.times_ns[replay.at];
        ck_assert_int_eq(replay_forth(&replay), 0);
        if (met < r->n_seen && replay.targets && time_ns == r->seen[met].time_ns)
            compare(&r->seen[met++], &replay);
    }
    return met;
}

static void step_and_read(struct recorded *r)
{
    struct view view;
    ck_assert_int_eq(planner_commit(r->rig.planner), 0);
    sleep_ms(2);
    rig_step(&r->rig);
    ck_assert_int_eq(view_take(r->rig.store, &view), 0);
    const struct view_vm *vm = note(r, &view);
    if (vm)
        ck_assert_uint_eq(read_all(r, vm), r->n_seen);
    view_drop(&view);
}

/* A target that is removed and added again in one go looks as before, but its values are others. */
START_TEST(what_comes_again_at_once_begins_anew)
{
    static struct recorded r;
    start(&r);
    for (int32_t vcpu = 0; vcpu < VCPUS; vcpu++)
        add(&r, vcpu, TARGET_SOURCE_STATSFD);
    step_and_read(&r);
    step_and_read(&r);
    drop(&r, 1);
    add(&r, 1, TARGET_SOURCE_HANDOFF);
    step_and_read(&r);
    step_and_read(&r);
    stop(&r);
}
END_TEST

START_TEST(whatever_happens_to_targets_can_be_read)
{
    static struct recorded r;
    start(&r);
    add(&r, 0, TARGET_SOURCE_STATSFD);
    for (int i = 0; i < ROUNDS; i++) {
        if (testing_random_below(2) == 0)
            change(&r, (int32_t)testing_random_below(VCPUS));
        step_and_read(&r);
    }
    ck_assert_uint_gt(r.n_seen, ROUNDS / 2);
    stop(&r);
}
END_TEST

static atomic_uint said_skipped;

static void say(bool failed, const char *line)
{
    atomic_fetch_add(&said_skipped, failed && strstr(line, "will not be dumped"));
}

/* The recorder's dumps go to a folder of their own. */
struct dumps {
    char folder[64];
    struct dumper *dumper;
};

static void start_dumps(struct dumps *dumps, struct recorded *r)
{
    *dumps = (struct dumps){.folder = "/tmp/kvmstatd-test-XXXXXX"};
    ck_assert_ptr_nonnull(mkdtemp(dumps->folder));
    ck_assert_int_eq(dumper_new(r->rig.store, "test", say, &dumps->dumper), 0);
    dumper_set_options(dumps->dumper, &(struct dumper_options){.directory = strdup(dumps->folder),
                                                               .on_vmm_killed = true});
    sampler_set_dumper(r->rig.sampler, dumps->dumper);
}

/* After the recorder's end. */
static void stop_dumps(struct dumps *dumps)
{
    char command[80];
    dumper_free(dumps->dumper);
    (void)snprintf(command, sizeof command, "rm -r %s", dumps->folder);
    ck_assert_int_eq(system(command), 0);
}

static unsigned counted(const struct recorded *r, enum dump_result result)
{
    return (unsigned)atomic_load(&r->rig.store->self.dumps[result]);
}

/* A VM that leaves with a plan is dumped if its VMM has exited; it may live on without the VM. */
START_TEST(exit_is_seen_though_the_plan_is_first)
{
    static struct recorded r;
    struct dumps dumps;
    bool killed = _i;
    start(&r);
    start_dumps(&dumps, &r);
    add(&r, 0, TARGET_SOURCE_STATSFD);
    step_and_read(&r);
    planner_vm_remove(r.rig.planner, r.vm.planned);
    ck_assert_int_eq(planner_commit(r.rig.planner), 0);
    if (killed)
        fake_vm_kill(&r.vm);
    rig_step(&r.rig);
    dumper_stop(dumps.dumper);
    ck_assert_uint_eq(counted(&r, DUMP_WRITTEN), killed);
    ck_assert_uint_eq(counted(&r, DUMP_FAILED), 0);
    if (killed)
        r.vm = fake_vm_start(&r.rig, "another");
    stop(&r);
    stop_dumps(&dumps);
}
END_TEST

/* More end at a time than can wait for the disk. */
START_TEST(what_is_not_dumped_is_said)
{
    static struct recorded r;
    static struct fake_vm vms[DUMPER_WAITING_MAX + 2];
    struct dumps dumps;
    start(&r);
    start_dumps(&dumps, &r);
    for (size_t i = 0; i < ARRAY_LEN(vms); i++) {
        vms[i] = fake_vm_start(&r.rig, "web");
        close(fake_target(&r.rig, &vms[i], 0));
    }
    ck_assert_int_eq(planner_commit(r.rig.planner), 0);
    rig_step(&r.rig);
    for (size_t i = 0; i < ARRAY_LEN(vms); i++)
        fake_vm_kill(&vms[i]);
    while (seen_times(&r.rig, vms[0].id) + seen_times(&r.rig, vms[ARRAY_LEN(vms) - 1].id))
        rig_step(&r.rig); /* so many events at a time */
    ck_assert_uint_eq(counted(&r, DUMP_SKIPPED), 2);
    atomic_store(&said_skipped, 0);
    ck_assert_int_eq(dumper_start(dumps.dumper), 0);
    for (int i = 0; i < 10000 && !atomic_load(&said_skipped); i++)
        sleep_ms(1);
    dumper_stop(dumps.dumper);
    ck_assert_uint_eq(atomic_load(&said_skipped), 1);
    ck_assert_uint_eq(counted(&r, DUMP_WRITTEN), DUMPER_WAITING_MAX);
    stop(&r);
    stop_dumps(&dumps);
}
END_TEST

Suite *recorded_suite(void)
{
    Suite *suite = suite_create("recorded");
    TCase *tc = tcase_create("recorded");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, what_comes_again_at_once_begins_anew);
    tcase_add_test(tc, whatever_happens_to_targets_can_be_read);
    tcase_add_loop_test(tc, exit_is_seen_though_the_plan_is_first, 0, 2);
    tcase_add_test(tc, what_is_not_dumped_is_said);
    suite_add_tcase(suite, tc);
    return suite;
}
