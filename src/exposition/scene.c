/* SPDX-License-Identifier: Apache-2.0 */
#include "scene.h"

#include "number.h"
#include "protobuf.h"
#include "sums.h"

enum {
    /* What encoding adds to a label's texts, twice that of a metric's head. */
    PB_LABEL_ROOM = 4 * PB_VARINT_MAX,
    VCPU_TEXT_BYTES = sizeof "-2147483648",
};

/* How much a view holds, before anything is allocated for it. */
struct census {
    size_t n_vms;
    size_t n_targets;
    size_t label_bytes;
    size_t sum_cells;
};

static struct census take_census(const struct view *view, bool with_sums)
{
    struct census census = {.n_vms = view->n_vms};
    for (size_t i = 0; i < view->n_vms; i++) {
        const struct view_vm *vm = &view->vms[i];
        struct vcpus_seen seen = sums_look(vm);
        census.n_targets += vm->vm->n_targets;
        /* Escaped text is never shorter than what it says, so there is room for either language. */
        size_t vm_bytes = vm->vm->identity->labels_len + PB_LABEL_ROOM;
        census.label_bytes += vm_bytes;
        for (uint32_t t = 0; t < vm->vm->n_targets; t++) {
            if (vm->targets[t].vcpu >= 0)
                census.label_bytes += MAX_OF((size_t)vm->targets[t].labels_len,
                                             vm_bytes + PB_LABEL_ROOM + VCPU_TEXT_BYTES);
        }
        if (with_sums && seen.schema)
            census.sum_cells += sums_cells(seen.schema);
    }
    return census;
}

static int list_init(struct series_list *list, size_t n)
{
    list->items = calloc(n ? n : 1, sizeof *list->items);
    list->runs = calloc(n ? n : 1, sizeof *list->runs);
    return list->items && list->runs ? 0 : -ENOMEM;
}

static void list_add(struct series_list *list, const struct schema *schema, struct series series)
{
    struct series_run *run = list->n_runs ? &list->runs[list->n_runs - 1] : NULL;
    if (!run || run->schema != schema) {
        run = &list->runs[list->n_runs++];
        *run = (struct series_run){.schema = schema, .first = list->n};
    }
    run->n++;
    run->label_bytes += series.head_len + series.labels_len;
    list->items[list->n++] = series;
}

static void list_deinit(struct series_list *list)
{
    free(list->items);
    free(list->runs);
}

void scene_deinit(struct scene *scene)
{
    list_deinit(&scene->vm);
    list_deinit(&scene->vcpu);
    list_deinit(&scene->sums);
    list_deinit(&scene->sums_fresh);
    free(scene->labels);
    free(scene->sum_blocks);
}

/* Labels of series, in the language of a format, one after another. */
struct label_arena {
    enum exposition_format format;
    char *end;
};

/* The encoded labels `vm_labels` and, with vcpu >= 0, that of the vCPU. */
static struct series put_pb_labels(struct label_arena *arena, const char *vm_labels,
                                   uint32_t vm_labels_len, int32_t vcpu)
{
    char number[NUMBER_U64_BYTES + NUMBER_OVERRUN];
    size_t len = vm_labels_len;
    if (vcpu >= 0) {
        *number_put_u64(number, (uint32_t)vcpu) = '\0';
        len += pb_label_bytes("vcpu", number);
    }
    char *labels = pb_put_field(arena->end, PB_FAMILY_METRIC, len + PB_SCALAR_BYTES);
    struct series series = {
        .labels = labels,
        .labels_len = (uint32_t)len,
        .head_len = (uint32_t)(labels - arena->end),
    };
    arena->end = (char *)memmove(labels, vm_labels, vm_labels_len) + vm_labels_len;
    if (vcpu >= 0)
        arena->end = pb_put_label(arena->end, "vcpu", number);
    return series;
}

