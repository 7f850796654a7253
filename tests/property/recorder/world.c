/* SPDX-License-Identifier: Apache-2.0 */
#include "world.h"

#include <string.h>

#include "testing.h"

/* --- schemas --- */

static void fill_descs(struct kvmstats_desc *descs, size_t n, uint32_t first_offset)
{
    uint32_t offset = first_offset;
    for (size_t i = 0; i < n; i++) {
        static const uint32_t types[] = {KVMSTATS_TYPE_CUMULATIVE, KVMSTATS_TYPE_INSTANT,
                                         KVMSTATS_TYPE_PEAK, KVMSTATS_TYPE_LOG_HIST, 9};
        uint32_t type = types[testing_random_below(ARRAY_LEN(types))];
        uint16_t size = type == KVMSTATS_TYPE_LOG_HIST ? 20 : 1;
        descs[i] = (struct kvmstats_desc){
            .name = "a_statistic", .flags = type, .size = size, .offset = offset};
        offset += size * 8u;
    }
}

static const struct schema *make_schema(struct world *world, size_t n, uint32_t first_offset)
{
    static uint8_t file[16384];
    struct kvmstats_desc descs[64];
    struct kvmstats_schema *decoded;
    const struct schema *schema;
    fill_descs(descs, n, first_offset);
    const struct kvmstats_model model = {
        .name_size = 16,
        .id_offset = 24,
        .desc_offset = 40,
        .data_offset = 8192,
        .id = "kvm-1",
        .descs = descs,
        .num_desc = (uint32_t)n,
    };
    size_t len = kvmstats_encode(&model, file, sizeof file);
    ck_assert_uint_gt(len, 0);
    ck_assert_int_eq(kvmstats_schema_decode(file, len, &decoded, NULL), 0);
    ck_assert_int_eq(schema_table_intern(&world->store->schemas, SCOPE_VCPU, decoded, &schema), 0);
    ck_assert_uint_le(schema->data_bytes, WORLD_BLOCK_BYTES);
    return schema;
}

void world_init(struct world *world, uint64_t memory_bytes)
{
    *world = (struct world){.now_ns = 1000000};
    ck_assert_int_eq(store_new(&world->store), 0);
    ck_assert_int_eq(recorder_new(memory_bytes, &world->store->self, &world->recorder), 0);
    world->replay_schemas = calloc(1, sizeof *world->replay_schemas);
    ck_assert_ptr_nonnull(world->replay_schemas);
    /* Of any make: one value, a few, some that are not aligned, and one with none at all. */
    const size_t n[WORLD_SCHEMAS] = {1 + testing_random_below(12), 5, 7, 0};
    const uint32_t offset[WORLD_SCHEMAS] = {0, 4, 0, 0};
    for (size_t i = 0; i < WORLD_SCHEMAS; i++) {
        world->schemas[i] = make_schema(world, n[i], offset[i]);
        int r = replay_schemas_add(world->replay_schemas, world->schemas[i]->index,
                                   world->schemas[i]->decoded);
        ck_assert_int_eq(r, 0);
    }
}

void world_deinit(struct world *world)
{
    for (size_t i = 0; i < WORLD_VMS_MAX; i++) {
        if (world->vms[i].vm)
            world_vm_end(world, &world->vms[i]);
    }
    recorder_unref(world->recorder);
    store_free(world->store);
    free(world->replay_schemas);
}

/* --- what happens --- */

static void new_targets(struct world *world, struct world_vm *vm)
{
    vm->now = (struct world_tick){.n = 1 + (uint32_t)testing_random_below(WORLD_TARGETS_MAX)};
    for (uint32_t i = 0; i < vm->now.n; i++) {
        vm->now.targets[i].place = (struct layout_target){
            .schema = world->schemas[testing_random_below(WORLD_SCHEMAS)],
            .vcpu = (int32_t)i - 1,
        };
    }
}

void world_vm_start(struct world *world, struct world_vm *vm)
{
    *vm = (struct world_vm){0};
    ck_assert_int_eq(vm_new(&vm->vm), 0);
    new_targets(world, vm);
}

