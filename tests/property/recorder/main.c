/* SPDX-License-Identifier: Apache-2.0 */
/* What goes in comes out, bit by bit, whatever part of it is still there. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "testing.h"
#include "world.h"

static struct world world;

static void begin(const struct world_vm *vm, struct excerpt *excerpt, struct replay *replay)
{
    ck_assert_int_eq(recorder_copy(world.recorder, vm->vm, INT64_MIN, excerpt), 0);
    ck_assert_ptr_nonnull(excerpt->bytes);
    int r = replay_begin(replay, world.replay_schemas, excerpt->bytes + excerpt->first,
                         excerpt->len - excerpt->first, excerpt->first_ns, SIZE_MAX);
    ck_assert_int_eq(r, 0);
    size_t n = replay->n_records;
    replay_end(replay);
    ck_assert_int_eq(replay_begin(replay, world.replay_schemas, excerpt->bytes + excerpt->first,
                                  excerpt->len - excerpt->first, excerpt->first_ns, n - 1),
                     -EFBIG);
    r = replay_begin(replay, world.replay_schemas, excerpt->bytes + excerpt->first,
                     excerpt->len - excerpt->first, excerpt->first_ns, n);
    ck_assert_int_eq(r, 0);
}

/* From the frame of the VM's tick `n` - 1. Returns how many ticks there are. */
static size_t check_from(const struct world_vm *vm, size_t n)
{
    static struct world_frame frame;
    CLEANUP_EXCERPT struct excerpt excerpt = {0};
    CLEANUP_REPLAY struct replay replay = {0};
    begin(vm, &excerpt, &replay);
    world_frame(&vm->ticks[n - 1], &frame);
    int r = replay_seek_frame(&replay, &frame.frame, &frame.vm, vm->ticks[n - 1].time_ns);
    if (r == -ENOENT)
        return 0;
    ck_assert_int_eq(r, 0);
    return world_compare(vm, n, &replay);
}

/* From the LAST that ends the recording. */
static size_t check_from_last(const struct world_vm *vm)
{
    CLEANUP_EXCERPT struct excerpt excerpt = {0};
    CLEANUP_REPLAY struct replay replay = {0};
    begin(vm, &excerpt, &replay);
    ck_assert_int_eq(replay_seek_last(&replay), 0);
    return world_compare(vm, vm->n_ticks, &replay);
}

static void live(size_t ticks)
{
    for (size_t i = 0; i < ticks; i++) {
        struct world_vm *vm = &world.vms[testing_random_below(WORLD_VMS_MAX)];
        if (!vm->vm)
            world_vm_start(&world, vm);
        else if (vm->n_ticks && testing_random_below(60) == 0)
            world_vm_change(&world, vm);
        else if (testing_random_below(300) == 0) {
            world_vm_end(&world, vm);
            continue;
        }
        world_tick(&world, vm);
    }
}

/* With room for everything, everything is there, seen from any tick: every prefix. */
START_TEST(everything_is_there)
{
    world_init(&world, 8 << 20);
    live(300);
    for (size_t i = 0; i < WORLD_VMS_MAX; i++) {
        const struct world_vm *vm = &world.vms[i];
        for (size_t n = 1; vm->vm && n <= vm->n_ticks; n++)
            ck_assert_uint_eq(check_from(vm, n), n);
    }
    world_deinit(&world);
}
END_TEST

/* How many ticks the VM had from then on. */
static size_t ticks_since(const struct world_vm *vm, int64_t since_ns)
{
    size_t n = 0;
    while (n < vm->n_ticks && vm->ticks[vm->n_ticks - 1 - n].time_ns >= since_ns)
        n++;
    return n;
}

/* With too little, what is there is right, and some is there; all of it as far as it says. */
START_TEST(what_remains_is_right)
{
    const uint64_t sizes[] = {20000, 40000, 100000, 300000};
    world_init(&world, sizes[_i]);
    for (size_t round = 0; round < 12; round++) {
        live(50 + testing_random_below(100));
        for (size_t i = 0; i < WORLD_VMS_MAX; i++) {
            const struct world_vm *vm = &world.vms[i];
            int64_t since_ns = atomic_load(&world.store->self.recorder_since_ns);
            if (vm->vm && vm->n_ticks && ticks_since(vm, since_ns))
                ck_assert_uint_ge(check_from(vm, vm->n_ticks), ticks_since(vm, since_ns));
            if (!vm->vm || !vm->n_ticks || !atomic_load(&vm->vm->recording.newest))
                continue;
            CLEANUP_EXCERPT struct excerpt excerpt = {0};
            ck_assert_int_eq(recorder_copy(world.recorder, vm->vm, INT64_MIN, &excerpt), 0);
            if (!excerpt.bytes)
                continue; /* of a record that is longer than what is left of it */
            ck_assert_uint_gt(check_from(vm, vm->n_ticks), 0);
            for (size_t back = 1; back < 5 && back < vm->n_ticks; back++)
                (void)check_from(vm, vm->n_ticks - back);
        }
    }
    world_deinit(&world);
}
END_TEST

