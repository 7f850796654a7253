/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tick path. A sweep is a plain loop of pread() into the frame; what is rare (a read that
 * failed, a new layout) is kept out of it. Timers stand on an absolute grid, so ticks do not drift;
 * what was overrun is counted as missed and never made up for.
 */
#include "group.h"

#include <string.h>
#include <sys/timerfd.h>

#include "clock.h"
#include "derive.h"
#include "statsfd.h"

enum {
    /*
     * Targets between two looks at the clock: a more urgent group waits for some 20 µs at most,
     * and the look costs a thousandth of the reads.
     */
    SLICE_TARGETS = 64,
    /*
     * A slice is read again when it took longer than this part of the interval, and than this for
     * each target, which is some times what a read takes.
     */
    HELD_UP_PART = 16,
    HELD_UP_NS_A_TARGET = 4000,
};

int group_init(struct group *group, struct store *store, struct reaper *reaper,
               struct mailbox *events, unsigned slot)
{
    *group = (struct group){
        .watch = {WATCH_TIMER},
        .store = store,
        .reaper = reaper,
        .events = events,
        .ring = &store->rings[slot],
        .timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK),
    };
    return group->timer_fd < 0 ? -errno : 0;
}

static void unuse_layout(struct group *group, struct layout *layout)
{
    if (layout && --layout->uses == 0)
        reaper_post(group->reaper, &layout->reapable);
}

/* The frame is free: what it holds of an earlier time goes to the reaper. */
static void strip_frame(struct group *group, struct frame *frame)
{
    unuse_layout(group, frame->layout);
    frame->layout = NULL;
    if (frame->memory)
        reaper_post(group->reaper, &frame->memory->reapable);
    frame->memory = NULL;
}

static void strip_free_frames(struct group *group)
{
    struct frame *newest = atomic_load(&group->ring->newest);
    for (size_t i = 0; i < FRAMES_MAX; i++) {
        struct frame *frame = &group->ring->frames[i];
        if (frame != newest && atomic_load(&frame->pins) == 0)
            strip_frame(group, frame);
    }
}

static void discard_plan(struct group *group)
{
    if (!group->now)
        return;
    unuse_layout(group, group->layout);
    group->layout = NULL;
    reaper_post(group->reaper, &group->now->reapable);
    group->now = NULL;
}

static void take_memory(struct group *group, struct group_plan *plan)
{
    if (!plan->memory[0])
        return;
    group->batch = plan->memory[0]->batch;
    for (size_t i = 0; i < FRAMES_MAX; i++) {
        if (group->spare[i])
            reaper_post(group->reaper, &group->spare[i]->reapable);
        group->spare[i] = plan->memory[i];
        plan->memory[i] = NULL;
    }
    strip_free_frames(group);
}

static struct timespec to_timespec(int64_t ns)
{
    return (struct timespec){.tv_sec = ns / NSEC_PER_SEC, .tv_nsec = ns % NSEC_PER_SEC};
}

/* A new grid; tick 0 is due now. */
static void begin(struct group *group, int64_t interval_ns)
{
    group->interval_ns = interval_ns;
    group->start_ns = clock_now_ns();
    group->served = -1;
    const struct itimerspec grid = {
        .it_value = to_timespec(group->start_ns),
        .it_interval = to_timespec(interval_ns),
    };
    (void)timerfd_settime(group->timer_fd, TFD_TIMER_ABSTIME, &grid, NULL);
}

void group_plan_carry(struct group_plan *plan)
{
    for (uint32_t i = 0; i < plan->layout->n_targets; i++) {
        const struct sampled_target *target = plan->targets[i];
        plan->carried[i] = group_last_reading(target->predecessor ? target->predecessor : target);
    }
}

/* No more reads of it: its fd, or the VM's pin, is about to go. */
static void mute(struct group *group, const struct sampled_target *target)
{
    if (!target->address) {
        group->now->readings[target->seat].fd = -1;
        return;
    }
    group->now->copies[target->seat].address = 0;
    bpf_sweep_set(group->now->sweep->sweep, target->seat, 0, 0, 0);
}

/* Its VMM exited while this plan was on its way: its fds may be closed already. */
static void mute_late(struct group *group, struct sampled_target *target)
{
    mute(group, target);
    if (target->closing)
        return;
    target->closing = true;
    reaper_post(group->reaper, &target->close_item);
}

