/* SPDX-License-Identifier: Apache-2.0 */
/* Real VMs through BPF: what the iterator lists, and that a block is what the stats fd says. */
#include <stdio.h>
#include <string.h>

#include "bpf.h"
#include "cleanup.h"
#include "clock.h"
#include "kvmtest.h"
#include "schema_table.h"
#include "statsfd.h"
#include "testing.h"

#ifndef KVMSTATD_BPF

START_TEST(no_bpf)
{
    testing_skip("built without BPF");
}
END_TEST

#else

static void require_bpf(void)
{
    kvmtest_require_kvm();
}

static struct bpf_source *open_source(void)
{
    struct bpf_source *source;
    struct bpf_error error;
    if (bpf_source_new(&source, &error) < 0) {
        if (geteuid() != 0)
            testing_skip(error.message);
        ck_abort_msg("%s", error.message);
    }
    return source;
}

START_TEST(iterator_lists_vms_and_vcpus)
{
    require_bpf();
    struct kvmtest_vms *vms = kvmtest_start("--vms", "3", "--vcpus", "2", "--name", "bpf", NULL);
    struct bpf_source *source = open_source();
    struct bpf_kvm_file *files;
    size_t n;
    ck_assert_int_eq(bpf_source_list(source, &files, &n), 0);
    for (size_t i = 0; i < vms->n; i++) {
        unsigned n_vms = 0, vcpus_seen = 0;
        uint64_t kvm = 0;
        for (size_t j = 0; j < n; j++) {
            const struct bpf_kvm_file *f = &files[j];
            char path[64], link[64] = {0}, expected[64];
            if ((pid_t)f->tgid != vms->vms[i].pid)
                continue;
            if (f->vcpu == 0) {
                n_vms++;
                snprintf(expected, sizeof expected, "anon_inode:kvm-vm");
                ck_assert_int_eq(f->vcpu_id, -1);
            } else {
                vcpus_seen |= 1u << f->vcpu_id;
                snprintf(expected, sizeof expected, "anon_inode:kvm-vcpu:%d", f->vcpu_id);
                /* Each vCPU has its own thread, and that thread is the process's. */
                snprintf(path, sizeof path, "/proc/%d/task/%d", (int)f->tgid, f->vcpu_tid);
                ck_assert_msg(access(path, F_OK) == 0, "no thread %s", path);
            }
            ck_assert_int_eq(f->owner, vms->vms[i].pid);
            ck_assert(kvm == 0 || kvm == f->kvm);
            kvm = f->kvm;
            snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)f->tgid, f->fd);
            ck_assert_int_gt(readlink(path, link, sizeof link - 1), 0);
            ck_assert_str_eq(link, expected);
        }
        ck_assert_uint_eq(n_vms, 1);
        ck_assert_uint_eq(vcpus_seen, 3);
    }
    free(files);
    bpf_source_free(source);
    kvmtest_stop(vms);
}
END_TEST

/* A file that merely is called like a VM's is none. */
START_TEST(names_are_not_believed)
{
    require_bpf();
    struct bpf_source *source = open_source();
    struct bpf_kvm_file *files;
    size_t n;
    char path[] = "/tmp/kvmstatd-XXXXXX", file[64];
    ck_assert_ptr_nonnull(mkdtemp(path));
    snprintf(file, sizeof file, "%s/kvm-vm", path);
    FILE *f = fopen(file, "w");
    ck_assert_ptr_nonnull(f);
    ck_assert_int_eq(bpf_source_list(source, &files, &n), 0);
    for (size_t i = 0; i < n; i++)
        ck_assert_int_ne((pid_t)files[i].tgid, getpid());
    free(files);
    fclose(f);
    unlink(file);
    rmdir(path);
    bpf_source_free(source);
}
END_TEST

