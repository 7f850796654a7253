/* SPDX-License-Identifier: Apache-2.0 */
#include "rig.h"

#include <stdio.h>
#include <string.h>

#include "testing.h"

static int vm_add(void *ctx, const struct discovery_vm *vm, void *owner, int pidfd,
                  struct discovery_handle **ret_handle)
{
    struct rig *rig = ctx;
    bool wanted = false;
    ck_assert_int_ge(pidfd, 0);
    for (unsigned i = 0; i < rig->n_pids; i++)
        wanted = wanted || rig->pids[i] == vm->pid;
    if (!wanted || rig->vm_add_error) {
        (void)close(pidfd);
        return wanted ? rig->vm_add_error : -EXDEV;
    }
    struct discovery_handle *handle = calloc(1, sizeof *handle);
    memset(handle->fds, 0xff, sizeof handle->fds);
    (void)snprintf(handle->label, sizeof handle->label, "%s", vm->name);
    handle->pid = vm->pid;
    handle->n_vcpus = vm->n_vcpus;
    handle->created_ns = vm->created_ns;
    handle->owner = owner;
    handle->pidfd = pidfd;
    handle->pin_fd = -1;
    (void)pthread_mutex_lock(&rig->lock);
    handle->next = rig->vms;
    rig->vms = handle;
    rig->added++;
    (void)pthread_mutex_unlock(&rig->lock);
    *ret_handle = handle;
    return 0;
}

static int target_add(void *ctx, struct discovery_handle *handle, int32_t vcpu,
                      const struct schema *schema, enum target_source source, int stats_fd)
{
    struct rig *rig = ctx;
    ck_assert_int_ne(source, TARGET_SOURCE_BPF);
    ck_assert_int_lt(vcpu, RIG_VCPUS_MAX);
    ck_assert_int_eq(schema->scope, vcpu < 0 ? SCOPE_VM : SCOPE_VCPU);
    ck_assert_int_ge(stats_fd, 0);
    ck_assert_int_eq(handle->fds[vcpu + 1], -1);
    ck_assert(handle->pin_fd >= 0 || !rig->pin_first);
    if (rig->target_add_error) {
        (void)close(stats_fd);
        return rig->target_add_error;
    }
    (void)pthread_mutex_lock(&rig->lock);
    handle->fds[vcpu + 1] = stats_fd;
    rig->targets_added++;
    (void)pthread_mutex_unlock(&rig->lock);
    return 0;
}

static void vm_pin(void *ctx, struct discovery_handle *handle, int kvm_vm_fd)
{
    (void)ctx;
    ck_assert_int_eq(handle->pin_fd, -1);
    handle->pin_fd = kvm_vm_fd;
}

static bool vm_is_pinned(void *ctx, struct discovery_handle *handle)
{
    (void)ctx;
    return handle->pin_fd >= 0;
}

static void target_remove(void *ctx, struct discovery_handle *handle, int32_t vcpu)
{
    struct rig *rig = ctx;
    ck_assert_int_ge(handle->fds[vcpu + 1], 0);
    (void)pthread_mutex_lock(&rig->lock);
    handle->fds[vcpu + 1] = fd_close(handle->fds[vcpu + 1]);
    rig->targets_removed++;
    (void)pthread_mutex_unlock(&rig->lock);
}

static int target_fd(void *ctx, struct discovery_handle *handle, int32_t vcpu)
{
    (void)ctx;
    return handle->fds[vcpu + 1];
}

static void vm_set_vcpus(void *ctx, struct discovery_handle *handle, uint32_t n_vcpus)
{
    (void)ctx;
    handle->n_vcpus = n_vcpus;
}

static void vm_remove(void *ctx, struct discovery_handle *handle)
{
    struct rig *rig = ctx;
    (void)pthread_mutex_lock(&rig->lock);
    struct discovery_handle **at = &rig->vms;
    while (*at && *at != handle)
        at = &(*at)->next;
    ck_assert_ptr_nonnull(*at); /* else it was removed twice */
    *at = handle->next;
    rig->removed++;
    (void)pthread_mutex_unlock(&rig->lock);
    for (size_t i = 0; i < ARRAY_LEN(handle->fds); i++)
        (void)fd_close(handle->fds[i]);
    (void)fd_close(handle->pidfd);
    (void)fd_close(handle->pin_fd);
    free(handle);
}

static const char *vm_label(void *ctx, struct discovery_handle *handle)
{
    (void)ctx;
    return handle->label;
}

static int64_t vm_interval_ns(void *ctx, struct discovery_handle *handle)
{
    (void)ctx, (void)handle;
    return 100000000;
}

static int commit(void *ctx)
{
    struct rig *rig = ctx;
    rig->commits++;
    return 0;
}

static void set_config(void *ctx, struct config *config)
{
    (void)ctx, (void)config;
}

