/* SPDX-License-Identifier: Apache-2.0 */
#include "rig.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    START_TICKS = 100, /* of processes, where the test doesn't say */
    PATH_BYTES = 256,
};

unsigned rig_troubles[SCHEDULER_TROUBLES];

static void notice(enum scheduler_trouble trouble, int error)
{
    (void)error;
    rig_troubles[trouble]++;
}

struct config *rig_config(const char *yaml)
{
    struct config *config;
    struct config_error error;
    if (config_parse("test", yaml, strlen(yaml), &config, &error) < 0)
        ck_abort_msg("%s", error.message);
    return config;
}

static void make(struct rig *rig, const char *yaml)
{
    struct config *config = rig_config(yaml);
    memset(rig_troubles, 0, sizeof rig_troubles);
    ck_assert_int_eq(proc_open(rig->real ? "" : rig->tree.root, &rig->proc), 0);
    ck_assert_int_eq(store_new(&rig->store), 0);
    ck_assert_int_eq(scheduler_new(rig->store, &rig->proc, config, notice, &rig->scheduler), 0);
    config_unref(config);
}

void rig_make(struct rig *rig, const char *yaml)
{
    rig->real = false;
    tree_make(&rig->tree, 1);
    make(rig, yaml);
}

void rig_make_real(struct rig *rig, const char *yaml)
{
    rig->real = true;
    make(rig, yaml);
}

void rig_make_without_fds(struct rig *rig, const char *yaml)
{
    struct rlimit limit, low;
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    /* Half of it is what may be kept open: less than what is open anyway. */
    rig->real = false;
    tree_make(&rig->tree, 1);
    struct config *config = rig_config(yaml);
    ck_assert_int_eq(proc_open(rig->tree.root, &rig->proc), 0);
    ck_assert_int_eq(store_new(&rig->store), 0);
    memset(rig_troubles, 0, sizeof rig_troubles);
    int spare = open("/dev/null", O_RDONLY | O_CLOEXEC); /* for the mailbox */
    (void)close(spare);
    low = (struct rlimit){(rlim_t)spare + 1, limit.rlim_max};
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
    ck_assert_int_eq(scheduler_new(rig->store, &rig->proc, config, notice, &rig->scheduler), 0);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    config_unref(config);
}

void rig_end(struct rig *rig)
{
    scheduler_free(rig->scheduler);
    store_free(rig->store);
    proc_close(&rig->proc);
    if (!rig->real)
        tree_remove(&rig->tree);
}

static void thread(const struct rig *rig, pid_t pid, pid_t tid, uint64_t start_ticks,
                   const char *name)
{
    char path[PATH_BYTES], text[PATH_BYTES];
    (void)snprintf(path, sizeof path, "task/%d/comm", (int)tid);
    (void)snprintf(text, sizeof text, "%s\n", name);
    tree_file(&rig->tree, pid, path, text, strlen(text));
    (void)snprintf(path, sizeof path, "task/%d/stat", (int)tid);
    (void)snprintf(text, sizeof text,
                   "%d (%s) S 1 1 1 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 9 0 %llu 1\n", (int)tid, name,
                   (unsigned long long)start_ticks);
    tree_file(&rig->tree, pid, path, text, strlen(text));
    rig_times(rig, pid, tid, 1000 + (uint64_t)tid, 1);
}

void rig_process(const struct rig *rig, pid_t pid, uint64_t start_ticks, const char *name)
{
    thread(rig, pid, pid, start_ticks, name);
}

void rig_thread(const struct rig *rig, pid_t pid, pid_t tid, const char *name)
{
    /* After all that was ever read: a thread that is new. */
    thread(rig, pid, tid, UINT64_C(1) << 33, name);
}

void rig_times(const struct rig *rig, pid_t pid, pid_t tid, uint64_t run_ns, uint64_t wait_ns)
{
    char path[PATH_BYTES], text[PATH_BYTES];
    (void)snprintf(path, sizeof path, "task/%d/schedstat", (int)tid);
    (void)snprintf(text, sizeof text, "%llu %llu %d\n", (unsigned long long)run_ns,
                   (unsigned long long)wait_ns, run_ns + wait_ns ? 9 : 0);
    tree_file(&rig->tree, pid, path, text, strlen(text));
}

void rig_thread_ends(const struct rig *rig, pid_t pid, pid_t tid)
{
    static const char *const files[] = {"/comm", "/stat", "/schedstat", ""};
    char path[PATH_BYTES];
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        (void)snprintf(path, sizeof path, "%s/proc/%d/task/%d%s", rig->tree.root, (int)pid,
                       (int)tid, files[i]);
        ck_assert_int_eq(remove(path), 0);
    }
}

void rig_vm_of(const struct rig *rig, uint64_t id, pid_t pid, uint64_t start_ticks, const char *vmm,
               const int32_t *vcpus, uint32_t n)
{
    const struct scheduler_vm vm = {.id = id, .pid = pid, .start_ticks = start_ticks, .vmm = vmm};
    scheduler_vm_add(rig->scheduler, &vm);
    scheduler_vm_set_vcpus(rig->scheduler, id, n);
    for (uint32_t i = 0; i < n; i++)
        scheduler_vcpu_add(rig->scheduler, id, vcpus ? vcpus[i] : (int32_t)i);
}

void rig_vm(const struct rig *rig, pid_t pid, const char *vmm, uint32_t n_vcpus)
{
    rig_process(rig, pid, START_TICKS, vmm);
    rig_vm_of(rig, (uint64_t)pid, pid, START_TICKS, vmm, NULL, n_vcpus);
}

void rig_hint(const struct rig *rig, uint64_t id, int32_t vcpu, enum thread_hint hint, pid_t tid)
{
    scheduler_vcpu_thread(rig->scheduler, id, vcpu, hint, tid);
}

void rig_read(const struct rig *rig)
{
    scheduler_commit(rig->scheduler);
    scheduler_run_once(rig->scheduler);
    /* A thread that has ended is replaced at the next look, which comes at once. */
    scheduler_run_once(rig->scheduler);
}

static uint64_t vcpu_value(const struct rig *rig, uint64_t id, int32_t vcpu, bool run)
{
    CLEANUP(cleanup_cputimes_unref) struct cputimes *times = cputimes_get(&rig->store->cputimes);
    const struct cputimes_vm *vm = times ? cputimes_find(times, id) : NULL;
    for (uint32_t i = 0; vm && i < vm->n_vcpus; i++) {
        const struct cputimes_vcpu *found = &times->vcpus[vm->first_vcpu + i];
        if (found->vcpu == vcpu)
            return run ? found->run_ns : found->wait_ns;
    }
    return ABSENT;
}

uint64_t rig_run(const struct rig *rig, uint64_t id, int32_t vcpu)
{
    return vcpu_value(rig, id, vcpu, true);
}

uint64_t rig_wait(const struct rig *rig, uint64_t id, int32_t vcpu)
{
    return vcpu_value(rig, id, vcpu, false);
}

static uint64_t sum_value(const struct rig *rig, uint64_t id, bool run)
{
    CLEANUP(cleanup_cputimes_unref) struct cputimes *times = cputimes_get(&rig->store->cputimes);
    const struct cputimes_vm *vm = times ? cputimes_find(times, id) : NULL;
    if (!vm || !vm->whole)
        return ABSENT;
    return run ? vm->run_ns : vm->wait_ns;
}

uint64_t rig_sum_run(const struct rig *rig, uint64_t id)
{
    return sum_value(rig, id, true);
}

uint64_t rig_sum_wait(const struct rig *rig, uint64_t id)
{
    return sum_value(rig, id, false);
}
