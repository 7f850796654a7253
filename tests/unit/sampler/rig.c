/* SPDX-License-Identifier: Apache-2.0 */
#include "rig.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "clock.h"
#include "statsfd.h"

enum {
    DATA_OFFSET = 512,
};

static const struct kvmstats_desc stats[] = {
    {.name = "exits", .size = 1, .offset = 0},
    {.name = "blocking", .flags = 0x41, .type = 1, .unit = 4, .size = 1, .offset = 8},
    {.name = "wait_hist",
     .flags = 0x24,
     .type = 4,
     .unit = 2,
     .exponent = -9,
     .size = 4,
     .offset = 16},
    {.name = "pages", .flags = 0x01, .type = 1, .size = 1, .offset = 48},
};

static struct config *parse(const char *yaml)
{
    struct config *config;
    struct config_error error;
    if (config_parse("test", yaml, strlen(yaml), &config, &error) < 0)
        ck_abort_msg("%s", error.message);
    return config;
}

void rig_prepare(struct rig *rig, const char *yaml)
{
    rig->config = parse(yaml);
    ck_assert_int_eq(store_new(&rig->store), 0);
    ck_assert_int_eq(reaper_new(&rig->reaper), 0);
    ck_assert_int_eq(sampler_new(rig->store, rig->reaper, &rig->sampler), 0);
    ck_assert_int_eq(planner_new(rig->store, rig->sampler, rig->config, &rig->planner), 0);
}

void rig_start(struct rig *rig, const char *yaml)
{
    rig_prepare(rig, yaml);
    ck_assert_int_eq(reaper_start(rig->reaper), 0);
    ck_assert_int_eq(sampler_start(rig->sampler, NULL, 0), 0);
}

void rig_step(struct rig *rig)
{
    sampler_run_once(rig->sampler);
}

void rig_stop(struct rig *rig)
{
    sampler_free(rig->sampler);
    reaper_stop(rig->reaper);
    planner_free(rig->planner);
    reaper_free(rig->reaper);
    store_free(rig->store);
    config_unref(rig->config);
}

void rig_set_config(struct rig *rig, const char *yaml)
{
    struct config *config = parse(yaml);
    planner_set_config(rig->planner, config);
    config_unref(config);
}

struct fake_vm fake_vm_start(struct rig *rig, const char *name)
{
    struct fake_vm vm = {.pid = fork()};
    ck_assert_int_ge(vm.pid, 0);
    if (vm.pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            pause();
    }
    int pidfd = (int)syscall(SYS_pidfd_open, vm.pid, 0);
    ck_assert_int_ge(pidfd, 0);
    const struct planned_vm_spec spec = {
        .name = name,
        .uuid = "",
        .vmm = "fake",
        .machine = "",
        .unit = "",
        .pid = vm.pid,
        .created_ns = clock_now_ns(),
    };
    ck_assert_int_eq(planner_vm_add(rig->planner, &spec, pidfd, &vm.planned), 0);
    vm.id = planned_vm_id(vm.planned);
    return vm;
}

void fake_vm_kill(struct fake_vm *vm)
{
    ck_assert_int_eq(kill(vm->pid, SIGKILL), 0);
    ck_assert_int_eq(waitpid(vm->pid, NULL, 0), vm->pid);
}

void fake_target_set(int memfd, uint64_t exits)
{
    ck_assert_int_eq(pwrite(memfd, &exits, sizeof exits, DATA_OFFSET), sizeof exits);
}

void fake_target_set_pages(int memfd, uint64_t pages)
{
    ck_assert_int_eq(pwrite(memfd, &pages, sizeof pages, DATA_OFFSET + 48), sizeof pages);
}

void fake_target_break(int memfd)
{
    ck_assert_int_eq(ftruncate(memfd, DATA_OFFSET + 8), 0); /* header stays, data is cut */
}

int fake_target(struct rig *rig, struct fake_vm *vm, int32_t vcpu)
{
    return fake_target_from(rig, vm, vcpu, TARGET_SOURCE_STATSFD);
}

