/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What people are told. A VM is spoken of when no more looks at its process are due: in its first
 * half second it is made piece by piece, and each piece is no news.
 */
#include "internal.h"

#include <stdio.h>
#include <string.h>

#include "text.h"

enum {
    LABEL_BYTES = 512, /* in a log line */
};

void report_label(const struct found_vm *vm, char *ret_label, size_t size)
{
    if (vm->identity.name[0])
        (void)snprintf(ret_label, size, "%s", vm->identity.name);
    else if (vm->identity.uuid[0])
        (void)snprintf(ret_label, size, "%s", vm->identity.uuid);
    else
        (void)snprintf(ret_label, size, "pid-%d", (int)vm->owner->pid);
}

static bool reads_vm_scope(const struct found_vm *vm)
{
    return vm->n_targets && vm->targets[0].file.vcpu < 0;
}

static uint32_t n_vcpus_read(const struct found_vm *vm)
{
    return (uint32_t)(vm->n_targets - reads_vm_scope(vm));
}

static unsigned sources_of(const struct found_vm *vm)
{
    unsigned set = 0;
    for (size_t i = 0; i < vm->n_targets; i++)
        set |= 1u << vm->targets[i].source;
    return set;
}

/* "100 ms", in the largest unit that keeps it whole. */
static void format_interval(int64_t ns, char *to, size_t size)
{
    if (ns % NSEC_PER_SEC == 0)
        (void)snprintf(to, size, "%lld s", (long long)(ns / NSEC_PER_SEC));
    else if (ns % NSEC_PER_MSEC == 0)
        (void)snprintf(to, size, "%lld ms", (long long)(ns / NSEC_PER_MSEC));
    else
        (void)snprintf(to, size, "%lld us", (long long)(ns / NSEC_PER_USEC));
}

/* "1 VM + 4 vCPUs", "2 of 4 vCPUs". */
static void format_targets(const struct found_vm *vm, char *to, size_t size)
{
    uint32_t read = n_vcpus_read(vm);
    const char *vm_scope = reads_vm_scope(vm) ? "1 VM + " : "";
    const char *plural = vm->n_vcpus == 1 ? "" : "s";
    if (read == vm->n_vcpus)
        (void)snprintf(to, size, "%s%u vCPU%s", vm_scope, read, plural);
    else
        (void)snprintf(to, size, "%s%u of %u vCPU%s", vm_scope, read, vm->n_vcpus, plural);
}

static void log_read(struct discovery *d, const struct found_vm *vm, const char *label)
{
    char interval[32], targets[64];
    format_interval(d->sink.vm_interval_ns(d->sink.ctx, vm->handle), interval, sizeof interval);
    format_targets(vm, targets, sizeof targets);
    log_info("discovery", "VM %s (pid %d, %s): %s %s by %s every %s", label, (int)vm->owner->pid,
             vm->identity.vmm,
             vm->log.said && vm->log.reason == UNREADABLE_NOT ? "now reading" : "reading", targets,
             target_sources_name(sources_of(vm)), interval);
}

static void log_unread(const struct found_vm *vm, const char *label)
{
    log_line(vm->reason == UNREADABLE_DISABLED ? LOG_LEVEL_INFO : LOG_LEVEL_WARN, "discovery",
             "VM %s (pid %d, %s): not read (%s): %s", label, (int)vm->owner->pid, vm->identity.vmm,
             roster_reason_name(vm->reason), vm->detail);
}

void report_log(struct discovery *d)
{
    for (size_t i = 0; i < d->n_vms; i++) {
        struct found_vm *vm = d->vms[i];
        char label[LABEL_BYTES];
        if ((vm->log.said && vm->log.reason == vm->reason &&
             vm->log.n_vcpus_read == n_vcpus_read(vm) && vm->log.sources == sources_of(vm) &&
             vm->log.vm_scope_read == reads_vm_scope(vm)) ||
            looks_pending(d, vm->owner->pid))
            continue;
        if (vm->handle)
            (void)snprintf(label, sizeof label, "%s", d->sink.vm_label(d->sink.ctx, vm->handle));
        else
            report_label(vm, label, sizeof label);
        if (vm->handle)
            log_read(d, vm, label);
        else
            log_unread(vm, label);
        free(vm->log.label);
        vm->log.label = strdup(label);
        vm->log.said = true;
        vm->log.reason = vm->reason;
        vm->log.n_vcpus_read = n_vcpus_read(vm);
        vm->log.sources = sources_of(vm);
        vm->log.vm_scope_read = reads_vm_scope(vm);
    }
}

void report_gone(struct discovery *d, const struct found_vm *vm, const char *why)
{
    (void)d;
    if (vm->log.said)
        log_info("discovery", "VM %s (pid %d, %s): gone, %s", vm->log.label ? vm->log.label : "",
                 (int)vm->owner->pid, vm->identity.vmm, why);
}

/* --- the roster --- */

static char *to_text(const char *bytes)
{
    return text_to_utf8(bytes, strlen(bytes));
}