static struct series put_text_labels(struct label_arena *arena, const char *text, uint32_t len)
{
    struct series series = {.labels = arena->end, .labels_len = len};
    arena->end = mempcpy(arena->end, text, len);
    return series;
}

static struct series put_vm_labels(struct label_arena *arena, const struct vm_identity *identity)
{
    if (arena->format == EXPOSITION_PROTOBUF) {
        /* The label first, its place told by the room that a head takes at most. */
        char *label = arena->end + 1 + PB_VARINT_MAX;
        uint32_t len = (uint32_t)(pb_put_label(label, "vm", identity->vm) - label);
        return put_pb_labels(arena, label, len, -1);
    }
    return put_text_labels(arena, identity->labels, identity->labels_len);
}

static struct series put_vcpu_labels(struct label_arena *arena, const struct view_vm *vm,
                                     const struct series *of_vm, const struct layout_target *target)
{
    if (arena->format == EXPOSITION_PROTOBUF)
        return put_pb_labels(arena, of_vm->labels, of_vm->labels_len, target->vcpu);
    return put_text_labels(arena, vm->frame->layout->labels + target->labels_offset,
                           target->labels_len);
}

/* `of_vm` has the labels of the VM. */
static void add_targets(struct scene *scene, const struct view_vm *vm, const struct series *of_vm,
                        struct label_arena *arena)
{
    for (uint32_t t = 0; t < vm->vm->n_targets; t++) {
        const struct layout_target *target = &vm->targets[t];
        if (vm->status[t] != TARGET_READ)
            continue;
        struct series series =
            target->vcpu < 0 ? *of_vm : put_vcpu_labels(arena, vm, of_vm, target);
        series.block = frame_block(vm->frame, target);
        list_add(target->vcpu < 0 ? &scene->vm : &scene->vcpu, target->schema, series);
    }
}

/* `series` has the labels of the VM. */
static int add_sums(struct scene *scene, const struct view_vm *vm, const struct family_table *table,
                    struct series series, uint8_t **blocks_end)
{
    struct vcpus_seen seen = sums_look(vm);
    if (!seen.schema)
        return 0;
    series.block = *blocks_end;
    int r = sums_make(vm, seen.schema, family_table_sum_plan(table, seen.schema), *blocks_end);
    if (r < 0)
        return r;
    *blocks_end += sums_cells(seen.schema) * sizeof(uint64_t);
    list_add(&scene->sums, seen.schema, series);
    if (seen.fresh)
        list_add(&scene->sums_fresh, seen.schema, series);
    return 0;
}

int scene_make(const struct view *view, const struct family_table *table,
               enum exposition_format format, bool with_sums, struct scene *ret_scene)
{
    struct census census = take_census(view, with_sums);
    CLEANUP_SCENE struct scene scene = {0};
    size_t n_sums = with_sums ? census.n_vms : 0;
    if (list_init(&scene.vm, census.n_vms) < 0 || list_init(&scene.vcpu, census.n_targets) < 0 ||
        list_init(&scene.sums, n_sums) < 0 || list_init(&scene.sums_fresh, n_sums) < 0)
        return -ENOMEM;
    scene.labels = malloc(census.label_bytes + WRITER_OVERRUN);
    scene.sum_blocks = malloc(census.sum_cells * sizeof(uint64_t) + 1);
    if (!scene.labels || !scene.sum_blocks)
        return -ENOMEM;

    struct label_arena arena = {.format = format, .end = scene.labels};
    uint8_t *blocks = scene.sum_blocks;
    for (size_t i = 0; i < view->n_vms; i++) {
        const struct view_vm *vm = &view->vms[i];
        struct series of_vm = put_vm_labels(&arena, vm->vm->identity);
        add_targets(&scene, vm, &of_vm, &arena);
        int r = with_sums ? add_sums(&scene, vm, table, of_vm, &blocks) : 0;
        if (r < 0)
            return r;
    }
    *ret_scene = scene;
    scene = (struct scene){0};
    return 0;
}