static void seat_readings(struct group *group)
{
    const struct group_plan *plan = group->now;
    for (uint32_t i = 0; i < plan->n_readings; i++)
        plan->targets[plan->readings[i].target]->seat = i;
    if (plan->sweep)
        bpf_sweep_forget_files(plan->sweep->sweep);
    for (uint32_t i = 0; i < plan->n_copies; i++) {
        const struct block_copy *copy = &plan->copies[i];
        struct sampled_target *target = plan->targets[copy->target];
        size_t at = group->layout->head_bytes + copy->offset;
        uint32_t element = (uint32_t)(at / plan->sweep->element_bytes);
        target->seat = i;
        if (copy->by_files)
            bpf_sweep_set_wanted(plan->sweep->sweep, i, &target->wanted, copy->bytes, element);
        else
            bpf_sweep_set(plan->sweep->sweep, i, copy->address, copy->bytes, element);
    }
}

static void add_block(uint8_t *sums, const struct schema *schema, const uint8_t *block)
{
    size_t n = kvmstats_schema_count(schema->decoded);
    for (size_t i = 0; i < n; i++) {
        const struct kvmstats_desc *desc = kvmstats_schema_desc(schema->decoded, i);
        for (size_t j = 0; j < desc->size; j++) {
            uint64_t sum = kvmstats_value(desc, sums, j) + kvmstats_value(desc, block, j);
            memcpy(sums + desc->offset + j * sizeof sum, &sum, sizeof sum);
        }
    }
}

/* What the vCPUs that are not in the layout had last. */
static void sum_retired(const struct layout_vm *place, const struct sampled_vm *vm,
                        const struct layout_target *targets)
{
    for (const struct retired_vcpu *r = vm->retired; r; r = r->next) {
        bool is_back = false;
        for (uint32_t i = 0; i < place->n_targets; i++)
            is_back = is_back || targets[i].vcpu == r->vcpu;
        if (!is_back && r->schema == place->retired_schema)
            add_block((uint8_t *)place->retired, r->schema, r->block);
    }
}

static void seat(struct group *group)
{
    seat_readings(group);
    for (uint32_t i = 0; i < group->layout->n_vms; i++) {
        const struct layout_vm *place = &group->layout->vms[i];
        struct sampled_vm *vm = group->now->vms[i];
        vm->group = group;
        vm->index = i;
        for (uint32_t j = 0; j < place->n_targets; j++) {
            uint32_t index = place->first_target + j;
            struct sampled_target *target = group->now->targets[index];
            target->group = group;
            target->index = index;
            target->predecessor = NULL;
            if (vm->let_go)
                mute_late(group, target);
        }
        if (place->retired)
            sum_retired(place, vm, &group->layout->targets[place->first_target]);
    }
}

void group_adopt(struct group *group, struct group_plan *plan)
{
    discard_plan(group);
    take_memory(group, plan);
    group->now = plan;
    group->layout = steal_ptr(&plan->layout);
    group->layout->uses++;
    group->fresh = true;
    seat(group);
    if (group->interval_ns != plan->interval_ns)
        begin(group, plan->interval_ns);
}

void group_end(struct group *group)
{
    const struct itimerspec disarmed = {0};
    (void)timerfd_settime(group->timer_fd, 0, &disarmed, NULL);
    group->interval_ns = 0;
    discard_plan(group);
    atomic_store(&group->ring->newest, NULL);
    strip_free_frames(group);
    for (size_t i = 0; i < FRAMES_MAX; i++) {
        if (group->spare[i])
            reaper_post(group->reaper, &group->spare[i]->reapable);
        group->spare[i] = NULL;
    }
}

int64_t group_deadline_ns(const struct group *group)
{
    if (!group->interval_ns)
        return INT64_MAX;
    return group->start_ns + (group->served + 1) * group->interval_ns;
}

struct last_reading group_last_reading(const struct sampled_target *target)
{
    const struct group *group = target->group;
    if (!group || !group->now)
        return (struct last_reading){0};
    if (group->fresh)
        return group->now->carried[target->index];
    const struct frame *newest = atomic_load(&group->ring->newest);
    if (!newest || newest->status[target->index] == TARGET_ABSENT)
        return (struct last_reading){0};
    return (struct last_reading){
        .block = newest->data + group->layout->targets[target->index].offset,
        .read_ns = newest->read_ns[target->index],
    };
}

void group_mute_vm(struct group *group, struct sampled_vm *vm)
{
    const struct layout_vm *seat = &group->layout->vms[vm->index];
    for (uint32_t i = seat->first_target; i < seat->first_target + seat->n_targets; i++) {
        struct sampled_target *target = group->now->targets[i];
        mute(group, target);
        if (target->closing)
            continue;
        target->closing = true;
        target->next_closing = vm->closing;
        vm->closing = target;
    }
}