static int fill(struct discovery *d, const struct found_vm *vm, const char *label,
                struct roster_vm *to)
{
    *to = (struct roster_vm){
        .vm = to_text(label),
        .name = to_text(vm->identity.name),
        .uuid = to_text(vm->identity.uuid),
        .vmm = to_text(vm->identity.vmm),
        .machine = to_text(vm->identity.machine),
        .unit = to_text(vm->identity.unit),
        .detail = to_text(vm->detail),
        .pid = vm->owner->pid,
        .start_wall_ns = vm->owner->start_wall_ns,
        .n_vcpus = vm->n_vcpus,
        .n_vcpus_read = n_vcpus_read(vm),
        .vm_scope_read = reads_vm_scope(vm),
        .interval_ns = vm->handle ? d->sink.vm_interval_ns(d->sink.ctx, vm->handle) : 0,
        .source = target_sources_name(sources_of(vm)),
        .reason = vm->reason,
    };
    return to->vm && to->name && to->uuid && to->vmm && to->machine && to->unit && to->detail
               ? 0
               : -ENOMEM;
}

struct named {
    char *base; /* owned; NULL: memory is short */
    const struct found_vm *vm;
};

static int named_compare(const void *a, const void *b)
{
    const struct named *x = a, *y = b;
    return strcmp(x->base, y->base);
}

/* What a VM would be called if it were the only one, as text: names can become one by that. */
static struct named name_it(struct discovery *d, const struct found_vm *vm)
{
    char pid_label[32];
    (void)snprintf(pid_label, sizeof pid_label, "pid-%d", (int)vm->owner->pid);
    const char *base = vm->handle             ? d->sink.vm_label(d->sink.ctx, vm->handle)
                       : vm->identity.name[0] ? vm->identity.name
                       : vm->identity.uuid[0] ? vm->identity.uuid
                                              : pid_label;
    return (struct named){.base = to_text(base), .vm = vm};
}

/* Two VMs of one name that the sink has not told apart become name@<pid>; sorts `named`. */
static int fill_named(struct discovery *d, struct named *named, struct roster *roster)
{
    qsort(named, d->n_vms, sizeof *named, named_compare);
    for (size_t i = 0; i < d->n_vms; i++) {
        const struct found_vm *vm = named[i].vm;
        const char *base = named[i].base;
        CLEANUP_FREE char *label = NULL;
        bool twice = (i > 0 && strcmp(base, named[i - 1].base) == 0) ||
                     (i + 1 < d->n_vms && strcmp(base, named[i + 1].base) == 0);
        if (twice && !vm->handle) {
            char suffix[TEXT_SUFFIX_BYTES_MAX];
            (void)snprintf(suffix, sizeof suffix, "@%d", (int)vm->owner->pid);
            label = text_with_suffix(base, suffix);
            if (!label)
                return -ENOMEM;
        }
        int r = fill(d, vm, label ? label : base, &roster->vms[i]);
        roster->n_vms = i + 1; /* what is to be freed, also after a failure */
        if (r < 0)
            return r;
    }
    return 0;
}

static int fill_all(struct discovery *d, struct roster *roster)
{
    struct named *named = calloc(d->n_vms + 1, sizeof *named);
    if (!named)
        return -ENOMEM;
    int r = 0;
    for (size_t i = 0; r == 0 && i < d->n_vms; i++) {
        named[i] = name_it(d, d->vms[i]);
        r = named[i].base ? 0 : -ENOMEM;
    }
    if (r == 0)
        r = fill_named(d, named, roster);
    for (size_t i = 0; i < d->n_vms; i++)
        free(named[i].base);
    free(named);
    return r;
}

static void count_targets(const struct found_vm *vm, struct roster *roster)
{
    for (size_t i = 0; i < vm->n_targets; i++) {
        const struct found_target *target = &vm->targets[i];
        roster->targets[target->file.vcpu < 0 ? SCOPE_VM : SCOPE_VCPU][target->source]++;
    }
}

int report_publish(struct discovery *d)
{
    CLEANUP(cleanup_roster_unref) struct roster *roster = calloc(1, sizeof *roster);
    if (!roster)
        return -ENOMEM;
    atomic_init(&roster->refs, 1);
    roster->kernel_vms = d->kernel_count.vms;
    roster->vms = calloc(d->n_vms ? d->n_vms : 1, sizeof *roster->vms);
    if (!roster->vms)
        return -ENOMEM;
    int r = fill_all(d, roster);
    if (r < 0)
        return r;
    for (size_t i = 0; i < roster->n_vms; i++) {
        const struct roster_vm *vm = &roster->vms[i];
        if (vm->reason == UNREADABLE_NOT)
            roster->read++;
        else
            roster->unreadable[vm->reason]++;
    }
    for (size_t i = 0; i < d->n_vms; i++)
        count_targets(d->vms[i], roster);
    roster_publish(&d->store->roster, steal_ptr(&roster));
    return 0;
}