void world_vm_last(struct world *world, struct world_vm *vm)
{
    struct layout_target places[WORLD_TARGETS_MAX];
    for (uint32_t i = 0; i < vm->now.n; i++)
        places[i] = vm->now.targets[i].place;
    if (!recorder_last_begin(world->recorder, vm->vm, places, vm->now.n))
        return;
    for (uint32_t i = 0; i < vm->now.n; i++) {
        const struct world_target *target = &vm->now.targets[i];
        recorder_last_target(world->recorder, &target->place,
                             target->status == TARGET_ABSENT ? NULL : target->block);
    }
    recorder_last_end(world->recorder);
}

void world_vm_change(struct world *world, struct world_vm *vm)
{
    world_vm_last(world, vm);
    new_targets(world, vm);
}

void world_vm_end(struct world *world, struct world_vm *vm)
{
    recorder_vm_ended(world->recorder, vm->vm);
    vm_unref(vm->vm);
    free(vm->ticks);
    *vm = (struct world_vm){0};
}

static uint64_t random_step(void)
{
    switch (testing_random_below(6)) {
    case 0:
        return 1;
    case 1:
        return -testing_random_below(300); /* back */
    case 2:
        return testing_random(); /* anywhere */
    case 3:
        return UINT64_C(1) << testing_random_below(64);
    case 4:
        return UINT64_MAX;
    case 5:
        break;
    }
    return testing_random_below(100000000);
}

static void move_values(uint8_t *block, uint32_t data_bytes)
{
    uint64_t moved = testing_random_below(4) ? testing_random_below(6) : testing_random_below(200);
    if (testing_random_below(20) == 0)
        memset(block, 0, data_bytes); /* somebody has cleared them */
    for (uint64_t i = 0; data_bytes && i < moved; i++) {
        uint64_t value = 0;
        uint32_t at = (uint32_t)testing_random_below(data_bytes) / 8 * 8;
        size_t size = MIN_OF(sizeof value, data_bytes - at);
        memcpy(&value, block + at, size);
        value += random_step();
        memcpy(block + at, &value, size);
    }
}

static uint8_t next_status(uint8_t status)
{
    if (status != TARGET_ABSENT && testing_random_below(30) == 0)
        return TARGET_HELD;
    return testing_random_below(40) == 0 ? TARGET_ABSENT : TARGET_READ;
}

static void log_tick(struct world_vm *vm)
{
    if (vm->n_ticks == vm->capacity) {
        vm->capacity = MAX_OF(vm->capacity * 2, (size_t)16);
        vm->ticks = reallocarray(vm->ticks, vm->capacity, sizeof *vm->ticks);
        ck_assert_ptr_nonnull(vm->ticks);
    }
    vm->ticks[vm->n_ticks++] = vm->now;
}

static void record(struct world *world, const struct world_vm *vm, const struct world_tick *before,
                   bool uniform)
{
    struct layout_target places[WORLD_TARGETS_MAX];
    const struct world_tick *now = &vm->now;
    for (uint32_t i = 0; i < now->n; i++)
        places[i] = now->targets[i].place;
    ck_assert(recorder_tick_begin(world->recorder, vm->vm, places, now->n, now->time_ns, uniform));
    for (uint32_t i = 0; i < now->n; i++) {
        const struct world_target *target = &now->targets[i];
        const struct world_target *old = &before->targets[i];
        recorder_tick_target(world->recorder,
                             &(struct recorder_target){
                                 .place = &places[i],
                                 .status = (enum target_status)target->status,
                                 .read_ns = target->read_ns,
                                 .before = old->status == TARGET_ABSENT ? NULL : old->block,
                                 .now = target->status == TARGET_ABSENT ? NULL : target->block,
                             });
    }
    recorder_tick_end(world->recorder);
}