/* There is a spare for each frame that has not been renewed since the plan that brought them. */
static void renew_memory(struct group *group, struct frame *frame)
{
    size_t i = 0;
    while (!group->spare[i])
        i++;
    if (frame->memory)
        reaper_post(group->reaper, &frame->memory->reapable);
    frame->memory = group->spare[i];
    group->spare[i] = NULL;
}

static void ready_frame(struct group *group, struct frame *frame)
{
    if (frame->layout != group->layout) {
        unuse_layout(group, frame->layout);
        frame->layout = group->layout;
        group->layout->uses++;
    }
    if (!frame->memory || frame->memory->batch != group->batch)
        renew_memory(group, frame);
    frame_lay_out(frame);
}

/* Discovery is to look at it, once. */
static void tell(struct group *group, struct sampled_target *target, int error)
{
    if (!target->failed)
        return;
    target->failed->error = error;
    mailbox_post(group->events, &target->failed->letter);
    target->failed = NULL;
}

/* What a target that could not be read has in this frame: its last good block, or nothing. */
static uint8_t read_failed(struct group *group, struct frame *frame, uint32_t index, int error)
{
    const struct layout_target *place = &group->layout->targets[index];
    struct sampled_target *target = group->now->targets[index];
    enum read_error kind = error ? READ_ERROR_IO : READ_ERROR_SHORT;
    atomic_fetch_add_explicit(&group->store->self.read_errors[kind], 1, memory_order_relaxed);
    tell(group, target, error);
    struct last_reading last = group_last_reading(target);
    if (!last.block)
        return TARGET_ABSENT;
    memcpy(frame->data + place->offset, last.block, place->schema->data_bytes);
    frame->read_ns[index] = last.read_ns;
    return TARGET_HELD;
}

/* Out of line: it hardly ever happens, and its code should not stand in the loop. */
static uint8_t __attribute__((noinline))
not_read(struct group *group, struct frame *frame, const struct reading *r, ssize_t n)
{
    if (r->fd < 0)
        return TARGET_ABSENT; /* let go: not an error */
    return read_failed(group, frame, r->target, n < 0 ? -errno : 0);
}

/*
 * A slice has one time, from its beginning. If the thread lost the CPU in the middle, what was
 * gained meanwhile is in the values but not in the time between two readings, and the rate would be
 * one that never was. So the slice is read again, once: whoever has just been given the CPU is
 * hardly held up twice.
 */
static bool was_held_up(const struct group *group, int64_t began_ns, uint32_t n)
{
    int64_t limit_ns = MAX_OF(group->interval_ns / HELD_UP_PART, (int64_t)n * HELD_UP_NS_A_TARGET);
    return clock_now_ns() - began_ns > limit_ns;
}

/* Returns its time. */
static int64_t read_slice(struct group *group, struct frame *frame, uint32_t from, uint32_t to)
{
    const struct reading *readings = group->now->readings;
    int64_t now_ns = clock_now_ns();
    for (uint32_t i = from; i < to; i++) {
        const struct reading *r = &readings[i];
        frame->read_ns[r->target] = now_ns;
        ssize_t n = statsfd_pread(r->fd, frame->data + r->offset, r->bytes, r->data_offset);
        frame->status[r->target] =
            n == (ssize_t)r->bytes ? TARGET_READ : not_read(group, frame, r, n);
    }
    return now_ns;
}

/* Returns its time. */
static int64_t copy_slice(struct group *group, struct frame *frame, uint32_t from, uint32_t n)
{
    struct bpf_sweep *sweep = group->now->sweep->sweep;
    const struct block_copy *copies = &group->now->copies[from];
    int64_t now_ns = clock_now_ns();
    int failed = bpf_sweep_run(sweep, frame->memory->place, from, n);
    for (uint32_t i = 0; i < n; i++) {
        if (copies[i].by_files)
            continue;
        frame->status[copies[i].target] = copies[i].address ? TARGET_READ : TARGET_ABSENT;
        frame->read_ns[copies[i].target] = now_ns;
    }
    for (uint32_t i = 0; failed && i < n; i++) {
        if (copies[i].address && !copies[i].by_files &&
            (failed < 0 || bpf_sweep_failed(sweep, from + i)))
            frame->status[copies[i].target] =
                read_failed(group, frame, copies[i].target, failed < 0 ? failed : -EFAULT);
    }
    return now_ns;
}

/* A block whose files are all closed: with them, its object has gone. That is no error. */
static uint8_t __attribute__((noinline))
not_seen(struct group *group, struct frame *frame, const struct block_copy *copy, int error)
{
    if (!copy->address)
        return TARGET_ABSENT;
    if (error < 0)
        return read_failed(group, frame, copy->target, error);
    tell(group, group->now->targets[copy->target], -ESRCH);
    return TARGET_ABSENT;
}

