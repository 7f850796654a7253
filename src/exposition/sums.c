/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why sums have a memory. A plain sum over vCPUs falls when root clears a vCPU's counters through
 * debugfs, or when a vCPU can no longer be read; Prometheus takes that for a restart of the counter
 * and adds all that is left to the rate. So each sum that falls is lifted by the difference, from
 * then on. Scrapes may overlap and the later one may hold the older frame, which looks as if all
 * counters had fallen: such a scrape changes nothing and is answered with what was shown last, a
 * moment ahead of its frame. Then no sequence of answers ever falls.
 *
 * A VM belongs to one kvm module, so all its vCPUs have one schema. Should one differ, it is not
 * added: its cells mean something else.
 */
#include "sums.h"

static uint64_t cell_get(const uint8_t *block, size_t offset)
{
    uint64_t value;
    memcpy(&value, block + offset, sizeof value);
    return value;
}

static void cell_put(uint8_t *block, size_t offset, uint64_t value)
{
    memcpy(block + offset, &value, sizeof value);
}

struct vcpus_seen sums_look(const struct view_vm *vm)
{
    struct vcpus_seen seen = {0};
    for (uint32_t i = 0; i < vm->vm->n_targets; i++) {
        if (vm->targets[i].vcpu < 0 || vm->status[i] == TARGET_ABSENT)
            continue;
        if (!seen.schema)
            seen.schema = vm->targets[i].schema;
        seen.fresh |= vm->status[i] == TARGET_READ && vm->targets[i].schema == seen.schema;
    }
    return seen;
}

static void add_run(uint8_t *block, const uint8_t *from, const struct sum_run *run)
{
    for (size_t i = 0, at = run->offset; i < run->n; i++, at += sizeof(uint64_t)) {
        uint64_t value = cell_get(from, at);
        cell_put(block, at, cell_get(block, at) + (run->kind == SUM_BOOL ? value != 0 : value));
    }
}

/* `fresh`: instant values too. */
static void add_block(uint8_t *block, const uint8_t *from, const struct sum_plan *plan, bool fresh)
{
    for (size_t i = 0; i < plan->n; i++) {
        if (fresh || plan->runs[i].kind == SUM_COUNTER)
            add_run(block, from, &plan->runs[i]);
    }
}

/* THREADS: holds sums->lock. */
static int sums_prepare(struct vm_sums *sums, const struct schema *schema)
{
    if (sums->key == schema)
        return 0;
    size_t cells = sums_cells(schema);
    uint64_t *shown = calloc(cells ? cells : 1, sizeof *shown);
    uint64_t *added = calloc(cells ? cells : 1, sizeof *added);
    if (!shown || !added) {
        free(shown);
        free(added);
        return -ENOMEM;
    }
    free(sums->shown);
    free(sums->added);
    sums->shown = shown;
    sums->added = added;
    sums->cells = cells;
    sums->key = schema;
    sums->as_of_ns = INT64_MIN;
    return 0;
}

static void lift_run(uint8_t *block, struct vm_sums *sums, const struct sum_run *run)
{
    uint8_t *shown = (uint8_t *)sums->shown, *added = (uint8_t *)sums->added;
    for (size_t i = 0, at = run->offset; i < run->n; i++, at += sizeof(uint64_t)) {
        uint64_t before = cell_get(shown, at);
        uint64_t now = cell_get(block, at) + cell_get(added, at);
        if (now < before) {
            cell_put(added, at, cell_get(added, at) + (before - now));
            now = before;
        }
        cell_put(shown, at, now);
        cell_put(block, at, now);
    }
}

/* THREADS: holds sums->lock. */
static void sums_lift(struct vm_sums *sums, int64_t frame_ns, const struct sum_plan *plan,
                      uint8_t *block)
{
    bool older = frame_ns < sums->as_of_ns;
    for (size_t i = 0; i < plan->n; i++) {
        const struct sum_run *run = &plan->runs[i];
        if (run->kind != SUM_COUNTER)
            continue;
        if (older)
            memcpy(block + run->offset, (const uint8_t *)sums->shown + run->offset,
                   run->n * sizeof(uint64_t));
        else
            lift_run(block, sums, run);
    }
    if (!older)
        sums->as_of_ns = frame_ns;
}

int sums_make(const struct view_vm *vm, const struct schema *schema, const struct sum_plan *plan,
              uint8_t *block)
{
    struct vm_sums *sums = &vm->vm->vm->sums;
    memset(block, 0, sums_cells(schema) * sizeof(uint64_t));
    for (uint32_t i = 0; i < vm->vm->n_targets; i++) {
        const struct layout_target *target = &vm->targets[i];
        if (target->vcpu < 0 || target->schema != schema || vm->status[i] == TARGET_ABSENT)
            continue;
        add_block(block, frame_block(vm->frame, target), plan, vm->status[i] == TARGET_READ);
    }
    if (vm->vm->retired && vm->vm->retired_schema == schema)
        add_block(block, (const uint8_t *)vm->vm->retired, plan, false);

    (void)pthread_mutex_lock(&sums->lock);
    int r = sums_prepare(sums, schema);
    if (r == 0)
        sums_lift(sums, vm->frame->end_ns, plan, block);
    (void)pthread_mutex_unlock(&sums->lock);
    return r;
}
