/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The set of VMs and targets as discovery wants it. What is added or removed only marks its rate
 * group; planner_commit() (plan_build.c) turns marked groups into layouts. Removal must not fail,
 * so room in the lists of what leaves is made when something is added.
 */
#include "planner.h"

#include <string.h>

#include "planner_internal.h"

static void close_vm(struct reapable *self)
{
    struct sampled_vm *vm = CONTAINER_OF(self, struct sampled_vm, close_item);
    for (struct sampled_target *t = vm->closing; t; t = t->next_closing) {
        (void)fd_close(t->fd);
        t->closed = true;
    }
    (void)fd_close(vm->pidfd);
    (void)fd_close(atomic_exchange(&vm->pin_fd, PIN_CLOSED));
    vm->closed = true;
    if (vm->exited_ns)
        selfhist_observe(vm->release_hist, clock_now_ns() - vm->exited_ns);
}

static void free_vm(struct reapable *self)
{
    sampled_vm_free(CONTAINER_OF(self, struct sampled_vm, free_item));
}

static void close_target(struct reapable *self)
{
    struct sampled_target *target = CONTAINER_OF(self, struct sampled_target, close_item);
    if (!target->closed)
        (void)fd_close(target->fd);
    target->closed = true;
}

static void free_target(struct reapable *self)
{
    sampled_target_free(CONTAINER_OF(self, struct sampled_target, free_item));
}

/* Makes room for one more item. */
static int reserve(void *items, size_t item_bytes, size_t n, size_t *capacity)
{
    if (n < *capacity)
        return 0;
    size_t wanted = MAX_OF(*capacity * 2, (size_t)16);
    void *bigger = reallocarray(*(void **)items, wanted, item_bytes);
    if (!bigger)
        return -ENOMEM;
    *(void **)items = bigger;
    *capacity = wanted;
    return 0;
}

int planner_new(struct store *store, struct sampler *sampler, struct config *config,
                struct planner **ret_planner)
{
    struct planner *planner = calloc(1, sizeof *planner);
    if (!planner)
        return -ENOMEM;
    planner->store = store;
    planner->sampler = sampler;
    planner->config = config_ref(config);
    *ret_planner = planner;
    return 0;
}

static void planned_vm_free(struct planned_vm *vm)
{
    if (!vm)
        return;
    vm_identity_unref(vm->identity);
    free(vm->base_label);
    free(vm->targets);
    planned_vm_free_bursts(vm);
    free(vm);
}

void planner_free(struct planner *planner)
{
    if (!planner)
        return;
    for (size_t i = 0; i < planner->n_vms; i++) {
        struct planned_vm *vm = planner->vms[i];
        for (size_t j = 0; j < vm->n_targets; j++)
            sampled_target_free(vm->targets[j]);
        sampled_vm_free(vm->sampled);
        planned_vm_free(vm);
    }
    for (size_t i = 0; i < planner->leaving_targets.n; i++)
        sampled_target_free(planner->leaving_targets.items[i]);
    for (size_t i = 0; i < planner->leaving_vms.n; i++)
        sampled_vm_free(planner->leaving_vms.items[i]);
    for (size_t i = 0; i < RINGS_MAX; i++)
        bpf_frames_unref(planner->slots[i].sweep);
    planner_free_bursts(planner);
    free(planner->leaving_targets.items);
    free(planner->leaving_vms.items);
    free(planner->vms);
    config_unref(planner->config);
    free(planner);
}

static struct sampler_event *new_event(enum sampler_event_kind kind, uint64_t vm_id, int32_t vcpu)
{
    struct sampler_event *event = calloc(1, sizeof *event);
    if (event)
        *event = (struct sampler_event){.kind = kind, .vm_id = vm_id, .vcpu = vcpu};
    return event;
}

