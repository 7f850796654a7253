/* SPDX-License-Identifier: Apache-2.0 */
/* Which sources may be used for a VM, and what to say when none can. */
#include "attach_internal.h"

#include <string.h>

/* The place of a source in discovery.sources, the best first; -1: it may not be used. */
static int source_rank(const struct config *config, enum config_source source)
{
    for (size_t i = 0; i < config->discovery.n_sources; i++) {
        if (config->discovery.sources[i] == source)
            return (int)i;
    }
    return -1;
}

bool attach_is_given(const struct discovery *d, const struct found_vm *vm)
{
    return vm->given && vm->given->n > 0 && source_rank(d->config, CONFIG_SOURCE_HANDOFF) >= 0;
}

bool attach_allows_bpf(const struct config *config)
{
    return source_rank(config, CONFIG_SOURCE_BPF) >= 0;
}

bool attach_looks_at_files(const struct config *config)
{
    return attach_allows_bpf(config) || source_rank(config, CONFIG_SOURCE_STATSFD) >= 0;
}

static int target_source_rank(const struct config *config, enum target_source source)
{
    static const enum config_source sources[TARGET_SOURCES] = {
        [TARGET_SOURCE_HANDOFF] = CONFIG_SOURCE_HANDOFF,
        [TARGET_SOURCE_STATSFD] = CONFIG_SOURCE_STATSFD,
        [TARGET_SOURCE_BPF] = CONFIG_SOURCE_BPF,
    };
    int rank = source_rank(config, sources[source]);
    return rank < 0 ? CONFIG_SOURCES : rank;
}

/* Whether a target that is there is to be read from `source` from now on, which it can be. */
bool attach_replaces(struct discovery *d, const struct found_vm *vm,
                     const struct found_target *there, enum target_source source)
{
    if (there->source == source)
        return false;
    if (there->source == TARGET_SOURCE_HANDOFF && !given_find_file(vm->given, there->file.vcpu))
        return true; /* it has been taken back */
    return target_source_rank(d->config, source) < target_source_rank(d->config, there->source);
}

/* The owner's file by which the VM is known, or NULL. */
const struct kvm_file *attach_key_file(const struct found_vm *vm)
{
    const struct kvm_file_list *files = &vm->owner->files;
    for (size_t i = 0; i < files->n; i++) {
        if (files->files[i].fd == vm->key_fd && !kvm_file_is_stats(&files->files[i]))
            return &files->files[i];
    }
    return NULL;
}

static const char *handoff_help(const struct config *config)
{
    return source_rank(config, CONFIG_SOURCE_HANDOFF) >= 0
               ? "; it can hand them over, under libkvmstatd-preload.so"
               : "";
}

/* What would help a VM that has no stats fds, where BPF does not. */
void attach_blame_no_stats(struct discovery *d, const struct found_vm *vm, struct trouble *trouble)
{
    const char *why = strcmp(vm->identity.vmm, "qemu") == 0
                          ? "this QEMU keeps no statistics fds open (8.1 and later keep those of "
                            "the vCPUs)"
                          : "its VMM keeps no statistics fds open";
    const char *help = handoff_help(d->config);
    if (!attach_looks_at_files(d->config))
        attach_blame(trouble, UNREADABLE_NO_STATS_FD,
                     "its VMM has handed nothing over, and discovery.sources allows no other way; "
                     "it can, under libkvmstatd-preload.so");
    else if (source_rank(d->config, CONFIG_SOURCE_BPF) < 0)
        attach_blame(trouble, UNREADABLE_NO_STATS_FD,
                     "%s; \"bpf\" in discovery.sources could read it%s", why, help);
    else if (*kernelview_why_not(d->kernelview))
        attach_blame(trouble, UNREADABLE_NO_STATS_FD, "%s, and BPF cannot be used: %s%s", why,
                     kernelview_why_not(d->kernelview), help);
    else
        attach_blame(trouble, UNREADABLE_NO_STATS_FD, "%s%s", why, help);
}

/* Why nothing but BPF could read it, and why that does not. */
static void blame_denied(struct discovery *d, const struct found_vm *vm, struct trouble *trouble)
{
    const char *why_not = kernelview_why_not(d->kernelview);
    if (!attach_looks_at_files(d->config)) {
        attach_blame_no_stats(d, vm, trouble);
        return;
    }
    if (!attach_allows_bpf(d->config))
        why_not = "it is not in discovery.sources";
    attach_blame(
        trouble, UNREADABLE_PERMISSION,
        "its VMM's fds may not be listed: run kvmstatd as root or with CAP_SYS_PTRACE, and "
        "with kernel.yama.ptrace_scope below 3%s%s",
        *why_not ? "; BPF, which could do without, cannot be used: " : "", why_not);
}

/* Whether the VM is to be read at all, by its owner and the configuration; else why not. */
bool attach_may_read(struct discovery *d, const struct found_vm *vm, struct trouble *trouble)
{
    const struct process *process = processes_find(d, vm->owner->pid);
    char label[DETAIL_BYTES];

    report_label(vm, label, sizeof label);
    if (!config_match(d->config, label, vm->identity.uuid, vm->identity.vmm, vm->identity.unit)
             .enabled)
        attach_blame(trouble, UNREADABLE_DISABLED, "switched off by a rule of the configuration");
    else if (process && process->denied && !attach_is_given(d, vm) &&
             !(vm->kvm && attach_allows_bpf(d->config) && kernelview_works(d->kernelview)))
        blame_denied(d, vm, trouble);
    else
        return true;
    return false;
}

/* By which ways the VM can be read; when by none, *trouble says why. */
struct ways attach_find_ways(struct discovery *d, const struct found_vm *vm,
                             struct trouble *trouble)
{
    const struct kvm_file_list *files = &vm->owner->files;
    bool fds_allowed = source_rank(d->config, CONFIG_SOURCE_STATSFD) >= 0, has_stats = false;
    struct ways ways = {.given = attach_is_given(d, vm)};

    for (size_t i = 0; i < files->n; i++)
        has_stats = has_stats || kvm_file_is_stats(&files->files[i]);
    ways.fds = fds_allowed && has_stats && vm->owner->n_holdings == 1;
    ways.bpf = attach_allows_bpf(d->config) && (attach_key_file(vm) || vm->kvm) &&
               kernelview_works(d->kernelview);
    if (ways.given || ways.fds || ways.bpf)
        return ways;
    if (!has_stats)
        attach_blame_no_stats(d, vm, trouble);
    else if (!fds_allowed)
        attach_blame(trouble, UNREADABLE_NO_STATS_FD,
                     "discovery.sources does not allow \"statsfd\", by which it could be read%s",
                     handoff_help(d->config));
    else
        attach_blame(
            trouble, UNREADABLE_AMBIGUOUS,
            "its process holds %zu VMs, and statistics fds do not say which VM they are of%s%s",
            vm->owner->n_holdings,
            *kernelview_why_not(d->kernelview) ? "; BPF would tell, but cannot be used: " : "",
            kernelview_why_not(d->kernelview));
    return ways;
}