/* A recording that has ended needs no frame. */
START_TEST(the_end_stands_for_itself)
{
    for (size_t round = 0; round < 10; round++) {
        struct world_vm *vm = &world.vms[0];
        world_init(&world, 4 << 20);
        world_vm_start(&world, vm);
        for (size_t i = 0; i < 100; i++) {
            if (i && testing_random_below(30) == 0)
                world_vm_change(&world, vm);
            world_tick(&world, vm);
        }
        world_vm_last(&world, vm);
        ck_assert_uint_eq(check_from_last(vm), vm->n_ticks);
        world_deinit(&world);
    }
}
END_TEST

/* The VM ends, and its place is free for another. */
static struct world_vm hold(struct world_vm *vm, struct held_item *item)
{
    struct world_vm gone = *vm;
    ck_assert_int_eq(recorder_vm_hold(world.recorder, vm->vm, item), 0);
    *vm = (struct world_vm){0};
    return gone;
}

static void forget(struct world_vm *gone)
{
    vm_unref(gone->vm);
    free(gone->ticks);
}

/* Held memory keeps what it has while others write, and comes back. */
START_TEST(held_memory_stays)
{
    struct held_item item = {0};
    world_init(&world, 80000);
    struct world_vm *held = &world.vms[0];
    world_vm_start(&world, held);
    for (size_t i = 0; i < 40; i++)
        world_tick(&world, held);
    world_vm_last(&world, held);
    struct world_vm gone = hold(held, &item);
    size_t ticks = check_from_last(&gone);
    ck_assert_uint_gt(ticks, 0);
    live(1000);
    ck_assert_uint_eq(check_from_last(&gone), ticks);
    ck_assert(atomic_load(&item.busy));
    recorder_give_back(world.recorder, &item);
    live(1000);
    ck_assert(!atomic_load(&item.busy));
    forget(&gone);
    world_deinit(&world);
}
END_TEST

/* It has all the memory there is. */
static void fill_memory(struct world_vm *vm)
{
    world_vm_start(&world, vm);
    while (!atomic_load(&world.store->self.recorder_since_ns))
        world_tick(&world, vm);
    world_vm_last(&world, vm);
}

/* Who has all the memory ends: the newest part of it is kept, and others have room to go on. */
START_TEST(what_fills_the_memory_is_held_in_part)
{
    const uint64_t memory_bytes = 120000;
    const uint32_t n = (uint32_t)(memory_bytes / (CHUNK_BYTES + 64));
    struct held_item items[16] = {{0}};
    struct world_vm gone[ARRAY_LEN(items)];
    uint32_t held = 0;
    size_t n_gone = 0;
    world_init(&world, memory_bytes);
    for (; n - held > 16; n_gone++) { /* of less, a last record of that size fills all */
        fill_memory(&world.vms[0]);
        gone[n_gone] = hold(&world.vms[0], &items[n_gone]);
        held += items[n_gone].chunks.n;
        ck_assert_uint_le(items[n_gone].chunks.n, n - held + 2);
        ck_assert_uint_gt(check_from_last(&gone[n_gone]), 0);
        atomic_store(&world.store->self.recorder_since_ns, 0);
    }
    ck_assert_uint_gt(n_gone, 1);
    live(1000);
    for (size_t i = 0; i < n_gone; i++) {
        ck_assert_uint_gt(check_from_last(&gone[i]), 0);
        recorder_give_back(world.recorder, &items[i]);
    }
    live(1000);
    for (size_t i = 0; i < n_gone; i++) {
        ck_assert(!atomic_load(&items[i].busy));
        forget(&gone[i]);
    }
    world_deinit(&world);
}
END_TEST

/* Of a VM whose values are all zeros, so that its records fit in a chunk. */
static void tick_in_a_chunk(struct world_vm *vm)
{
    struct layout_target place = {.schema = world.schemas[1], .vcpu = 0};
    static const uint8_t zeros[WORLD_BLOCK_BYTES];
    ck_assert(recorder_tick_begin(world.recorder, vm->vm, &place, 1, ++world.now_ns, false));
    recorder_tick_target(world.recorder, &(struct recorder_target){
                                             .place = &place,
                                             .status = TARGET_READ,
                                             .read_ns = world.now_ns,
                                             .now = zeros,
                                         });
    recorder_tick_end(world.recorder);
}