/* One pass over all files of the host; it cannot be cut into slices. */
static void copy_by_files(struct group *group, struct frame *frame)
{
    struct bpf_sweep *sweep = group->now->sweep->sweep;
    int64_t now_ns = clock_now_ns();
    int copied = bpf_sweep_run_files(sweep, frame->memory->place);
    for (uint32_t i = 0; i < group->now->n_copies; i++) {
        const struct block_copy *copy = &group->now->copies[i];
        if (!copy->by_files)
            continue;
        frame->read_ns[copy->target] = now_ns;
        bool seen =
            copied > 0 && copy->address && bpf_sweep_seen(sweep, i, &frame->read_ns[copy->target]);
        frame->status[copy->target] =
            seen ? TARGET_READ : not_seen(group, frame, copy, MIN_OF(copied, 0));
    }
}

struct frame *group_sweep(struct group *group, int64_t now_ns, group_yield_fn *yield, void *ctx)
{
    struct frame *frame = ring_free_frame(group->ring);
    if (!frame)
        return NULL;
    ready_frame(group, frame);
    frame->begin_ns = now_ns;
    frame->tick = (uint64_t)group->served;
    uint32_t n = group->now->n_copies;
    if (group->now->n_by_files)
        copy_by_files(group, frame);
    if (group->now->n_by_files == n)
        n = 0;
    for (uint32_t i = 0; i < n; i += BPF_SWEEP_CHUNK) {
        uint32_t chunk = MIN_OF((uint32_t)BPF_SWEEP_CHUNK, n - i);
        if (i && yield)
            yield(ctx, group);
        if (was_held_up(group, copy_slice(group, frame, i, chunk), chunk))
            (void)copy_slice(group, frame, i, chunk);
    }
    n = group->now->n_readings;
    for (uint32_t i = 0; i < n; i += SLICE_TARGETS) {
        uint32_t end = MIN_OF(i + SLICE_TARGETS, n);
        if (yield)
            yield(ctx, group);
        if (was_held_up(group, read_slice(group, frame, i, end), end - i))
            (void)read_slice(group, frame, i, end);
    }
    frame->end_ns = clock_now_ns();
    derive(group, frame, yield, ctx);
    return frame;
}

static void first_samples(struct group *group, int64_t now_ns)
{
    for (uint32_t i = 0; i < group->layout->n_vms; i++) {
        struct vm *vm = group->layout->vms[i].vm;
        if (atomic_load_explicit(&vm->sampled, memory_order_relaxed))
            continue;
        /* Written by this thread alone, so nothing can come between the two. */
        atomic_store_explicit(&vm->sampled, true, memory_order_relaxed);
        int64_t created_ns = atomic_load_explicit(&vm->created_ns, memory_order_relaxed);
        if (created_ns)
            selfhist_observe(&group->store->self.discovery, now_ns - created_ns);
    }
}

void group_publish(struct group *group, struct frame *frame)
{
    struct selfstats *self = &group->store->self;
    ring_publish(group->ring, frame);
    selfhist_observe(&self->sweep_duration, frame->end_ns - frame->begin_ns);
    atomic_fetch_add_explicit(&self->ticks, 1, memory_order_relaxed);
    if (group->fresh)
        first_samples(group, frame->end_ns);
    group->fresh = false;
}

void group_serve(struct group *group, int64_t now_ns, group_yield_fn *yield, void *ctx)
{
    struct selfstats *self = &group->store->self;
    int64_t due = (now_ns - group->start_ns) / group->interval_ns;
    selfhist_observe(&self->tick_lateness, now_ns - group_deadline_ns(group));
    uint64_t missed = (uint64_t)(due - group->served - 1);
    group->served = due;

    struct frame *frame = group_sweep(group, now_ns, yield, ctx);
    if (frame)
        group_publish(group, frame);
    else
        missed++; /* more readers than frames: cannot be while readers keep to their bound */
    if (missed)
        atomic_fetch_add_explicit(&self->ticks_missed, missed, memory_order_relaxed);
}

void group_deinit(struct group *group)
{
    if (group->now) {
        if (--group->layout->uses == 0)
            layout_free(group->layout);
        group_plan_free(group->now);
    }
    atomic_store(&group->ring->newest, NULL);
    for (size_t i = 0; i < FRAMES_MAX; i++) {
        struct frame *frame = &group->ring->frames[i];
        if (frame->layout && --frame->layout->uses == 0)
            layout_free(frame->layout);
        frame->layout = NULL;
        frame_memory_free(frame->memory);
        frame->memory = NULL;
        frame_memory_free(group->spare[i]);
    }
    group->timer_fd = fd_close(group->timer_fd);
}
