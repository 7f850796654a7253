/* SPDX-License-Identifier: Apache-2.0 */
/* The sampler over a real VM that BPF reads. */
#include <errno.h>
#include <linux/bpf.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bpf.h"
#include "holdup.h"
#include "kvmtest.h"
#include "rig.h"
#include "schema_table.h"

#ifndef KVMSTATD_BPF

START_TEST(no_bpf)
{
    testing_skip("built without BPF");
}
END_TEST

#else

enum {
    VCPUS = 2,
    HELD_UP_MS = 200,
};

/* Plans the demo VM and its vCPUs, all read by BPF: at their addresses, or when their files are
 * visited. */
static uint64_t plan_vm(struct rig *rig, struct bpf_source *source, pid_t pid, bool by_files,
                        const struct schema *const schemas[2])
{
    const struct planned_vm_spec spec = {
        .name = "web", .uuid = "", .vmm = "demo", .machine = "", .unit = "", .pid = pid};
    struct planned_vm *vm;
    struct bpf_kvm_file *files;
    size_t n;
    ck_assert_int_eq(planner_vm_add(rig->planner, &spec, (int)syscall(SYS_pidfd_open, pid, 0), &vm),
                     0);
    if (!by_files)
        planner_vm_pin(vm, kvmtest_borrow_one(pid, -1));
    ck_assert_int_eq(bpf_source_list(source, &files, &n), 0);
    for (size_t i = 0; i < n; i++) {
        if ((pid_t)files[i].tgid != pid)
            continue;
        enum scope scope = files[i].vcpu_id < 0 ? SCOPE_VM : SCOPE_VCPU;
        struct bpf_wanted wanted = {0};
        bpf_source_wanted(source, scope, &files[i], &wanted);
        int r = planner_target_add_bpf(rig->planner, vm, files[i].vcpu_id, schemas[scope],
                                       bpf_source_block(source, scope, &files[i]),
                                       by_files ? &wanted : NULL);
        ck_assert(r == 0 || r == -EEXIST); /* an object may have more than one file */
    }
    free(files);
    ck_assert_int_eq(planner_commit(rig->planner), 0);
    return planned_vm_id(vm);
}

/* A call of that kind which does nothing. */
static void make_no_call(void *arg)
{
    union bpf_attr attr;
    memset(&attr, 0xff, sizeof attr);
    ck_assert_int_lt(syscall(SYS_bpf, *(const int *)arg, &attr, sizeof attr), 0);
}

static const struct way {
    bool by_files;
    int held_up; /* bpf(2)'s command */
} ways[] = {
    {false, BPF_PROG_TEST_RUN},
    {true, BPF_ITER_CREATE},
};

/* As by stats fds: values of later must not be told as those of before. */
START_TEST(what_was_held_up_is_not_told_as_of_before)
{
    kvmtest_require_kvm();
    struct way way = ways[_i];
    struct rig rig;
    struct holdup holdup;
    struct bpf_source *source;
    struct bpf_error error;
    struct schema_table table;
    const struct schema *schemas[2];
    if (geteuid() != 0)
        testing_skip("needs root, for BPF");
    struct kvmtest_vms *vms = kvmtest_start("--vcpus", "2", "--load", "mix", NULL);
    ck_assert_msg(bpf_source_new(&source, &error) == 0, "%s", error.message);
    schema_table_init(&table);
    ck_assert_int_eq(bpf_source_schemas(&table, schemas, &error), 0);
    rig_prepare(&rig, "sampling: {interval: 1s}\n");
    uint64_t id = plan_vm(&rig, source, vms->vms[0].pid, way.by_files, schemas);

    holdup_start(&holdup, SYS_bpf, (uint32_t)way.held_up, HELD_UP_MS);
    rig_step(&rig);
    int64_t let_go_ns = atomic_load(&holdup.let_go_ns);
    ck_assert_int_gt(let_go_ns, 0);
    for (int32_t vcpu = -1; vcpu < VCPUS; vcpu++)
        ck_assert_int_ge(seen_read_ns(&rig, id, vcpu), let_go_ns);
    holdup_stop(&holdup, make_no_call, &way.held_up);

    rig_stop(&rig);
    schema_table_deinit(&table);
    bpf_source_free(source);
    kvmtest_stop(vms);
}
END_TEST

#endif

static Suite *suite(void)
{
    Suite *suite = suite_create("sampler");
    TCase *tc = tcase_create("bpf");
    tcase_set_timeout(tc, 60);
#ifdef KVMSTATD_BPF
    tcase_add_loop_test(tc, what_was_held_up_is_not_told_as_of_before, 0, (int)ARRAY_LEN(ways));
#else
    tcase_add_test(tc, no_bpf);
#endif
    suite_add_tcase(suite, tc);
    return suite;
}

int main(void)
{
    return testing_run(suite(), (Suite *)NULL);
}