START_TEST(where_nothing_is_left_nothing_is_held)
{
    struct held_item items[2] = {{0}};
    world_init(&world, 2 * (CHUNK_BYTES + 64));
    struct world_vm *vm = &world.vms[0];
    world_vm_start(&world, vm);
    ck_assert_int_eq(recorder_vm_hold(world.recorder, vm->vm, &items[0]), -ENOENT);
    tick_in_a_chunk(vm);
    struct world_vm gone = hold(vm, &items[0]);
    world_vm_start(&world, vm);
    tick_in_a_chunk(vm);
    ck_assert_int_eq(recorder_vm_hold(world.recorder, vm->vm, &items[1]), -ENOSPC);
    recorder_give_back(world.recorder, &items[0]); /* taken back when it is needed */
    ck_assert_int_eq(recorder_vm_hold(world.recorder, vm->vm, &items[1]), 0);
    recorder_give_back(world.recorder, &items[1]);
    forget(&gone);
    world_deinit(&world);
}
END_TEST

/* A busy VM does not push out the past of others: who has as much to keep has an equal share. */
START_TEST(shares_are_equal)
{
    const uint64_t memory_bytes = 120000;
    const uint32_t share = (uint32_t)(memory_bytes / (CHUNK_BYTES + 64) / WORLD_VMS_MAX);
    unsigned satisfied = 0;
    world_init(&world, memory_bytes);
    for (size_t i = 0; i < WORLD_VMS_MAX; i++)
        world_vm_start(&world, &world.vms[i]);
    for (size_t i = 0; i < 10000; i++) {
        /* The first says ten times as much as the others together. */
        size_t vm = testing_random_below(10) ? 0 : testing_random_below(WORLD_VMS_MAX);
        world_tick(&world, &world.vms[vm]);
    }
    for (size_t i = 0; i < WORLD_VMS_MAX; i++) {
        const struct recording *recording = &world.vms[i].vm->recording;
        uint64_t wanted = atomic_load(&recording->end) / CHUNK_BYTES;
        ck_assert_uint_ge(recording->n_chunks + 1, MIN_OF(wanted, share));
        satisfied += i > 0 && wanted >= share;
    }
    printf("# %u of the others wanted their whole share of %u chunks\n", satisfied, share);
    world_deinit(&world);
}
END_TEST

/* --- readers beside the writer: most of use under the thread sanitizer --- */

static atomic_bool stop;

struct reader {
    struct vm *vm;
    size_t copies, records;
};

static void *read_on(void *arg)
{
    struct reader *reader = arg;
    while (!atomic_load(&stop) || reader->records == 0) {
        CLEANUP_EXCERPT struct excerpt excerpt = {0};
        ck_assert_int_eq(recorder_copy(world.recorder, reader->vm, INT64_MIN, &excerpt), 0);
        const uint8_t *at = excerpt.bytes + excerpt.first, *end = excerpt.bytes + excerpt.len;
        struct codec_record record;
        reader->copies += excerpt.bytes != NULL;
        for (; excerpt.bytes && at < end; reader->records++) {
            if (codec_next(&at, end, &record) < 0)
                return (void *)(uintptr_t) "a copy that is not whole";
        }
    }
    return NULL;
}

START_TEST(readers_see_whole_records)
{
    struct reader readers[4] = {{0}};
    pthread_t threads[ARRAY_LEN(readers)];
    world_init(&world, 60000); /* little: chunks are taken again all the time */
    for (size_t i = 0; i < WORLD_VMS_MAX; i++) {
        world_vm_start(&world, &world.vms[i]);
        world_tick(&world, &world.vms[i]);
    }
    atomic_store(&stop, false);
    for (size_t i = 0; i < ARRAY_LEN(readers); i++) {
        readers[i].vm = world.vms[i % 2].vm;
        ck_assert_int_eq(pthread_create(&threads[i], NULL, read_on, &readers[i]), 0);
    }
    for (size_t i = 0; i < 4000; i++) {
        struct world_vm *vm = &world.vms[testing_random_below(WORLD_VMS_MAX)];
        if (testing_random_below(200) == 0)
            world_vm_change(&world, vm);
        world_tick(&world, vm);
        vm->n_ticks = 0; /* the list is not needed here */
    }
    atomic_store(&stop, true);
    for (size_t i = 0; i < ARRAY_LEN(readers); i++) {
        void *wrong;
        ck_assert_int_eq(pthread_join(threads[i], &wrong), 0);
        ck_assert_msg(!wrong, "%s", (const char *)wrong);
        ck_assert_uint_gt(readers[i].records, 0);
    }
    world_deinit(&world);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("recorder");
    TCase *tests = tcase_create("properties");
    tcase_set_timeout(tests, 110);
    tcase_add_test(tests, everything_is_there);
    tcase_add_loop_test(tests, what_remains_is_right, 0, 4);
    tcase_add_test(tests, the_end_stands_for_itself);
    tcase_add_test(tests, held_memory_stays);
    tcase_add_test(tests, what_fills_the_memory_is_held_in_part);
    tcase_add_test(tests, where_nothing_is_left_nothing_is_held);
    tcase_add_test(tests, shares_are_equal);
    tcase_add_test(tests, readers_see_whole_records);
    suite_add_tcase(suite, tests);
    return testing_run(suite, NULL);
}
