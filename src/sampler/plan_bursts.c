/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which statistics of a VM are watched between scrapes, and where what is kept of them goes on. A
 * set once made stays with its VM: windows of a vCPU that was unplugged age out by themselves when
 * it comes back, and its distribution goes on, as the kernel's counters do.
 */
#include <string.h>

#include "planner_internal.h"

static unsigned wants(void *ctx, const char *name)
{
    const struct config *config = ctx;
    return (config_wants_peak(config, name) ? BURST_WANT_PEAK : 0u) |
           (config_wants_distribution(config, name) ? BURST_WANT_DISTRIBUTION : 0u);
}

static int get_stats(struct planner *planner, const struct schema *schema,
                     struct burst_stats **ret_stats)
{
    struct burst_stats **cached = &planner->burst_stats[schema->index];
    if (!*cached) {
        const struct config *config = planner->config;
        int r =
            burst_stats_new(schema, config->bursts.windows_ns, config->bursts.n_windows, cached);
        if (r < 0)
            return r;
        burst_stats_choose(*cached, wants, planner->config);
    }
    *ret_stats = *cached;
    return 0;
}

/* `guess`: where it is if no vCPU ever came or went. */
static struct kept_set *find_kept(const struct planned_vm *vm, enum scope scope, int32_t vcpu,
                                  size_t guess)
{
    for (size_t i = 0; i < vm->n_kept_sets; i++) {
        struct kept_set *kept = &vm->kept_sets[(guess + i) % vm->n_kept_sets];
        if (kept->scope == scope && kept->vcpu == vcpu)
            return kept;
    }
    return NULL;
}

static int keep_set(struct planned_vm *vm, enum scope scope, int32_t vcpu, struct burst_set *set)
{
    if (vm->n_kept_sets == vm->kept_sets_capacity) {
        size_t wanted = MAX_OF(2 * vm->kept_sets_capacity, (size_t)4);
        struct kept_set *bigger = reallocarray(vm->kept_sets, wanted, sizeof *bigger);
        if (!bigger)
            return -ENOMEM;
        vm->kept_sets = bigger;
        vm->kept_sets_capacity = wanted;
    }
    vm->kept_sets[vm->n_kept_sets++] =
        (struct kept_set){.set = burst_set_ref(set), .vcpu = vcpu, .scope = scope};
    return 0;
}

/* The set of a part: the one there is, or a new one that takes over what it can of that. */
static int get_set(struct planned_vm *vm, enum scope scope, int32_t vcpu, struct burst_stats *stats,
                   size_t guess, struct burst_set **ret_set)
{
    CLEANUP(cleanup_burst_set_unref) struct burst_set *set = NULL;
    struct kept_set *kept = find_kept(vm, scope, vcpu, guess);
    if (kept && kept->set->stats == stats) {
        *ret_set = burst_set_ref(kept->set);
        return 0;
    }
    int r = burst_set_new(stats, kept ? kept->set : NULL, &set);
    if (r == 0 && !kept)
        r = keep_set(vm, scope, vcpu, set);
    if (r < 0)
        return r;
    if (kept) {
        burst_set_unref(kept->set);
        kept->set = burst_set_ref(set);
    }
    *ret_set = steal_ptr(&set);
    return 0;
}

/* Targets from `first` on, one or (vcpu -1, vCPU scope) all: one part, or none if none is watched.
 */
static int add_part(struct planner *planner, struct planned_vm *vm, struct bursts *bursts,
                    struct burst_part part)
{
    struct burst_stats *stats;
    int r = get_stats(planner, vm->targets[part.first]->schema, &stats);
    if (r < 0 || stats->n_stats == 0)
        return r;
    r = get_set(vm, part.scope, part.vcpu, stats, bursts->n_sets, &part.set);
    if (r == 0)
        bursts->parts[bursts->n_sets++] = part;
    return r;
}

static int make_bursts(struct planner *planner, struct planned_vm *vm, struct bursts **ret_bursts)
{
    CLEANUP(cleanup_bursts_unref) struct bursts *bursts = NULL;
    bool summed = planner->config->bursts.scope == CONFIG_SCOPE_VM;
    int r = bursts_new((uint32_t)vm->n_targets, &bursts);
    for (uint32_t i = 0; r == 0 && i < vm->n_targets;) {
        int32_t vcpu = vm->targets[i]->vcpu;
        struct burst_part part = {.first = i, .n = 1, .vcpu = vcpu, .scope = SCOPE_VCPU};
        if (vcpu < 0) {
            part.scope = SCOPE_VM;
        } else if (summed) {
            part.vcpu = -1;
            part.n = (uint32_t)vm->n_targets - i;
        }
        r = add_part(planner, vm, bursts, part);
        i += part.n;
    }
    if (r < 0)
        return r;
    *ret_bursts = steal_ptr(&bursts);
    return 0;
}

static bool same_bursts(const struct bursts *a, const struct bursts *b)
{
    return a->n_sets == b->n_sets &&
           memcmp(a->parts, b->parts, a->n_sets * sizeof a->parts[0]) == 0;
}

int planner_bursts(struct planner *planner, struct planned_vm *vm, struct bursts **ret_bursts)
{
    struct bursts *bursts;
    int r = make_bursts(planner, vm, &bursts);
    if (r < 0)
        return r;
    if (vm->bursts && same_bursts(vm->bursts, bursts)) {
        bursts_unref(bursts);
    } else {
        bursts_unref(vm->bursts);
        vm->bursts = bursts;
    }
    *ret_bursts = vm->bursts->n_sets ? bursts_ref(vm->bursts) : NULL;
    return 0;
}

void planned_vm_free_bursts(struct planned_vm *vm)
{
    bursts_unref(vm->bursts);
    for (size_t i = 0; i < vm->n_kept_sets; i++)
        burst_set_unref(vm->kept_sets[i].set);
    free(vm->kept_sets);
}

static bool lists_equal(const struct string_list *a, const struct string_list *b)
{
    bool equal = a->n == b->n;
    for (size_t i = 0; equal && i < a->n; i++)
        equal = strcmp(a->items[i], b->items[i]) == 0;
    return equal;
}

static bool bursts_equal(const struct config *a, const struct config *b)
{
    return a->bursts.n_windows == b->bursts.n_windows &&
           memcmp(a->bursts.windows_ns, b->bursts.windows_ns,
                  a->bursts.n_windows * sizeof a->bursts.windows_ns[0]) == 0 &&
           lists_equal(&a->bursts.stats, &b->bursts.stats) &&
           lists_equal(&a->bursts.distribution, &b->bursts.distribution) &&
           a->bursts.scope == b->bursts.scope;
}

void planner_change_bursts(struct planner *planner, const struct config *config)
{
    if (bursts_equal(planner->config, config))
        return;
    planner_free_bursts(planner);
    for (size_t i = 0; i < planner->n_vms; i++) {
        if (planner->vms[i]->slot != SLOT_NONE)
            planner->slots[planner->vms[i]->slot].dirty = true;
    }
}

void planner_free_bursts(struct planner *planner)
{
    for (size_t i = 0; i < SCHEMAS_MAX; i++) {
        burst_stats_unref(planner->burst_stats[i]);
        planner->burst_stats[i] = NULL;
    }
}
