/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A commit: from the set of VMs to layouts. Everything is built aside first and takes effect only
 * when all of it is there, so a lack of memory changes nothing and the next commit tries again.
 */
#include <assert.h>
#include <string.h>

#include "planner_internal.h"
#include "text.h"

enum {
    CACHE_LINE = 64,        /* blocks and the status array start on one */
    MEMORY_STEP = 64 << 10, /* frames' memory grows in these steps … */
    MEMORY_SMALL = 1 << 20, /* … and below this it never shrinks */
};

static size_t round_up(size_t n, size_t step)
{
    return (n + step - 1) / step * step;
}

/* What a commit builds before anything takes effect. */
struct draft {
    struct planner *planner;
    struct plan *plan;
    struct planned_slot slots[RINGS_MAX];
    struct vm_identity **identities; /* by index in planner->vms; NULL: the old one stays */
};

static void draft_free(struct draft *draft)
{
    plan_free(draft->plan);
    for (size_t i = 0; i < RINGS_MAX; i++) {
        /* A sweep that was made for a slot and did not take effect. */
        if (draft->slots[i].sweep != draft->planner->slots[i].sweep)
            bpf_frames_unref(draft->slots[i].sweep);
    }
    for (size_t i = 0; draft->identities && i < draft->planner->n_vms; i++)
        vm_identity_unref(draft->identities[i]);
    free(draft->identities);
}

static int find_slot(struct draft *draft, int64_t interval_ns, uint32_t *ret_slot)
{
    uint32_t free_slot = SLOT_NONE;
    for (uint32_t i = 0; i < RINGS_MAX; i++) {
        if (draft->slots[i].interval_ns == interval_ns) {
            *ret_slot = i;
            return 0;
        }
        if (draft->slots[i].interval_ns == 0 && free_slot == SLOT_NONE)
            free_slot = i;
    }
    if (free_slot == SLOT_NONE)
        return -ENOSPC; /* the configuration allows half as many intervals as there are rings */
    draft->slots[free_slot] = (struct planned_slot){.interval_ns = interval_ns};
    *ret_slot = free_slot;
    return 0;
}

/* Which slot each VM goes to; marks the slots that change. */
static int assign_slots(struct draft *draft)
{
    struct planner *planner = draft->planner;
    for (size_t i = 0; i < planner->n_vms; i++) {
        struct planned_vm *vm = planner->vms[i];
        const struct vm_identity *id = vm->identity;
        if (planner->regroup || vm->interval_ns == 0)
            vm->interval_ns =
                config_match(planner->config, vm->base_label, id->uuid, id->vmm, id->unit)
                    .interval_ns;
        int r = find_slot(draft, vm->interval_ns, &vm->next_slot);
        if (r < 0)
            return r;
        draft->slots[vm->next_slot].n_vms++;
        if (vm->slot == vm->next_slot)
            continue;
        draft->slots[vm->next_slot].dirty = true;
        if (vm->slot != SLOT_NONE) {
            draft->slots[vm->slot].dirty = true;
            draft->slots[vm->next_slot].gains_movers = true;
        }
    }
    return 0;
}

struct labelled {
    char *label;     /* owned */
    size_t vm_index; /* in planner->vms */
};

static int by_label(const void *a, const void *b)
{
    const struct labelled *x = a, *y = b;
    int order = strcmp(x->label, y->label);
    return order ? order : (x->vm_index > y->vm_index) - (x->vm_index < y->vm_index);
}

/* Gives each VM whose label is not unique another one, made by `rename`. Returns 0 or -ENOMEM. */
static int part_namesakes(struct draft *draft, struct labelled *list, size_t n,
                          char *(*rename)(const struct planned_vm *vm, const char *label))
{
    qsort(list, n, sizeof *list, by_label);
    for (size_t i = 0; i < n;) {
        size_t end = i + 1;
        while (end < n && strcmp(list[end].label, list[i].label) == 0)
            end++;
        for (size_t j = i; end - i > 1 && j < end; j++) {
            char *label = rename(draft->planner->vms[list[j].vm_index], list[j].label);
            if (!label)
                return -ENOMEM;
            /* The comparison above is over for this run, so its first label may go too. */
            free(list[j].label);
            list[j].label = label;
        }
        i = end;
    }
    return 0;
}

