/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tick is coded into a scratch mapping and appended as a whole: what does not fit leaves nothing
 * behind. The scratch's pages are touched only as far as records are long.
 */
#include "recorder.h"

#include <pthread.h>
#include <sys/mman.h>

#include "clock.h"

enum {
    /* Of one record: a VM with limits.max_vcpus_per_vm vCPUs whose every value moves has 7 MiB. */
    SCRATCH_BYTES = 16 << 20,
    /* chunks_append() wants as much before and behind a record. */
    SCRATCH_MARGIN = 8,
    /*
     * Of the chunks that dumps do not hold yet, what one more may: recording goes on with the
     * rest, and when all VMs are killed together the last ones find room too.
     */
    HELD_PART = 2,
};
#define WALL_STEP_NS NSEC_PER_MSEC
_Static_assert((int)SCHEMAS_MAX <= (int)CODEC_SCHEMAS_MAX, "schemas are known by their index");

enum shape_state {
    SHAPE_UNKNOWN,
    SHAPE_READY,
    SHAPE_REFUSED,
};

struct recorder {
    atomic_uint refs;
    struct reapable reapable;
    struct selfstats *self;
    struct chunks chunks;
    _Atomic(struct held_item *) returned; /* newest first */
    _Atomic int64_t wall_offset_ns;
    /* THREADS: sampler only */
    uint32_t n_held;
    uint8_t *scratch;
    struct vm *vm; /* of the record being written */
    int64_t time_ns;
    bool uniform, is_first;
    struct codec_writer writer;
    uint8_t shape_states[SCHEMAS_MAX]; /* enum shape_state */
    struct codec_shape shapes[SCHEMAS_MAX];
};

/* What dumps no longer need. */
static void take_returned(struct recorder *recorder)
{
    struct held_item *item = atomic_exchange(&recorder->returned, NULL);
    while (item) {
        struct held_item *next = item->next;
        recorder->n_held -= item->chunks.n;
        chunks_give_back(&recorder->chunks, &item->chunks);
        atomic_store(&item->busy, false);
        item = next;
    }
}

static void release(struct reapable *self)
{
    recorder_unref(CONTAINER_OF(self, struct recorder, reapable));
}