int fake_target_from(struct rig *rig, struct fake_vm *vm, int32_t vcpu, enum target_source source)
{
    const struct kvmstats_model model = {
        .name_size = 48,
        .id_offset = 24,
        .desc_offset = 72,
        .data_offset = DATA_OFFSET,
        .id = "kvm-1",
        .descs = stats,
        .num_desc = ARRAY_LEN(stats),
        .data = (const uint64_t[7]){0},
        .data_bytes = 56,
    };
    char file[1024];
    const struct schema *schema;
    struct statsfd_error error;
    size_t len = kvmstats_encode(&model, file, sizeof file);
    ck_assert_uint_gt(len, 0);
    int memfd = memfd_create("stats", MFD_CLOEXEC);
    ck_assert_int_ge(memfd, 0);
    ck_assert_int_eq(pwrite(memfd, file, len, 0), (ssize_t)len);
    if (statsfd_open(memfd, vcpu < 0 ? SCOPE_VM : SCOPE_VCPU, &rig->store->schemas, &schema, NULL,
                     0, &error) < 0)
        ck_abort_msg("%s", error.message);
    int poke = dup(memfd);
    ck_assert_int_eq(planner_target_add(rig->planner, vm->planned, vcpu, schema, source, memfd), 0);
    return poke;
}

/* Of a view: the VM, and the number of the target among its own; NULL when they are not there. */
static const struct view_vm *find_target(const struct view *view, uint64_t vm_id, int32_t vcpu,
                                         uint32_t *ret_target)
{
    for (size_t i = 0; i < view->n_vms; i++) {
        const struct view_vm *vm = &view->vms[i];
        for (uint32_t j = 0; vm->vm->vm->id == vm_id && j < vm->vm->n_targets; j++) {
            *ret_target = j;
            if (vm->targets[j].vcpu == vcpu)
                return vm;
        }
    }
    return NULL;
}

uint64_t seen_exits(struct rig *rig, uint64_t vm_id, int32_t vcpu, uint8_t *ret_status)
{
    struct view view;
    uint64_t value = UINT64_MAX;
    uint32_t i;
    ck_assert_int_eq(view_take(rig->store, &view), 0);
    const struct view_vm *vm = find_target(&view, vm_id, vcpu, &i);
    if (vm && ret_status)
        *ret_status = vm->status[i];
    if (vm && vm->status[i] != TARGET_ABSENT)
        value = kvmstats_value(&stats[0], frame_block(vm->frame, &vm->targets[i]), 0);
    view_drop(&view);
    return value;
}

int64_t seen_read_ns(struct rig *rig, uint64_t vm_id, int32_t vcpu)
{
    struct view view;
    uint32_t i;
    ck_assert_int_eq(view_take(rig->store, &view), 0);
    const struct view_vm *vm = find_target(&view, vm_id, vcpu, &i);
    int64_t read_ns = vm ? vm->frame->read_ns[vm->vm->first_target + i] : 0;
    view_drop(&view);
    return read_ns;
}

unsigned seen_times(struct rig *rig, uint64_t vm_id)
{
    struct view view;
    unsigned times = 0;
    ck_assert_int_eq(view_take(rig->store, &view), 0);
    for (size_t i = 0; i < view.n_vms; i++)
        times += view.vms[i].vm->vm->id == vm_id;
    view_drop(&view);
    return times;
}

void wait_exits(struct rig *rig, uint64_t vm_id, int32_t vcpu, uint64_t value)
{
    uint64_t seen = 0;
    for (int i = 0; i < 10000; i++) {
        seen = seen_exits(rig, vm_id, vcpu, NULL);
        if (seen == value)
            return;
        sleep_ms(1);
    }
    ck_assert_uint_eq(seen, value);
}

unsigned open_fds(void)
{
    unsigned n = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

void sleep_ms(unsigned ms)
{
    struct timespec ts = {ms / 1000, (long)(ms % 1000) * 1000000};
    nanosleep(&ts, NULL);
}