struct config *rig_config(const char *yaml)
{
    struct config *config = NULL;
    struct config_error error;
    int r = config_parse("test", yaml, strlen(yaml), &config, &error);
    ck_assert_msg(r == 0, "%s", r == -EINVAL ? error.message : strerror(-r));
    /* These tests are about stats fds; what BPF does with the same VMs, the system tests say. */
    if (strstr(yaml, "sources"))
        return config;
    config->discovery.n_sources = 1;
    config->discovery.sources[0] = CONFIG_SOURCE_STATSFD;
    return config;
}

void rig_setup(struct rig *rig, const char *yaml)
{
    *rig = (struct rig){0};
    (void)pthread_mutex_init(&rig->lock, NULL);
    const struct discovery_sink sink = {
        .ctx = rig,
        .vm_add = vm_add,
        .target_add = target_add,
        .target_remove = target_remove,
        .target_fd = target_fd,
        .vm_set_vcpus = vm_set_vcpus,
        .vm_remove = vm_remove,
        .vm_pin = vm_pin,
        .vm_is_pinned = vm_is_pinned,
        .vm_label = vm_label,
        .vm_interval_ns = vm_interval_ns,
        .commit = commit,
        .set_config = set_config,
        .events_fd = -1,
    };
    rig->config = rig_config(yaml);
    ck_assert_int_eq(store_new(&rig->store), 0);
    ck_assert_int_eq(proc_open("", &rig->proc), 0);
    ck_assert_int_eq(broker_new(&rig->proc, &rig->broker), 0);
    ck_assert_int_eq(
        discovery_new(rig->store, &rig->proc, rig->broker, rig->config, &sink, &rig->discovery), 0);
}

void rig_teardown(struct rig *rig)
{
    discovery_free(rig->discovery);
    while (rig->vms)
        vm_remove(rig, rig->vms);
    broker_free(rig->broker);
    proc_close(&rig->proc);
    store_free(rig->store);
    config_unref(rig->config);
    (void)pthread_mutex_destroy(&rig->lock);
}

void rig_set_config(struct rig *rig, struct config *config)
{
    struct discovery_change *change;
    struct config_error error;
    ck_assert_int_eq(discovery_prepare(rig->discovery, rig->config, config, &change, &error), 0);
    discovery_adopt(rig->discovery, change);
}

void rig_want(struct rig *rig, pid_t pid)
{
    ck_assert_uint_lt(rig->n_pids, RIG_PIDS_MAX);
    rig->pids[rig->n_pids++] = pid;
}

void rig_made(struct rig *rig, pid_t pid)
{
    struct process *process = processes_get(rig->discovery, pid);
    ck_assert_ptr_nonnull(process);
    process->n_made++;
    rig_want(rig, pid);
}

void rig_look(struct rig *rig)
{
    rig->discovery->handed_on_ns = 0; /* at once, not at most every so often */
    ck_assert_int_eq(discovery_look_once(rig->discovery), 0);
}

void rig_look_at_all(struct rig *rig)
{
    for (unsigned i = 0; i < rig->n_pids; i++)
        procscan_look(rig->discovery, rig->pids[i], true);
    rig_look(rig);
}

const struct discovery_handle *rig_vm(struct rig *rig, pid_t pid)
{
    const struct discovery_handle *found = NULL;
    for (const struct discovery_handle *vm = rig->vms; vm; vm = vm->next) {
        if (vm->pid != pid)
            continue;
        ck_assert_ptr_null(found);
        found = vm;
    }
    return found;
}

const char *rig_targets(struct rig *rig, pid_t pid)
{
    static char text[16 * RIG_VCPUS_MAX];
    size_t len = 0;
    const struct discovery_handle *vm = rig_vm(rig, pid);
    text[0] = '\0';
    for (int i = 0; vm && i <= RIG_VCPUS_MAX; i++) {
        if (vm->fds[i] < 0)
            continue;
        if (i == 0)
            len += (size_t)sprintf(text + len, "VM");
        else
            len += (size_t)sprintf(text + len, "%s%d", len ? " " : "", i - 1);
    }
    return text;
}

unsigned rig_roster(struct rig *rig, pid_t pid, enum unreadable_reason *ret_reason)
{
    unsigned n = 0;
    CLEANUP(cleanup_roster_unref) struct roster *roster = roster_get(&rig->store->roster);
    ck_assert_ptr_nonnull(roster);
    for (size_t i = 0; i < roster->n_vms; i++) {
        if (roster->vms[i].pid != pid)
            continue;
        n++;
        *ret_reason = roster->vms[i].reason;
        ck_assert_int_eq(roster->vms[i].reason == UNREADABLE_NOT, roster->vms[i].detail[0] == '\0');
    }
    return n;
}
