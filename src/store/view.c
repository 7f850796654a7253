/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VM can stand in the newest frames of two groups for a moment: the sampler shows it in its new
 * group before it takes it out of the old one, so that no scrape misses it. The newer reading
 * counts.
 */
#include "view.h"

#include <string.h>

static int by_vm_then_newest(const void *a, const void *b)
{
    const struct view_vm *x = a, *y = b;
    if (x->vm->vm->id != y->vm->vm->id)
        return x->vm->vm->id < y->vm->vm->id ? -1 : 1;
    return (x->frame->end_ns < y->frame->end_ns) - (x->frame->end_ns > y->frame->end_ns);
}

static int by_label(const void *a, const void *b)
{
    const struct view_vm *x = a, *y = b;
    return strcmp(x->vm->identity->vm, y->vm->identity->vm);
}

static void gather(struct view *view)
{
    for (unsigned i = 0; i < view->n_pinned; i++) {
        const struct frame *frame = view->pinned[i];
        const struct layout *layout = frame->layout;
        for (uint32_t j = 0; j < layout->n_vms; j++) {
            const struct layout_vm *vm = &layout->vms[j];
            if (atomic_load_explicit(&vm->vm->gone, memory_order_acquire))
                continue;
            view->vms[view->n_vms++] = (struct view_vm){
                .frame = frame,
                .vm = vm,
                .targets = &layout->targets[vm->first_target],
                .status = &frame->status[vm->first_target],
            };
        }
    }
}

static void drop_duplicates(struct view *view)
{
    size_t kept = 0;
    qsort(view->vms, view->n_vms, sizeof *view->vms, by_vm_then_newest);
    for (size_t i = 0; i < view->n_vms; i++) {
        if (kept == 0 || view->vms[kept - 1].vm->vm->id != view->vms[i].vm->vm->id)
            view->vms[kept++] = view->vms[i];
    }
    view->n_vms = kept;
}

/* Pins the newest frames; all of one generation. Returns how many VM entries they hold. */
static size_t pin_all(struct view *view)
{
    struct store *store = view->store;
    for (;;) {
        size_t n = 0;
        unsigned before = atomic_load(&store->generation);
        for (size_t i = 0; i < RINGS_MAX; i++) {
            struct frame *frame = ring_pin(&store->rings[i]);
            if (!frame)
                continue;
            view->pinned[view->n_pinned++] = frame;
            n += frame->layout->n_vms;
        }
        if (!(before & 1) && atomic_load(&store->generation) == before)
            return n;
        while (view->n_pinned)
            frame_unpin(view->pinned[--view->n_pinned]);
    }
}

int view_take(struct store *store, struct view *ret_view)
{
    while (sem_wait(&store->readers) < 0 && errno == EINTR)
        ;
    struct view view = {.store = store};
    size_t n = pin_all(&view);
    view.vms = calloc(n ? n : 1, sizeof *view.vms);
    if (!view.vms) {
        view_drop(&view);
        return -ENOMEM;
    }
    gather(&view);
    if (view.n_pinned > 1)
        drop_duplicates(&view);
    if (view.n_vms)
        qsort(view.vms, view.n_vms, sizeof *view.vms, by_label);
    *ret_view = view;
    return 0;
}

void view_drop(struct view *view)
{
    if (!view->store)
        return;
    for (unsigned i = 0; i < view->n_pinned; i++)
        frame_unpin(view->pinned[i]);
    free(view->vms);
    (void)sem_post(&view->store->readers);
    *view = (struct view){0};
}