int recorder_new(uint64_t memory_bytes, struct selfstats *self, struct recorder **ret_recorder)
{
    CLEANUP(cleanup_recorder_unref) struct recorder *recorder = calloc(1, sizeof *recorder);
    if (!recorder)
        return -ENOMEM;
    atomic_init(&recorder->refs, 1);
    recorder->reapable.release = release;
    recorder->self = self;
    void *scratch = mmap(NULL, SCRATCH_BYTES + 2 * SCRATCH_MARGIN, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (scratch == MAP_FAILED)
        return -ENOMEM;
    recorder->scratch = scratch;
    int r = chunks_init(&recorder->chunks, memory_bytes);
    if (r < 0)
        return r;
    *ret_recorder = steal_ptr(&recorder);
    return 0;
}

struct recorder *recorder_ref(struct recorder *recorder)
{
    if (recorder)
        atomic_fetch_add_explicit(&recorder->refs, 1, memory_order_relaxed);
    return recorder;
}

void recorder_unref(struct recorder *recorder)
{
    if (!recorder || atomic_fetch_sub_explicit(&recorder->refs, 1, memory_order_acq_rel) != 1)
        return;
    take_returned(recorder);
    chunks_deinit(&recorder->chunks);
    if (recorder->scratch)
        (void)munmap(recorder->scratch, SCRATCH_BYTES + 2 * SCRATCH_MARGIN);
    free(recorder);
}

struct reapable *recorder_reapable(struct recorder *recorder)
{
    return &recorder->reapable;
}

void recorder_publish(struct store *store, struct recorder *recorder)
{
    (void)pthread_mutex_lock(&store->recorder.lock);
    struct recorder *old = store->recorder.current;
    store->recorder.current = recorder_ref(recorder);
    (void)pthread_mutex_unlock(&store->recorder.lock);
    recorder_unref(old);
}

struct recorder *recorder_get(struct store *store)
{
    (void)pthread_mutex_lock(&store->recorder.lock);
    struct recorder *recorder = recorder_ref(store->recorder.current);
    (void)pthread_mutex_unlock(&store->recorder.lock);
    return recorder;
}

/* --- writing --- */

/* What it knows is of another recorder, or nothing yet. */
static void join(struct recorder *recorder, struct recording *recording)
{
    atomic_store(&recording->recorder, 0);
    atomic_store_explicit(&recording->newest, 0, memory_order_relaxed);
    atomic_store_explicit(&recording->end, 0, memory_order_relaxed);
    recording->next = NULL;
    recording->at = NULL;
    recording->n_chunks = 0;
    recording->continues = recording->refused = false;
    atomic_store(&recording->recorder, recorder->chunks.number);
}

static bool joined(const struct recorder *recorder, const struct recording *recording)
{
    return atomic_load_explicit(&recording->recorder, memory_order_relaxed) ==
           recorder->chunks.number;
}

static const struct codec_shape *shape_of(struct recorder *recorder, const struct schema *schema)
{
    uint8_t *state = &recorder->shape_states[schema->index];
    struct codec_shape *shape = &recorder->shapes[schema->index];
    if (*state == SHAPE_UNKNOWN)
        *state = codec_shape_init(shape, schema->decoded) == 0 ? SHAPE_READY : SHAPE_REFUSED;
    return *state == SHAPE_READY ? shape : NULL;
}

static bool can_be_recorded(struct recorder *recorder, const struct layout_target *targets,
                            uint32_t n_targets)
{
    size_t needed = CODEC_HEAD_ROOM;
    for (uint32_t i = 0; i < n_targets && needed <= SCRATCH_BYTES; i++) {
        const struct codec_shape *shape = shape_of(recorder, targets[i].schema);
        if (!shape)
            return false;
        needed += CODEC_TARGET_ROOM + CODEC_STATE_ROOM + codec_block_room(shape);
    }
    return needed <= SCRATCH_BYTES;
}

static void begin(struct recorder *recorder, struct vm *vm, enum record_kind kind,
                  const struct layout_target *targets, uint32_t n_targets, bool uniform)
{
    struct codec_writer *w = &recorder->writer;
    recorder->vm = vm;
    recorder->uniform = uniform;
    recorder->is_first = kind == RECORD_FIRST;
    codec_begin(w, recorder->scratch + SCRATCH_MARGIN, kind, recorder->time_ns,
                vm->recording.time_ns, uniform, n_targets);
    for (uint32_t i = 0; kind != RECORD_TICK && i < n_targets; i++)
        codec_put_target(w, &(struct codec_target){targets[i].vcpu, targets[i].schema->index});
}

static void count(struct recorder *recorder)
{
    const struct chunks *chunks = &recorder->chunks;
    struct selfstats *self = recorder->self;
    atomic_store_explicit(&self->recorder_bytes,
                          (uint64_t)(chunks->n - chunks->n_free) * CHUNK_BYTES,
                          memory_order_relaxed);
    if (chunks->lost_ns)
        atomic_store_explicit(&self->recorder_since_ns, chunks->lost_ns + 1, memory_order_relaxed);
}

/* Returns whether it was kept. */
static bool end(struct recorder *recorder)
{
    size_t len = 0;
    if (recorder->n_held && atomic_load_explicit(&recorder->returned, memory_order_relaxed))
        take_returned(recorder);
    struct recording *recording = &recorder->vm->recording;
    const uint8_t *record = codec_end(&recorder->writer, &len);
    int r = record ? chunks_append(&recorder->chunks, recording,
                                   recorder->scratch + (record - recorder->scratch), len,
                                   recorder->time_ns)
                   : -E2BIG;
    if (r < 0) { /* without this record the ones before lead nowhere */
        chunks_clear(&recorder->chunks, recording);
        recorder->chunks.lost_ns = MAX_OF(recorder->chunks.lost_ns, recorder->time_ns);
    }
    count(recorder);
    return r == 0;
}

bool recorder_tick_begin(struct recorder *recorder, struct vm *vm,
                         const struct layout_target *targets, uint32_t n_targets, int64_t time_ns,
                         bool uniform)
{
    struct recording *recording = &vm->recording;
    if (!joined(recorder, recording))
        join(recorder, recording);
    if (recording->refused || n_targets == 0)
        return false;
    if (!recording->continues && !can_be_recorded(recorder, targets, n_targets)) {
        recording->refused = true;
        return false;
    }
    recorder->time_ns = time_ns;
    if (recording->continues)
        begin(recorder, vm, RECORD_TICK, targets, n_targets, uniform);
    else
        begin(recorder, vm, RECORD_FIRST, targets, n_targets, false);
    return true;
}

void recorder_tick_target(struct recorder *recorder, const struct recorder_target *target)
{
    struct codec_writer *w = &recorder->writer;
    const struct codec_shape *shape = &recorder->shapes[target->place->schema->index];
    const void *before = recorder->is_first ? NULL : target->before;
    if (!recorder->uniform)
        codec_put_state(
            w, &(struct codec_state){
                   .status = (uint8_t)target->status,
                   .had_before = before != NULL,
                   .read_ns = target->status == TARGET_READ ? target->read_ns : recorder->time_ns,
               });
    if (before || target->now)
        w->to = codec_put_block(w->to, shape, before, target->now);
}

void recorder_tick_end(struct recorder *recorder)
{
    recorder->vm->recording.continues = end(recorder);
}

bool recorder_last_begin(struct recorder *recorder, struct vm *vm,
                         const struct layout_target *targets, uint32_t n_targets)
{
    struct recording *recording = &vm->recording;
    recording->refused = false;
    if (!joined(recorder, recording) || !recording->continues)
        return false;
    recorder->time_ns = recording->time_ns;
    begin(recorder, vm, RECORD_LAST, targets, n_targets, false);
    return true;
}

void recorder_last_target(struct recorder *recorder, const struct layout_target *target,
                          const void *block)
{
    struct codec_writer *w = &recorder->writer;
    codec_put_state(w, &(struct codec_state){
                           .status = TARGET_ABSENT,
                           .had_before = block != NULL,
                           .read_ns = recorder->time_ns,
                       });
    if (block)
        w->to = codec_put_block(w->to, &recorder->shapes[target->schema->index], block, NULL);
}

void recorder_last_end(struct recorder *recorder)
{
    recorder->vm->recording.continues = false;
    (void)end(recorder);
}

void recorder_vm_ended(struct recorder *recorder, struct vm *vm)
{
    if (joined(recorder, &vm->recording)) {
        chunks_clear(&recorder->chunks, &vm->recording);
        count(recorder);
    }
}

int recorder_vm_hold(struct recorder *recorder, struct vm *vm, struct held_item *item)
{
    struct recording *recording = &vm->recording;
    if (!joined(recorder, recording) || recording->n_chunks == 0)
        return -ENOENT;
    take_returned(recorder);
    uint32_t room = (recorder->chunks.n - recorder->n_held) / HELD_PART;
    if (room == 0)
        return -ENOSPC;
    chunks_cut(&recorder->chunks, recording, room);
    item->chunks = chunks_hold(&recorder->chunks, recording);
    atomic_store(&item->busy, true);
    recorder->n_held += item->chunks.n;
    count(recorder);
    return 0;
}

void recorder_give_back(struct recorder *recorder, struct held_item *item)
{
    item->next = atomic_load(&recorder->returned);
    while (!atomic_compare_exchange_weak(&recorder->returned, &item->next, item))
        ;
}

/* --- reading --- */

int recorder_copy(const struct recorder *recorder, const struct vm *vm, int64_t since_ns,
                  struct excerpt *ret_excerpt)
{
    return chunks_copy(&recorder->chunks, &vm->recording, since_ns, ret_excerpt);
}

int64_t recorder_wall_offset_ns(struct recorder *recorder)
{
    int64_t now_ns = clock_wall_offset_ns();
    int64_t kept_ns = atomic_load_explicit(&recorder->wall_offset_ns, memory_order_relaxed);
    if (llabs(now_ns - kept_ns) < WALL_STEP_NS)
        return kept_ns;
    atomic_store_explicit(&recorder->wall_offset_ns, now_ns, memory_order_relaxed);
    return now_ns;
}
