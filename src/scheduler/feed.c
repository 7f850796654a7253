/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Discovery's side. It keeps what is known of each VM, and posts all of it when something has
 * changed: so a letter is complete in itself, and one that could not be made for want of memory is
 * made good by the next. The letter that says that a VM has gone is made along with the VM, because
 * that must not fail.
 */
#include <string.h>

#include "internal.h"

struct fed_vm {
    struct scheduler_vm vm; /* without vmm */
    const struct thread_names *names;
    uint32_t vm_vcpus;
    uint32_t n, capacity;
    struct vcpu_facts *vcpus; /* by id */
    bool changed;
    struct facts *removal; /* owned */
};

static void fed_vm_free(struct fed_vm *fed)
{
    if (!fed)
        return;
    free(fed->vcpus);
    free(fed->removal);
    free(fed);
}
DEFINE_CLEANUP(struct fed_vm *, fed_vm_free)

void feed_free(struct scheduler *s)
{
    for (size_t i = 0; i < s->n_fed; i++)
        fed_vm_free(s->fed[i]);
    free(s->fed);
}

static size_t fed_place(const struct scheduler *s, uint64_t id)
{
    size_t low = 0, high = s->n_fed;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (s->fed[middle]->vm.id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct fed_vm *fed_find(const struct scheduler *s, uint64_t id)
{
    size_t at = fed_place(s, id);
    return at < s->n_fed && s->fed[at]->vm.id == id ? s->fed[at] : NULL;
}

void scheduler_vm_add(struct scheduler *s, const struct scheduler_vm *vm)
{
    CLEANUP(cleanup_fed_vm_free) struct fed_vm *fed = calloc(1, sizeof *fed);
    if (!fed)
        return;
    fed->removal = calloc(1, sizeof *fed->removal);
    if (!fed->removal)
        return;
    fed->vm = *vm;
    fed->vm.vmm = NULL;
    fed->names = thread_names_of(vm->vmm);
    fed->changed = true;
    *fed->removal = (struct facts){.vm_id = vm->id, .removed = true};
    if (s->n_fed == s->fed_capacity) {
        size_t larger = MAX_OF(s->fed_capacity * 2, (size_t)64);
        struct fed_vm **grown = reallocarray(s->fed, larger, sizeof(struct fed_vm *));
        if (!grown)
            return;
        s->fed = grown;
        s->fed_capacity = larger;
    }
    size_t at = fed_place(s, vm->id);
    memmove(s->fed + at + 1, s->fed + at, (s->n_fed - at) * sizeof *s->fed);
    s->fed[at] = steal_ptr(&fed);
    s->n_fed++;
}

void scheduler_vm_remove(struct scheduler *s, uint64_t id)
{
    size_t at = fed_place(s, id);
    struct fed_vm *fed = fed_find(s, id);
    if (!fed)
        return;
    mailbox_post(&s->inbox, &steal_ptr(&fed->removal)->letter);
    fed_vm_free(fed);
    s->n_fed--;
    memmove(s->fed + at, s->fed + at + 1, (s->n_fed - at) * sizeof *s->fed);
}

void scheduler_vm_set_vcpus(struct scheduler *s, uint64_t id, uint32_t n_vcpus)
{
    struct fed_vm *fed = fed_find(s, id);
    if (!fed || fed->vm_vcpus == n_vcpus)
        return;
    fed->vm_vcpus = n_vcpus;
    fed->changed = true;
}

static uint32_t vcpu_place(const struct fed_vm *fed, int32_t vcpu)
{
    uint32_t at = fed->n;
    while (at > 0 && fed->vcpus[at - 1].id >= vcpu)
        at--;
    return at;
}

static struct vcpu_facts *vcpu_find(const struct fed_vm *fed, int32_t vcpu)
{
    uint32_t at = vcpu_place(fed, vcpu);
    return at < fed->n && fed->vcpus[at].id == vcpu ? &fed->vcpus[at] : NULL;
}

void scheduler_vcpu_add(struct scheduler *s, uint64_t id, int32_t vcpu)
{
    struct fed_vm *fed = fed_find(s, id);
    if (!fed || vcpu < 0 || vcpu_find(fed, vcpu))
        return;
    if (fed->n == fed->capacity) {
        uint32_t larger = MAX_OF(fed->capacity * 2, 4u);
        struct vcpu_facts *grown = reallocarray(fed->vcpus, larger, sizeof *grown);
        if (!grown)
            return;
        fed->vcpus = grown;
        fed->capacity = larger;
    }
    uint32_t at = vcpu_place(fed, vcpu);
    memmove(fed->vcpus + at + 1, fed->vcpus + at, (fed->n - at) * sizeof *fed->vcpus);
    fed->vcpus[at] = (struct vcpu_facts){.id = vcpu};
    fed->n++;
    fed->changed = true;
}

void scheduler_vcpu_remove(struct scheduler *s, uint64_t id, int32_t vcpu)
{
    struct fed_vm *fed = fed_find(s, id);
    if (!fed || !vcpu_find(fed, vcpu))
        return;
    uint32_t at = vcpu_place(fed, vcpu);
    fed->n--;
    memmove(fed->vcpus + at, fed->vcpus + at + 1, (fed->n - at) * sizeof *fed->vcpus);
    fed->changed = true;
}

void scheduler_vcpu_thread(struct scheduler *s, uint64_t id, int32_t vcpu, enum thread_hint hint,
                           pid_t tid)
{
    struct fed_vm *fed = fed_find(s, id);
    struct vcpu_facts *facts = fed ? vcpu_find(fed, vcpu) : NULL;
    if (!facts || tid <= 0)
        return;
    facts->hints[hint] = tid;
    facts->hint_is_new[hint] = true;
    fed->changed = true;
}

static void post(struct scheduler *s, struct fed_vm *fed)
{
    struct facts *facts = malloc(sizeof *facts + fed->n * sizeof facts->vcpus[0]);
    if (!facts)
        return; /* the next commit tries again */
    *facts = (struct facts){
        .vm_id = fed->vm.id,
        .pid = fed->vm.pid,
        .start_ticks = fed->vm.start_ticks,
        .names = fed->names,
        .vm_vcpus = fed->vm_vcpus,
        .n = fed->n,
    };
    for (uint32_t i = 0; i < fed->n; i++) {
        facts->vcpus[i] = fed->vcpus[i];
        memset(fed->vcpus[i].hint_is_new, 0, sizeof fed->vcpus[i].hint_is_new);
    }
    fed->changed = false;
    mailbox_post(&s->inbox, &facts->letter);
}

void scheduler_commit(struct scheduler *s)
{
    for (size_t i = 0; i < s->n_fed; i++) {
        if (s->fed[i]->changed)
            post(s, s->fed[i]);
    }
}

bool scheduler_lost_threads(const struct scheduler *s)
{
    return atomic_load_explicit(&s->lost_threads, memory_order_relaxed);
}