static char *with_pid(const struct planned_vm *vm, const char *label)
{
    char suffix[TEXT_SUFFIX_BYTES_MAX];
    (void)snprintf(suffix, sizeof suffix, "@%d", (int)vm->identity->pid);
    return text_with_suffix(label, suffix);
}

/* For the VM whose name looks like another's name@pid: the number is never used twice. */
static char *with_id(const struct planned_vm *vm, const char *label)
{
    char suffix[TEXT_SUFFIX_BYTES_MAX];
    (void)snprintf(suffix, sizeof suffix, "#%llu", (unsigned long long)vm->sampled->vm->id);
    return text_with_suffix(label, suffix);
}

/* How a VM is read; one without targets is not. */
static const char *source_of(const struct planned_vm *vm)
{
    unsigned set = 0;
    for (size_t i = 0; i < vm->n_targets; i++)
        set |= 1u << vm->targets[i]->source;
    return target_sources_name(set);
}

static int new_identity(const struct planned_vm *vm, const char *label, struct vm_identity **ret)
{
    const struct vm_identity *old = vm->identity;
    const struct vm_identity_spec spec = {
        .vm = label,
        .name = old->name,
        .uuid = old->uuid,
        .vmm = old->vmm,
        .machine = old->machine,
        .unit = old->unit,
        .source = source_of(vm),
        .pid = old->pid,
        .start_wall_ns = old->start_wall_ns,
    };
    return vm_identity_new(&spec, ret);
}

static int label_all(struct draft *draft, struct labelled *list, size_t n)
{
    struct planner *planner = draft->planner;
    for (size_t i = 0; i < n; i++) {
        list[i] = (struct labelled){strdup(planner->vms[i]->base_label), i};
        if (!list[i].label)
            return -ENOMEM;
    }
    int r = part_namesakes(draft, list, n, with_pid);
    if (r == 0)
        r = part_namesakes(draft, list, n, with_id);
    for (size_t i = 0; r == 0 && i < n; i++) {
        struct planned_vm *vm = planner->vms[list[i].vm_index];
        if (strcmp(list[i].label, vm->identity->vm) == 0 &&
            strcmp(source_of(vm), vm->identity->source) == 0)
            continue;
        r = new_identity(vm, list[i].label, &draft->identities[list[i].vm_index]);
        draft->slots[vm->next_slot].dirty = true;
    }
    return r;
}

static int assign_labels(struct draft *draft)
{
    size_t n = draft->planner->n_vms;
    struct labelled *list = calloc(MAX_OF(n, (size_t)1), sizeof *list);
    if (!list)
        return -ENOMEM;
    int r = label_all(draft, list, n);
    for (size_t i = 0; i < n; i++)
        free(list[i].label);
    free(list);
    return r;
}

/* `{vm="…",vcpu="3"` of one target, without a NUL. Returns its length. */
static uint32_t put_labels(char *to, const struct vm_identity *identity, int32_t vcpu)
{
    memcpy(to, identity->labels, identity->labels_len);
    return identity->labels_len +
           (uint32_t)sprintf(to + identity->labels_len, ",vcpu=\"%d\"", vcpu);
}

/* What put_labels() writes at most, its NUL included. */
static size_t labels_room(const struct vm_identity *identity)
{
    return identity->labels_len + sizeof ",vcpu=\"-2147483648\"";
}

static const struct vm_identity *draft_identity(const struct draft *draft, size_t vm_index)
{
    return draft->identities[vm_index] ? draft->identities[vm_index]
                                       : draft->planner->vms[vm_index]->identity;
}