void world_tick(struct world *world, struct world_vm *vm)
{
    const struct world_tick before = vm->now;
    static struct world_frame frame;
    bool calm = testing_random_below(2), uniform = calm;
    world->now_ns += 1 + (int64_t)testing_random_below(calm ? 100000000 : 5000000000);
    int64_t read_ns = world->now_ns;
    for (uint32_t i = 0; i < vm->now.n; i++) {
        struct world_target *target = &vm->now.targets[i];
        target->status = calm ? TARGET_READ : next_status(target->status);
        if (target->status == TARGET_ABSENT)
            memset(target->block, 0, sizeof target->block);
        if (target->status == TARGET_READ) {
            if (!calm)
                read_ns += (int64_t)testing_random_below(3) * 1000;
            target->read_ns = read_ns;
            move_values(target->block, target->place.schema->data_bytes);
        }
        uniform = uniform && before.targets[i].status != TARGET_ABSENT;
    }
    vm->now.time_ns = world->now_ns;
    world_frame(&vm->now, &frame);
    vm->now.time_ns = recorder_tick_ns(&frame.frame, 0, vm->now.n);
    world->now_ns = read_ns + 1;
    record(world, vm, &before, uniform);
    log_tick(vm);
}

/* --- looking back --- */

void world_frame(const struct world_tick *tick, struct world_frame *ret_frame)
{
    struct world_frame *f = ret_frame;
    uint32_t offset = 0;
    *f = (struct world_frame){.vm.n_targets = tick->n};
    for (uint32_t i = 0; i < tick->n; i++) {
        const struct world_target *target = &tick->targets[i];
        f->targets[i] = target->place;
        f->targets[i].offset = offset;
        f->status[i] = target->status;
        f->read_ns[i] = target->read_ns;
        memcpy(f->data + offset, target->block, target->place.schema->data_bytes);
        offset += (WORLD_BLOCK_BYTES + 63) / 64 * 64;
    }
    f->layout =
        (struct layout){.n_vms = 1, .n_targets = tick->n, .vms = &f->vm, .targets = f->targets};
    f->frame.layout = &f->layout;
    f->frame.status = f->status;
    f->frame.read_ns = f->read_ns;
    f->frame.data = f->data;
    f->frame.begin_ns = tick->time_ns;
}

static void compare_target(const struct world_target *expected, const struct replay_target *got)
{
    ck_assert_int_eq(got->id.vcpu, expected->place.vcpu);
    ck_assert_uint_eq(got->id.schema, expected->place.schema->index);
    ck_assert_int_eq(got->status, expected->status);
    ck_assert_int_eq(got->present, expected->status != TARGET_ABSENT);
    if (expected->status == TARGET_READ)
        ck_assert_int_eq(got->read_ns, expected->read_ns);
    if (got->present)
        ck_assert_mem_eq(got->cells, expected->block, expected->place.schema->data_bytes);
}

size_t world_compare(const struct world_vm *vm, size_t n, struct replay *replay)
{
    size_t ticks = 0, at;
    ck_assert_int_eq(replay_rewind(replay, INT64_MIN), 0);
    for (size_t i = replay->at; i < replay->n_records; i++) {
        const uint8_t *from = replay->records[i];
        struct codec_record record;
        ck_assert_int_eq(codec_next(&from, replay->end, &record), 0);
        ticks += record.kind != RECORD_LAST;
    }
    ck_assert_uint_le(ticks, n);
    at = n - ticks;
    while (replay->at < replay->n_records) {
        int64_t time_ns = replay->times_ns[replay->at];
        ck_assert_int_eq(replay_forth(replay), 0);
        if (!replay->targets)
            continue; /* a LAST: what came before is gone */
        const struct world_tick *expected = &vm->ticks[at++];
        ck_assert_int_eq(time_ns, expected->time_ns);
        ck_assert_uint_eq(replay->n_targets, expected->n);
        for (uint32_t i = 0; i < expected->n; i++)
            compare_target(&expected->targets[i], &replay->targets[i]);
    }
    ck_assert_uint_eq(at, n);
    return ticks;
}
