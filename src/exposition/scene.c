/* SPDX-License-Identifier: Apache-2.0 */
#include "scene.h"

#include "sums.h"

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
        census.label_bytes += vm->vm->identity->labels_len;
        for (uint32_t t = 0; t < vm->vm->n_targets; t++) {
            if (vm->targets[t].vcpu >= 0)
                census.label_bytes += vm->targets[t].labels_len;
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

static void add_targets(struct scene *scene, const struct view_vm *vm, const char *vm_labels,
                        char **labels_end)
{
    for (uint32_t t = 0; t < vm->vm->n_targets; t++) {
        const struct layout_target *target = &vm->targets[t];
        struct series series = {.block = frame_block(vm->frame, target)};
        if (vm->status[t] != TARGET_READ)
            continue;
        if (target->vcpu < 0) {
            series.labels = vm_labels;
            series.labels_len = vm->vm->identity->labels_len;
            list_add(&scene->vm, target->schema, series);
        } else {
            series.labels = *labels_end;
            series.labels_len = target->labels_len;
            *labels_end = mempcpy(*labels_end, vm->frame->layout->labels + target->labels_offset,
                                  target->labels_len);
            list_add(&scene->vcpu, target->schema, series);
        }
    }
}

static int add_sums(struct scene *scene, const struct view_vm *vm, const struct family_table *table,
                    const char *vm_labels, uint8_t **blocks_end)
{
    struct vcpus_seen seen = sums_look(vm);
    if (!seen.schema)
        return 0;
    struct series series = {
        .block = *blocks_end,
        .labels = vm_labels,
        .labels_len = vm->vm->identity->labels_len,
    };
    int r = sums_make(vm, seen.schema, family_table_sum_plan(table, seen.schema), *blocks_end);
    if (r < 0)
        return r;
    *blocks_end += sums_cells(seen.schema) * sizeof(uint64_t);
    list_add(&scene->sums, seen.schema, series);
    if (seen.fresh)
        list_add(&scene->sums_fresh, seen.schema, series);
    return 0;
}

int scene_make(const struct view *view, const struct family_table *table, bool with_sums,
               struct scene *ret_scene)
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

    char *labels = scene.labels;
    uint8_t *blocks = scene.sum_blocks;
    for (size_t i = 0; i < view->n_vms; i++) {
        const struct view_vm *vm = &view->vms[i];
        const struct vm_identity *identity = vm->vm->identity;
        const char *vm_labels = labels;
        labels = mempcpy(labels, identity->labels, identity->labels_len);
        add_targets(&scene, vm, vm_labels, &labels);
        int r = with_sums ? add_sums(&scene, vm, table, vm_labels, &blocks) : 0;
        if (r < 0)
            return r;
    }
    *ret_scene = scene;
    scene = (struct scene){0};
    return 0;
}