static int new_sampled_vm(struct planner *planner, const struct planned_vm_spec *spec, int pidfd,
                          struct sampled_vm **ret_sampled)
{
    CLEANUP(cleanup_sampled_vm_free) struct sampled_vm *sampled = calloc(1, sizeof *sampled);
    if (!sampled) {
        (void)fd_close(pidfd);
        return -ENOMEM;
    }
    sampled->pidfd = pidfd;
    atomic_init(&sampled->pin_fd, PIN_NONE);
    sampled->watch.kind = WATCH_VMM;
    sampled->close_item.release = close_vm;
    sampled->free_item.release = free_vm;
    sampled->release_hist = &planner->store->self.release;
    int r = vm_new(&sampled->vm);
    if (r < 0)
        return r;
    atomic_init(&sampled->vm->created_ns, spec->created_ns);
    sampled->exited = new_event(SAMPLER_EVENT_VM_EXITED, sampled->vm->id, -1);
    if (!sampled->exited)
        return -ENOMEM;
    *ret_sampled = steal_ptr(&sampled);
    return 0;
}

/* The label before clashes are looked at, and the identity that goes with it. */
static int identify(struct planned_vm *vm, const struct planned_vm_spec *spec)
{
    char by_pid[32];
    (void)snprintf(by_pid, sizeof by_pid, "pid-%d", (int)spec->pid);
    const char *label = spec->name && *spec->name   ? spec->name
                        : spec->uuid && *spec->uuid ? spec->uuid
                                                    : by_pid;
    const struct vm_identity_spec identity = {
        .vm = label,
        .name = spec->name,
        .uuid = spec->uuid,
        .vmm = spec->vmm,
        .machine = spec->machine,
        .unit = spec->unit,
        .source = "", /* known once it has targets: see plan_build.c */
        .pid = spec->pid,
        .start_wall_ns = spec->start_wall_ns,
    };
    int r = vm_identity_new(&identity, &vm->identity);
    if (r < 0)
        return r;
    vm->base_label = strdup(vm->identity->vm);
    return vm->base_label ? 0 : -ENOMEM;
}

int planner_vm_add(struct planner *planner, const struct planned_vm_spec *spec, int pidfd,
                   struct planned_vm **ret_vm)
{
    struct planned_vm *vm = NULL;
    struct sampled_vm *sampled;
    int r = new_sampled_vm(planner, spec, pidfd, &sampled);
    if (r < 0)
        return r;
    r = -ENOSPC;
    if (planner->n_vms >= planner->config->limits.max_vms)
        goto fail;
    r = -ENOMEM;
    vm = calloc(1, sizeof *vm);
    if (!vm)
        goto fail;
    r = identify(vm, spec);
    if (r == 0)
        r = reserve(&planner->vms, sizeof *planner->vms, planner->n_vms, &planner->vms_capacity);
    if (r == 0)
        r = reserve(&planner->leaving_vms.items, sizeof *planner->leaving_vms.items,
                    planner->n_vms + planner->leaving_vms.n, &planner->leaving_vms.capacity);
    if (r < 0)
        goto fail;
    vm->sampled = sampled;
    vm->n_vcpus = spec->n_vcpus;
    vm->owner = spec->owner;
    vm->slot = SLOT_NONE;
    planner->vms[planner->n_vms++] = vm;
    planner->relabel = true;
    *ret_vm = vm;
    return 0;
fail:
    planned_vm_free(vm);
    sampled_vm_free(sampled);
    return r;
}

static void touch(struct planner *planner, const struct planned_vm *vm)
{
    if (vm->slot != SLOT_NONE)
        planner->slots[vm->slot].dirty = true;
}

/* Where the target of `vcpu` is, or belongs; the VM's own statistics (-1) come first. */
static size_t target_place(const struct planned_vm *vm, int32_t vcpu)
{
    size_t i = 0;
    while (i < vm->n_targets && vm->targets[i]->vcpu < vcpu)
        i++;
    return i;
}

static struct sampled_target *target_find(const struct planned_vm *vm, int32_t vcpu)
{
    size_t i = target_place(vm, vcpu);
    return i < vm->n_targets && vm->targets[i]->vcpu == vcpu ? vm->targets[i] : NULL;
}