/* Where the next block goes: BPF copies to whole elements only. */
static void place_block(struct group_plan *gp, struct sampled_target *target, uint32_t at,
                        size_t element_bytes)
{
    struct layout *layout = gp->layout;
    uint32_t bytes = target->schema->data_bytes;
    bool by_bpf = target->address != 0;
    size_t offset = by_bpf ? round_up(layout->data_bytes, element_bytes) : layout->data_bytes;
    layout->targets[at].offset = (uint32_t)offset;
    layout->data_bytes = offset + (by_bpf ? element_bytes : round_up(bytes, CACHE_LINE));
    gp->targets[at] = target;
    gp->news |= !target->submitted && !target->predecessor;
    gp->n_by_files += target->wanted.object != 0;
    if (by_bpf)
        gp->copies[gp->n_copies++] = (struct block_copy){
            .address = target->address,
            .target = at,
            .offset = (uint32_t)offset,
            .bytes = bytes,
            .by_files = target->wanted.object != 0,
        };
    else
        gp->readings[gp->n_readings++] = (struct reading){
            .fd = target->fd,
            .target = at,
            .offset = (uint32_t)offset,
            .bytes = bytes,
            .data_offset = target->schema->data_offset,
        };
}

static int place_vm(struct draft *draft, struct group_plan *gp, size_t vm_index, char **labels,
                    size_t element_bytes)
{
    struct layout *layout = gp->layout;
    struct planned_vm *vm = draft->planner->vms[vm_index];
    const struct vm_identity *identity = draft_identity(draft, vm_index);
    const struct schema *retired = vm->retired_schema;
    struct layout_vm *place = &layout->vms[layout->n_vms];

    gp->vms[layout->n_vms++] = vm->sampled;
    *place = (struct layout_vm){
        .vm = vm_ref(vm->sampled->vm),
        .identity = vm_identity_ref((struct vm_identity *)(uintptr_t)identity),
        .first_target = layout->n_targets,
        .n_targets = (uint32_t)vm->n_targets,
        .n_vcpus = vm->n_vcpus,
        .retired_schema = retired,
        .retired = retired ? calloc(1, round_up(retired->data_bytes, sizeof(uint64_t))) : NULL,
    };
    if (retired && !place->retired)
        return -ENOMEM;
    int r = planner_bursts(draft->planner, vm, &place->bursts);
    if (r < 0)
        return r;
    for (size_t i = 0; i < vm->n_targets; i++) {
        struct sampled_target *target = vm->targets[i];
        uint32_t at = layout->n_targets++;
        layout->targets[at] =
            (struct layout_target){.schema = target->schema, .vcpu = target->vcpu};
        if (target->vcpu >= 0) {
            layout->targets[at].labels_offset = (uint32_t)(*labels - layout->labels);
            layout->targets[at].labels_len = put_labels(*labels, identity, target->vcpu);
            *labels += layout->targets[at].labels_len;
        }
        place_block(gp, target, at, element_bytes);
    }
    return 0;
}

static void release_group_plan(struct reapable *self)
{
    group_plan_free(CONTAINER_OF(self, struct group_plan, reapable));
}

/* Room for a quarter more than is needed, so that not every newcomer means new memory. */
static size_t with_headroom(size_t n, size_t step)
{
    return round_up(n + n / 4, step);
}

static int new_memory(struct draft *draft, struct planned_slot *slot, struct group_plan *gp)
{
    uint64_t batch = ++draft->planner->batches;
    for (uint32_t i = 0; i < FRAMES_MAX; i++) {
        int r = slot->sweep ? bpf_frames_memory(slot->sweep, i, slot->memory_bytes, &gp->memory[i])
                            : frame_memory_new(slot->memory_bytes, &gp->memory[i]);
        if (r < 0)
            return r;
        gp->memory[i]->batch = batch;
    }
    return 0;
}

/* Memory for the group's frames where what it has does not do; in a BPF map where BPF copies. */
static int size_memory(struct draft *draft, uint32_t at, struct group_plan *gp,
                       size_t element_bytes)
{
    struct planned_slot *slot = &draft->slots[at];
    size_t needed = gp->layout->head_bytes + gp->layout->data_bytes;
    bool too_big = slot->memory_bytes > MEMORY_SMALL && needed < slot->memory_bytes / 4;
    bool by_bpf = gp->n_copies > 0, by_files = gp->n_by_files > 0;
    bool sweep_fits = by_bpf == (slot->sweep != NULL) &&
                      (!by_bpf || (gp->n_copies <= slot->sweep->n_copies &&
                                   slot->sweep->element_bytes == element_bytes &&
                                   (!by_files || slot->sweep->by_files)));
    if (needed > slot->memory_bytes || too_big || !sweep_fits) {
        slot->memory_bytes = with_headroom(needed, MEMORY_STEP);
        slot->sweep = NULL;
        int r = by_bpf
                    ? bpf_frames_new((uint32_t)with_headroom(gp->n_copies, 64), slot->memory_bytes,
                                     (uint32_t)element_bytes, by_files, &slot->sweep)
                    : 0;
        if (r == 0)
            r = new_memory(draft, slot, gp);
        if (r < 0)
            return r;
    }
    if (slot->sweep)
        gp->sweep = bpf_frames_ref(slot->sweep);
    return 0;
}

