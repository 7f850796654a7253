/* SPDX-License-Identifier: Apache-2.0 */
#include "vm.h"

#include <string.h>

#include "text.h"

static char *copy_text(const char *bytes)
{
    return bytes ? text_to_utf8(bytes, strlen(bytes)) : calloc(1, 1);
}

static int render_labels(struct vm_identity *id)
{
    static const char head[] = "{vm=\"";
    char *labels = malloc(sizeof head + 2 * strlen(id->vm) + 2);
    if (!labels)
        return -ENOMEM;
    char *end = mempcpy(labels, head, sizeof head - 1);
    end = text_escape_label(end, id->vm);
    *end++ = '"';
    id->labels = labels;
    id->labels_len = (uint32_t)(end - labels);
    return 0;
}

int vm_identity_new(const struct vm_identity_spec *spec, struct vm_identity **ret_identity)
{
    CLEANUP(cleanup_vm_identity_unref) struct vm_identity *id = calloc(1, sizeof *id);
    if (!id)
        return -ENOMEM;
    atomic_init(&id->refs, 1);
    id->vm = copy_text(spec->vm);
    id->name = copy_text(spec->name);
    id->uuid = copy_text(spec->uuid);
    id->vmm = copy_text(spec->vmm);
    id->machine = copy_text(spec->machine);
    id->unit = copy_text(spec->unit);
    id->source = spec->source;
    id->pid = spec->pid;
    id->start_wall_ns = spec->start_wall_ns;
    if (!id->vm || !id->name || !id->uuid || !id->vmm || !id->machine || !id->unit)
        return -ENOMEM;
    int r = render_labels(id);
    if (r < 0)
        return r;
    *ret_identity = steal_ptr(&id);
    return 0;
}

struct vm_identity *vm_identity_ref(struct vm_identity *identity)
{
    atomic_fetch_add_explicit(&identity->refs, 1, memory_order_relaxed);
    return identity;
}

void vm_identity_unref(struct vm_identity *identity)
{
    if (!identity || atomic_fetch_sub_explicit(&identity->refs, 1, memory_order_acq_rel) != 1)
        return;
    free(identity->vm);
    free(identity->name);
    free(identity->uuid);
    free(identity->vmm);
    free(identity->machine);
    free(identity->unit);
    free(identity->labels);
    free(identity);
}

int vm_new(struct vm **ret_vm)
{
    static _Atomic uint64_t next_id = 1;
    struct vm *vm = calloc(1, sizeof *vm);
    if (!vm)
        return -ENOMEM;
    atomic_init(&vm->refs, 1);
    vm->id = atomic_fetch_add_explicit(&next_id, 1, memory_order_relaxed);
    (void)pthread_mutex_init(&vm->sums.lock, NULL);
    *ret_vm = vm;
    return 0;
}

struct vm *vm_ref(struct vm *vm)
{
    atomic_fetch_add_explicit(&vm->refs, 1, memory_order_relaxed);
    return vm;
}

void vm_unref(struct vm *vm)
{
    if (!vm || atomic_fetch_sub_explicit(&vm->refs, 1, memory_order_acq_rel) != 1)
        return;
    (void)pthread_mutex_destroy(&vm->sums.lock);
    free(vm->sums.shown);
    free(vm->sums.added);
    free(vm);
}