START_TEST(scratch_vm_tells_the_schema)
{
    require_bpf();
    const struct schema *schemas[2], *from_fd;
    struct schema_table table;
    struct bpf_error error;
    struct statsfd_error why;
    struct kvmtest_vms *vms = kvmtest_start("--vcpus", "1", NULL);
    schema_table_init(&table);
    ck_assert_int_eq(bpf_source_schemas(&table, schemas, &error), 0);
    for (int scope = 0; scope < 2; scope++) {
        int fd = kvmtest_borrow_one(vms->vms[0].pid, scope == SCOPE_VM ? -1 : 0);
        ck_assert_int_eq(statsfd_open(fd, (enum scope)scope, &table, &from_fd, NULL, 0, &why), 0);
        ck_assert_ptr_eq(schemas[scope], from_fd);
        close(fd);
    }
    schema_table_deinit(&table);
    kvmtest_stop(vms);
}
END_TEST

static uint64_t find_block(struct bpf_source *source, pid_t pid, int vcpu)
{
    struct bpf_kvm_file *files;
    size_t n;
    uint64_t address = 0;
    ck_assert_int_eq(bpf_source_list(source, &files, &n), 0);
    for (size_t i = 0; i < n; i++) {
        if ((pid_t)files[i].tgid == pid && files[i].vcpu_id == vcpu)
            address = bpf_source_block(source, vcpu < 0 ? SCOPE_VM : SCOPE_VCPU, &files[i]);
    }
    free(files);
    return address;
}

static void read_block(int fd, const struct schema *schema, char *block)
{
    ck_assert_int_eq(statsfd_pread(fd, block, schema->data_bytes, schema->data_offset),
                     (ssize_t)schema->data_bytes);
}

START_TEST(blocks_are_what_the_stats_fds_say)
{
    require_bpf();
    enum {
        ELEMENT = 2048,
        FRAME_ELEMENTS = 4,
    };
    struct bpf_source *source = open_source();
    struct bpf_sweep *sweep;
    struct bpf_error error;
    const struct schema *schemas[2];
    struct schema_table table;
    struct kvmtest_vms *vms = kvmtest_start("--vcpus", "1", "--load", "mix", NULL);
    pid_t pid = vms->vms[0].pid;
    schema_table_init(&table);
    ck_assert_int_eq(bpf_source_schemas(&table, schemas, &error), 0);
    if (bpf_sweep_new(3, 3, FRAME_ELEMENTS, ELEMENT, &sweep, &error) < 0)
        ck_abort_msg("%s", error.message);

    bpf_sweep_set(sweep, 0, find_block(source, pid, -1), schemas[SCOPE_VM]->data_bytes, 1);
    bpf_sweep_set(sweep, 1, find_block(source, pid, 0), schemas[SCOPE_VCPU]->data_bytes, 2);
    bpf_sweep_set(sweep, 2, 8, 64, 3); /* a wild address faults, and nothing else happens */
    int vm_fd = kvmtest_borrow_one(pid, -1), vcpu_fd = kvmtest_borrow_one(pid, 0);
    uint64_t last = 0;
    for (uint32_t frame = 0; frame < 3; frame++) {
        uint64_t low, high;
        char earlier[1024], block[1024];
        const size_t vm_bytes = schemas[SCOPE_VM]->data_bytes;
        do { /* the VM's own hardly moves, but it may */
            read_block(vm_fd, schemas[SCOPE_VM], earlier);
            low = kvmtest_value(vcpu_fd, "exits", 0);
            ck_assert_int_eq(bpf_sweep_run(sweep, frame, 0, 3), 1);
            high = kvmtest_value(vcpu_fd, "exits", 0);
            read_block(vm_fd, schemas[SCOPE_VM], block);
        } while (memcmp(earlier, block, vm_bytes) != 0);
        ck_assert(!bpf_sweep_failed(sweep, 0));
        ck_assert(!bpf_sweep_failed(sweep, 1));
        ck_assert(bpf_sweep_failed(sweep, 2));
        ck_assert(!bpf_sweep_failed(sweep, 2));
        const char *memory = bpf_sweep_frame(sweep, frame);
        const struct kvmstats_desc *exits =
            kvmstats_schema_find(schemas[SCOPE_VCPU]->decoded, "exits");
        uint64_t value = kvmstats_value(exits, memory + 2 * ELEMENT, 0);
        ck_assert_uint_le(low, value);
        ck_assert_uint_le(value, high);
        ck_assert_uint_ge(value, last);
        last = value;
        ck_assert_mem_eq(memory + ELEMENT, block, vm_bytes);
        usleep(20000);
    }
    ck_assert_uint_gt(last, 0);
    /* Frames do not overlap: the first one still holds what it held. */
    bpf_sweep_set(sweep, 1, 0, 0, 2);
    ck_assert_int_eq(bpf_sweep_run(sweep, 0, 1, 1), 0);
    close(vm_fd);
    close(vcpu_fd);
    bpf_sweep_free(sweep);
    schema_table_deinit(&table);
    bpf_source_free(source);
    kvmtest_stop(vms);
}
END_TEST