static int allocate(const struct draft *draft, uint32_t slot, struct group_plan *gp,
                    size_t *ret_element_bytes)
{
    size_t element_bytes = CACHE_LINE;
    uint32_t n_vms = 0;
    size_t n_targets = 0, label_bytes = 0;
    for (size_t i = 0; i < draft->planner->n_vms; i++) {
        const struct planned_vm *vm = draft->planner->vms[i];
        if (vm->next_slot != slot)
            continue;
        n_vms++;
        n_targets += vm->n_targets;
        for (size_t j = 0; j < vm->n_targets; j++) {
            if (vm->targets[j]->address)
                element_bytes = MAX_OF(element_bytes, (size_t)vm->targets[j]->schema->data_bytes);
        }
        label_bytes += vm->n_targets * labels_room(draft_identity(draft, i));
    }
    *ret_element_bytes = round_up(element_bytes, CACHE_LINE);
    gp->readings = calloc(MAX_OF(n_targets, (size_t)1), sizeof *gp->readings);
    gp->copies = calloc(MAX_OF(n_targets, (size_t)1), sizeof *gp->copies);
    gp->targets = calloc(MAX_OF(n_targets, (size_t)1), sizeof *gp->targets);
    gp->carried = calloc(MAX_OF(n_targets, (size_t)1), sizeof *gp->carried);
    gp->vms = calloc(MAX_OF(n_vms, 1u), sizeof *gp->vms);
    if (!gp->readings || !gp->copies || !gp->targets || !gp->carried || !gp->vms)
        return -ENOMEM;
    return layout_new(n_vms, (uint32_t)n_targets, label_bytes, &gp->layout);
}

static int build_group(struct draft *draft, uint32_t slot, struct group_plan **ret_plan)
{
    CLEANUP(cleanup_group_plan_free) struct group_plan *gp = calloc(1, sizeof *gp);
    if (!gp)
        return -ENOMEM;
    gp->slot = slot;
    gp->interval_ns = draft->slots[slot].interval_ns;
    gp->at_once = draft->slots[slot].gains_movers;
    gp->reapable.release = release_group_plan;
    size_t element_bytes;
    int r = allocate(draft, slot, gp, &element_bytes);
    if (r < 0)
        return r;
    char *labels = gp->layout->labels;
    for (size_t i = 0; r == 0 && i < draft->planner->n_vms; i++) {
        if (draft->planner->vms[i]->next_slot == slot)
            r = place_vm(draft, gp, i, &labels, element_bytes);
    }
    if (r < 0)
        return r;
    /* Whole elements, so that what is one in the data is one in the map. */
    gp->layout->head_bytes = round_up(layout_head_bytes(MAX_OF(gp->layout->n_targets, 1u)),
                                      gp->n_copies ? element_bytes : (size_t)CACHE_LINE);
    /* Offsets in a frame are 32 bits: 4 GiB of blocks a tick are beyond any host. */
    if (gp->layout->data_bytes > UINT32_MAX)
        return -ENOMEM;
    if (gp->layout->n_vms) {
        r = size_memory(draft, slot, gp, element_bytes);
        if (r < 0)
            return r;
    }
    *ret_plan = steal_ptr(&gp);
    return 0;
}

static int build_groups(struct draft *draft)
{
    for (uint32_t i = 0; i < RINGS_MAX; i++) {
        struct planned_slot *slot = &draft->slots[i];
        if (!slot->dirty)
            continue;
        int r = build_group(draft, i, &draft->plan->groups[draft->plan->n_groups]);
        if (r < 0)
            return r;
        draft->plan->n_groups++;
        if (slot->n_vms == 0)
            *slot = (struct planned_slot){0}; /* the group ends and the slot is free again */
    }
    return 0;
}