static int new_target(struct planned_vm *vm, const struct sampled_target *model,
                      struct sampled_target **ret_target)
{
    CLEANUP(cleanup_sampled_target_free) struct sampled_target *target = calloc(1, sizeof *target);
    if (!target) {
        (void)fd_close(model->fd);
        return -ENOMEM;
    }
    *target = *model;
    target->vm = vm->sampled;
    target->close_item.release = close_target;
    target->free_item.release = free_target;
    target->failed = new_event(SAMPLER_EVENT_READ_FAILED, vm->sampled->vm->id, model->vcpu);
    if (!target->failed)
        return -ENOMEM;
    *ret_target = steal_ptr(&target);
    return 0;
}

static int reserve_target(struct planner *planner, struct planned_vm *vm)
{
    int r = reserve(&vm->targets, sizeof(struct sampled_target *), vm->n_targets,
                    &vm->targets_capacity);
    if (r < 0)
        return r;
    /* One more than there are targets: a successor is there before its predecessor has left. */
    return reserve(&planner->leaving_targets.items, sizeof(struct sampled_target *),
                   planner->n_targets + planner->leaving_targets.n + 1,
                   &planner->leaving_targets.capacity);
}

/* `target` takes the place of the one there, which is the same vCPU (or VM) from another source. */
static void supersede(struct planner *planner, struct sampled_target **place,
                      struct sampled_target *target)
{
    struct sampled_target *old = *place;
    *place = target;
    if (old->submitted) {
        target->predecessor = old;
        old->superseded = true;
        planner->leaving_targets.items[planner->leaving_targets.n++] = old;
    } else {
        target->predecessor = old->predecessor;
        sampled_target_free(old);
    }
}

/*
 * What has left and is back before a commit, as by another source, has never been away: its values
 * carry over, and whoever compares layouts sees no change.
 */
static void come_back(const struct planned_vm *vm, struct sampled_target *target)
{
    struct sampled_target *old = vm->leaving;
    while (old && (old->vcpu != target->vcpu || old->schema != target->schema || old->superseded))
        old = old->next_leaving;
    if (!old)
        return;
    target->predecessor = old;
    old->superseded = true;
}

/* Consumes model->fd. */
static int add_target(struct planner *planner, struct planned_vm *vm,
                      const struct sampled_target *model)
{
    CLEANUP(cleanup_sampled_target_free) struct sampled_target *target = NULL;
    int r = new_target(vm, model, &target);
    if (r < 0)
        return r;
    size_t at = target_place(vm, model->vcpu);
    const struct sampled_target *there = target_find(vm, model->vcpu);
    if (there && there->source == model->source &&
        (there->wanted.object != 0) == (model->wanted.object != 0))
        return -EEXIST;
    size_t vcpus = vm->n_targets - (target_find(vm, -1) ? 1 : 0);
    if (!there && model->vcpu >= 0 && vcpus >= planner->config->limits.max_vcpus_per_vm)
        return -ENOSPC;
    r = reserve_target(planner, vm);
    if (r < 0)
        return r;
    if (there) {
        supersede(planner, &vm->targets[at], steal_ptr(&target));
    } else {
        come_back(vm, target);
        memmove(&vm->targets[at + 1], &vm->targets[at], (vm->n_targets - at) * sizeof *vm->targets);
        vm->targets[at] = steal_ptr(&target);
        vm->n_targets++;
        planner->n_targets++;
    }
    planner->relabel = true; /* the identity names the sources */
    touch(planner, vm);
    return 0;
}

int planner_target_add(struct planner *planner, struct planned_vm *vm, int32_t vcpu,
                       const struct schema *schema, enum target_source source, int stats_fd)
{
    return add_target(planner, vm,
                      &(struct sampled_target){
                          .schema = schema,
                          .source = source,
                          .vcpu = vcpu,
                          .fd = stats_fd,
                      });
}

int planner_target_add_bpf(struct planner *planner, struct planned_vm *vm, int32_t vcpu,
                           const struct schema *schema, uint64_t address,
                           const struct bpf_wanted *wanted)
{
    if (!address || (!wanted && !planner_vm_is_pinned(vm)))
        return -EINVAL;
    return add_target(planner, vm,
                      &(struct sampled_target){
                          .schema = schema,
                          .source = TARGET_SOURCE_BPF,
                          .vcpu = vcpu,
                          .fd = -1,
                          .address = address,
                          .wanted = wanted ? *wanted : (struct bpf_wanted){0},
                      });
}