static struct bpf_wanted find_wanted(struct bpf_source *source, pid_t pid, int vcpu)
{
    struct bpf_wanted wanted = {0};
    struct bpf_kvm_file *files;
    size_t n;
    ck_assert_int_eq(bpf_source_list(source, &files, &n), 0);
    for (size_t i = 0; i < n; i++) {
        if ((pid_t)files[i].tgid == pid && files[i].vcpu_id == vcpu)
            bpf_source_wanted(source, vcpu < 0 ? SCOPE_VM : SCOPE_VCPU, &files[i], &wanted);
    }
    free(files);
    return wanted;
}

/* Nobody holds these VMs for us: what is copied is what the iterator comes by. */
START_TEST(blocks_are_copied_by_their_files)
{
    require_bpf();
    enum {
        ELEMENT = 2048,
        FRAME_ELEMENTS = 8,
    };
    struct bpf_source *source = open_source();
    struct bpf_sweep *sweep;
    struct bpf_error error;
    const struct schema *schemas[2];
    struct schema_table table;
    struct kvmtest_vms *vms = kvmtest_start("--vms", "2", "--vcpus", "2", "--load", "mix", NULL);
    pid_t pid = vms->vms[0].pid, other = vms->vms[1].pid;
    schema_table_init(&table);
    ck_assert_int_eq(bpf_source_schemas(&table, schemas, &error), 0);
    ck_assert_int_eq(bpf_sweep_new(5, 2, FRAME_ELEMENTS, ELEMENT, &sweep, &error), 0);
    ck_assert_msg(bpf_sweep_add_files(sweep, &error) == 0, "%s", error.message);

    uint32_t vm_bytes = schemas[SCOPE_VM]->data_bytes, bytes = schemas[SCOPE_VCPU]->data_bytes;
    struct bpf_wanted vcpu1 = find_wanted(source, other, 1), stranger = find_wanted(source, pid, 1);
    struct bpf_wanted vm = find_wanted(source, pid, -1), vcpu0 = find_wanted(source, pid, 0);
    struct bpf_wanted nobody = vcpu1;
    stranger.owner = other; /* at its place there is now what somebody else has made */
    nobody.object = 0xdead0000;
    bpf_sweep_set_wanted(sweep, 0, &vm, vm_bytes, 1);
    bpf_sweep_set_wanted(sweep, 1, &vcpu0, bytes, 2);
    bpf_sweep_set_wanted(sweep, 2, &stranger, bytes, 3);
    bpf_sweep_set_wanted(sweep, 3, &nobody, bytes, 4);
    bpf_sweep_set_wanted(sweep, 4, &vcpu1, bytes, 5);

    int vm_fd = kvmtest_borrow_one(pid, -1), vcpu_fd = kvmtest_borrow_one(pid, 0);
    int other_fd = kvmtest_borrow_one(other, 1);
    const struct kvmstats_desc *exits = kvmstats_schema_find(schemas[SCOPE_VCPU]->decoded, "exits");
    /* The sweep over pinned blocks leaves them alone. */
    ck_assert_int_eq(bpf_sweep_run(sweep, 0, 0, 5), 0);
    ck_assert_uint_eq(kvmstats_value(exits, (char *)bpf_sweep_frame(sweep, 0) + 2 * ELEMENT, 0), 0);
    for (uint32_t frame = 0; frame < 2; frame++) {
        const char *memory = bpf_sweep_frame(sweep, frame);
        char earlier[1024], block[1024], nothing[ELEMENT] = {0};
        uint64_t low, other_low, high, other_high;
        int64_t begin_ns, end_ns, read_ns;
        do { /* the VM's own hardly moves, but it may */
            read_block(vm_fd, schemas[SCOPE_VM], earlier);
            low = kvmtest_value(vcpu_fd, "exits", 0);
            other_low = kvmtest_value(other_fd, "exits", 0);
            begin_ns = clock_now_ns();
            ck_assert_int_eq(bpf_sweep_run_files(sweep, frame), 3);
            end_ns = clock_now_ns();
            high = kvmtest_value(vcpu_fd, "exits", 0);
            other_high = kvmtest_value(other_fd, "exits", 0);
            read_block(vm_fd, schemas[SCOPE_VM], block);
        } while (memcmp(earlier, block, vm_bytes) != 0);
        uint64_t value = kvmstats_value(exits, memory + 2 * ELEMENT, 0);
        uint64_t other_value = kvmstats_value(exits, memory + 5 * ELEMENT, 0);
        ck_assert_uint_ge(value, low);
        ck_assert_uint_le(value, high);
        ck_assert_uint_ge(other_value, other_low);
        ck_assert_uint_le(other_value, other_high);
        ck_assert_mem_eq(memory + ELEMENT, block, vm_bytes);
        for (uint32_t i = 0; i < 5; i++) {
            ck_assert_int_eq(bpf_sweep_seen(sweep, i, &read_ns), i != 2 && i != 3);
            ck_assert(i == 2 || i == 3 || (read_ns >= begin_ns && read_ns <= end_ns));
        }
        ck_assert_mem_eq(memory + 3 * ELEMENT, nothing, ELEMENT);
        ck_assert_mem_eq(memory + 4 * ELEMENT, nothing, ELEMENT);
    }
    /* What is not wanted any more is not copied, each way. */
    bpf_sweep_set(sweep, 0, 0, 0, 0);
    ck_assert_int_eq(bpf_sweep_run_files(sweep, 0), 2);
    int64_t read_ns;
    ck_assert(!bpf_sweep_seen(sweep, 0, &read_ns));
    bpf_sweep_forget_files(sweep);
    ck_assert_int_eq(bpf_sweep_run_files(sweep, 0), 0);
    ck_assert(!bpf_sweep_seen(sweep, 4, &read_ns));
    close(vm_fd);
    close(vcpu_fd);
    close(other_fd);
    bpf_sweep_free(sweep);
    schema_table_deinit(&table);
    bpf_source_free(source);
    kvmtest_stop(vms);
}
END_TEST

#endif

static Suite *suite(void)
{
    Suite *s = suite_create("source");
    TCase *tc = tcase_create("bpf");
    tcase_set_timeout(tc, 60);
#ifdef KVMSTATD_BPF
    tcase_add_test(tc, iterator_lists_vms_and_vcpus);
    tcase_add_test(tc, names_are_not_believed);
    tcase_add_test(tc, scratch_vm_tells_the_schema);
    tcase_add_test(tc, blocks_are_what_the_stats_fds_say);
    tcase_add_test(tc, blocks_are_copied_by_their_files);
#else
    tcase_add_test(tc, no_bpf);
#endif
    suite_add_tcase(s, tc);
    return s;
}

int main(void)
{
    return testing_run(suite(), NULL);
}