static void *copy_list(const void *items, size_t n, size_t item_bytes)
{
    void *copy = malloc(MAX_OF(n, (size_t)1) * item_bytes);
    if (copy && n)
        memcpy(copy, items, n * item_bytes);
    return copy;
}

static int list_changes(struct draft *draft)
{
    const struct planner *planner = draft->planner;
    struct plan *plan = draft->plan;
    plan->joining = calloc(MAX_OF(planner->n_vms, (size_t)1), sizeof(struct sampled_vm *));
    plan->leaving_vms =
        copy_list(planner->leaving_vms.items, planner->leaving_vms.n, sizeof(struct sampled_vm *));
    plan->leaving_targets = copy_list(planner->leaving_targets.items, planner->leaving_targets.n,
                                      sizeof(struct sampled_target *));
    if (!plan->joining || !plan->leaving_vms || !plan->leaving_targets)
        return -ENOMEM;
    for (size_t i = 0; i < planner->n_vms; i++) {
        if (!planner->vms[i]->submitted)
            plan->joining[plan->n_joining++] = planner->vms[i]->sampled;
    }
    plan->n_leaving_vms = planner->leaving_vms.n;
    plan->n_leaving_targets = planner->leaving_targets.n;
    return 0;
}

static void release_plan(struct reapable *self)
{
    plan_free(CONTAINER_OF(self, struct plan, reapable));
}

static int draft_plan(struct draft *draft)
{
    struct planner *planner = draft->planner;
    draft->identities = calloc(MAX_OF(planner->n_vms, (size_t)1), sizeof *draft->identities);
    draft->plan = calloc(1, sizeof *draft->plan);
    if (!draft->identities || !draft->plan)
        return -ENOMEM;
    draft->plan->reapable.release = release_plan;
    memcpy(draft->slots, planner->slots, sizeof draft->slots);
    int r = assign_slots(draft);
    if (r == 0 && planner->relabel)
        r = assign_labels(draft);
    if (r == 0)
        r = build_groups(draft);
    if (r == 0)
        r = list_changes(draft);
    return r;
}

/* Nothing in here can fail. */
static void take_effect(struct draft *draft)
{
    struct planner *planner = draft->planner;
    for (size_t i = 0; i < planner->n_vms; i++) {
        struct planned_vm *vm = planner->vms[i];
        if (draft->identities[i]) {
            vm_identity_unref(vm->identity);
            vm->identity = steal_ptr(&draft->identities[i]);
        }
        vm->slot = vm->next_slot;
        vm->submitted = true;
        vm->leaving = NULL;
        for (size_t j = 0; j < vm->n_targets; j++)
            vm->targets[j]->submitted = true;
    }
    for (size_t i = 0; i < RINGS_MAX; i++) {
        if (planner->slots[i].sweep != draft->slots[i].sweep)
            bpf_frames_unref(planner->slots[i].sweep);
    }
    memcpy(planner->slots, draft->slots, sizeof planner->slots);
    for (size_t i = 0; i < RINGS_MAX; i++) {
        planner->slots[i].n_vms = 0;
        planner->slots[i].dirty = planner->slots[i].gains_movers = false;
    }
    planner->leaving_vms.n = planner->leaving_targets.n = 0;
    planner->regroup = planner->relabel = false;
    sampler_submit(planner->sampler, steal_ptr(&draft->plan));
}

static bool anything_to_do(const struct planner *planner)
{
    bool dirty = planner->regroup || planner->relabel || planner->leaving_vms.n ||
                 planner->leaving_targets.n;
    for (size_t i = 0; !dirty && i < RINGS_MAX; i++)
        dirty = planner->slots[i].dirty;
    return dirty;
}

int planner_commit(struct planner *planner)
{
    if (!anything_to_do(planner))
        return 0;
    struct draft draft = {.planner = planner};
    int r = draft_plan(&draft);
    if (r == 0)
        take_effect(&draft);
    draft_free(&draft);
    return r;
}