void planner_vm_pin(struct planned_vm *vm, int kvm_vm_fd)
{
    int none = PIN_NONE;
    if (!atomic_compare_exchange_strong(&vm->sampled->pin_fd, &none, kvm_vm_fd))
        (void)fd_close(kvm_vm_fd);
}

bool planner_vm_is_pinned(const struct planned_vm *vm)
{
    return atomic_load(&vm->sampled->pin_fd) >= 0;
}

/* Out of the VM's list; what the sampler knows of leaves with the next plan. */
static void drop_target(struct planner *planner, struct planned_vm *vm, size_t at)
{
    struct sampled_target *target = vm->targets[at];
    vm->n_targets--;
    planner->n_targets--;
    planner->relabel = true;
    memmove(&vm->targets[at], &vm->targets[at + 1], (vm->n_targets - at) * sizeof *vm->targets);
    if (target->submitted) {
        planner->leaving_targets.items[planner->leaving_targets.n++] = target;
        target->next_leaving = vm->leaving;
        vm->leaving = target;
        return;
    }
    if (target->predecessor)
        target->predecessor->superseded = false; /* then it is that one that leaves */
    sampled_target_free(target);
}

/*
 * Room for the last values of a vCPU that leaves. Without memory they are lost to the VM's sums,
 * which the exposition then keeps from falling.
 */
static void prepare_retirement(struct planned_vm *vm, struct sampled_target *target)
{
    if (target->vcpu < 0 || !target->submitted)
        return;
    target->retirement = calloc(1, sizeof *target->retirement + target->schema->data_bytes);
    if (!target->retirement)
        return;
    target->retirement->vcpu = target->vcpu;
    target->retirement->schema = target->schema;
    if (!vm->retired_schema)
        vm->retired_schema = target->schema;
}

void planner_target_remove(struct planner *planner, struct planned_vm *vm, int32_t vcpu)
{
    struct sampled_target *target = target_find(vm, vcpu);
    if (!target)
        return;
    prepare_retirement(vm, target);
    drop_target(planner, vm, target_place(vm, vcpu));
    touch(planner, vm);
}

int planner_target_fd(const struct planned_vm *vm, int32_t vcpu)
{
    const struct sampled_target *target = target_find(vm, vcpu);
    return target ? target->fd : -1;
}

void planner_vm_set_vcpus(struct planner *planner, struct planned_vm *vm, uint32_t n_vcpus)
{
    if (vm->n_vcpus == n_vcpus)
        return;
    vm->n_vcpus = n_vcpus;
    touch(planner, vm);
}

void planner_vm_remove(struct planner *planner, struct planned_vm *vm)
{
    size_t at = 0;
    while (planner->vms[at] != vm)
        at++;
    planner->vms[at] = planner->vms[--planner->n_vms];
    planner->relabel = true;
    touch(planner, vm);
    while (vm->n_targets)
        drop_target(planner, vm, vm->n_targets - 1);
    if (vm->submitted)
        planner->leaving_vms.items[planner->leaving_vms.n++] = vm->sampled;
    else
        sampled_vm_free(vm->sampled);
    planned_vm_free(vm);
}

const char *planner_vm_label(const struct planned_vm *vm)
{
    return vm->identity->vm;
}

int64_t planner_vm_interval_ns(const struct planned_vm *vm)
{
    return vm->interval_ns;
}

struct planned_vm *planner_vm_by_id(const struct planner *planner, uint64_t vm_id)
{
    for (size_t i = 0; i < planner->n_vms; i++) {
        if (planner->vms[i]->sampled->vm->id == vm_id)
            return planner->vms[i];
    }
    return NULL;
}

void *planned_vm_owner(const struct planned_vm *vm)
{
    return vm->owner;
}

uint64_t planned_vm_id(const struct planned_vm *vm)
{
    return vm->sampled->vm->id;
}

void planner_set_config(struct planner *planner, struct config *config)
{
    planner_change_bursts(planner, config);
    config_ref(config);
    config_unref(planner->config);
    planner->config = config;
    planner->regroup = true;
}
