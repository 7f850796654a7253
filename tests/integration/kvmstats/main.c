/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the running kernel really writes. Nothing is assumed of its list of statistics but the few
 * that every architecture has had from the first version on.
 */
#include "kvmstats/kvmstats.h"

#include "testing.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

struct vm {
    int kvm, vm, vcpu;
    int vm_stats, vcpu_stats;
};

static struct vm vm_create(void)
{
    struct vm vm = {.kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC)};
    if (vm.kvm < 0)
        testing_skip("no /dev/kvm");
    if (ioctl(vm.kvm, KVM_CHECK_EXTENSION, KVM_CAP_BINARY_STATS_FD) <= 0)
        testing_skip("this kernel has no KVM_CAP_BINARY_STATS_FD");
    vm.vm = ioctl(vm.kvm, KVM_CREATE_VM, 0);
    ck_assert_int_ge(vm.vm, 0);
    vm.vcpu = ioctl(vm.vm, KVM_CREATE_VCPU, 0);
    ck_assert_int_ge(vm.vcpu, 0);
    vm.vm_stats = ioctl(vm.vm, KVM_GET_STATS_FD, NULL);
    vm.vcpu_stats = ioctl(vm.vcpu, KVM_GET_STATS_FD, NULL);
    ck_assert_int_ge(vm.vm_stats, 0);
    ck_assert_int_ge(vm.vcpu_stats, 0);
    return vm;
}

static void vm_close(const struct vm *vm)
{
    close(vm->vcpu_stats);
    close(vm->vm_stats);
    close(vm->vcpu);
    close(vm->vm);
    close(vm->kvm);
}

/* The first `len` bytes of the file, in memory that ends there. */
static char *read_start(int fd, size_t len)
{
    char *bytes = malloc(len);
    ck_assert_ptr_nonnull(bytes);
    ck_assert_int_eq(pread(fd, bytes, len, 0), (ssize_t)len);
    return bytes;
}

static struct kvmstats_schema *schema_of(int fd)
{
    struct kvmstats_schema *schema = NULL;
    struct kvmstats_error error = {.message = ""};
    size_t extent = 0;
    char *header = read_start(fd, KVMSTATS_HEADER_BYTES);
    int r = kvmstats_header_extent(header, KVMSTATS_HEADER_BYTES, &extent, &error);
    ck_assert_msg(r == 0, "%s", error.message);
    char *start = read_start(fd, extent);
    r = kvmstats_schema_decode(start, extent, &schema, &error);
    ck_assert_msg(r == 0, "%s", error.message);
    free(start);
    free(header);
    return schema;
}

static char *data_of(int fd, const struct kvmstats_schema *schema)
{
    size_t len = kvmstats_schema_data_bytes(schema);
    char *data = malloc(len ? len : 1);
    ck_assert_ptr_nonnull(data);
    ck_assert_int_eq(pread(fd, data, len, kvmstats_schema_data_offset(schema)), (ssize_t)len);
    return data;
}

static void expect_desc(const struct kvmstats_schema *schema, const char *name, uint8_t type,
                        uint8_t unit, int exponent)
{
    const struct kvmstats_desc *desc = kvmstats_schema_find(schema, name);
    ck_assert_msg(desc != NULL, "%s is missing", name);
    ck_assert_msg(desc->known && desc->type == type && desc->unit == unit &&
                      desc->base == KVMSTATS_BASE_POW10 && desc->exponent == exponent,
                  "%s: flags %x, exponent %d", name, desc->flags, desc->exponent);
    ck_assert(desc->size == 1 || kvmstats_is_histogram(desc));
}

START_TEST(both_scopes_decode)
{
    struct vm vm = vm_create();
    struct kvmstats_schema *schema = schema_of(vm.vm_stats);
    char id[64];
    /* The id has the thread's number in the first PID namespace: in a container it is another. */
    ck_assert_int_eq(sscanf(kvmstats_schema_id(schema), "kvm-%63[0-9]", id), 1);
    expect_desc(schema, "remote_tlb_flush", KVMSTATS_TYPE_CUMULATIVE, KVMSTATS_UNIT_NONE, 0);
    kvmstats_schema_free(schema);

    schema = schema_of(vm.vcpu_stats);
    ck_assert_int_eq(sscanf(kvmstats_schema_id(schema), "kvm-%*[0-9]/vcpu-%63[0-9]", id), 1);
    ck_assert_str_eq(id, "0");
    expect_desc(schema, "halt_wakeup", KVMSTATS_TYPE_CUMULATIVE, KVMSTATS_UNIT_NONE, 0);
    expect_desc(schema, "halt_wait_ns", KVMSTATS_TYPE_CUMULATIVE, KVMSTATS_UNIT_SECONDS, -9);
    expect_desc(schema, "halt_wait_hist", KVMSTATS_TYPE_LOG_HIST, KVMSTATS_UNIT_SECONDS, -9);
    kvmstats_schema_free(schema);
    vm_close(&vm);
}
END_TEST

/* While nothing runs, each value alone is what it is in the block. */
START_TEST(single_reads_are_the_bulk_read)
{
    struct vm vm = vm_create();
    const int fds[] = {vm.vm_stats, vm.vcpu_stats};
    for (int f = 0; f < 2; f++) {
        struct kvmstats_schema *schema = schema_of(fds[f]);
        char *data = data_of(fds[f], schema);
        ck_assert_uint_gt(kvmstats_schema_count(schema), 0);
        for (size_t i = 0; i < kvmstats_schema_count(schema); i++) {
            const struct kvmstats_desc *desc = kvmstats_schema_desc(schema, i);
            for (size_t k = 0; k < desc->size; k++) {
                off_t at = (off_t)(kvmstats_schema_data_offset(schema) + desc->offset + k * 8);
                uint64_t alone = 0;
                ck_assert_int_eq(pread(fds[f], &alone, sizeof alone, at), sizeof alone);
                ck_assert_uint_eq(alone, kvmstats_value(desc, data, k));
            }
        }
        free(data);
        kvmstats_schema_free(schema);
    }
    vm_close(&vm);
}
END_TEST

START_TEST(vms_of_one_host_share_their_schemas)
{
    struct vm a = vm_create(), b = vm_create();
    struct kvmstats_schema *vm_a = schema_of(a.vm_stats), *vm_b = schema_of(b.vm_stats);
    struct kvmstats_schema *vcpu_a = schema_of(a.vcpu_stats), *vcpu_b = schema_of(b.vcpu_stats);
    ck_assert(kvmstats_schema_equal(vm_a, vm_b));
    ck_assert(kvmstats_schema_equal(vcpu_a, vcpu_b));
    ck_assert(!kvmstats_schema_equal(vm_a, vcpu_a));
    kvmstats_schema_free(vm_a);
    kvmstats_schema_free(vm_b);
    kvmstats_schema_free(vcpu_a);
    kvmstats_schema_free(vcpu_b);
    vm_close(&a);
    vm_close(&b);
}
END_TEST

/* Descriptors and encoder agree with the kernel byte by byte. */
START_TEST(encoding_gives_back_the_kernels_bytes)
{
    struct vm vm = vm_create();
    const int fds[] = {vm.vm_stats, vm.vcpu_stats};
    for (int f = 0; f < 2; f++) {
        struct kvmstats_schema *schema = schema_of(fds[f]);
        char *data = data_of(fds[f], schema);
        uint32_t header[6];
        ck_assert_int_eq(pread(fds[f], header, sizeof header, 0), sizeof header);
        size_t len = header[5] + kvmstats_schema_data_bytes(schema);
        char *kernels = read_start(fds[f], len), *ours = malloc(len);
        struct kvmstats_model model = {
            .flags = kvmstats_schema_flags(schema),
            .name_size = header[1],
            .id_offset = header[3],
            .desc_offset = header[4],
            .data_offset = kvmstats_schema_data_offset(schema),
            .id = kvmstats_schema_id(schema),
            .descs = kvmstats_schema_desc(schema, 0),
            .num_desc = (uint32_t)kvmstats_schema_count(schema),
            .data = data,
            .data_bytes = kvmstats_schema_data_bytes(schema),
        };
        ck_assert_ptr_nonnull(ours);
        ck_assert_uint_eq(kvmstats_encode(&model, ours, len), len);
        ck_assert_mem_eq(ours, kernels, len);
        free(ours);
        free(kernels);
        free(data);
        kvmstats_schema_free(schema);
    }
    vm_close(&vm);
}
END_TEST

#ifdef __x86_64__
static uint64_t value_of(int fd, const struct kvmstats_schema *schema, const char *name)
{
    const struct kvmstats_desc *desc = kvmstats_schema_find(schema, name);
    ck_assert_msg(desc != NULL, "%s is missing", name);
    char *data = data_of(fd, schema);
    uint64_t value = kvmstats_value(desc, data, 0);
    free(data);
    return value;
}

/* A guest in real mode that writes to a port for ever. */
static struct kvm_run *guest_load(const struct vm *vm)
{
    static const uint8_t code[] = {0xe6, 0x10, 0xeb, 0xfc}; /* again: out %al, $0x10; jmp again */
    uint8_t *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert(memory != MAP_FAILED);
    memcpy(memory, code, sizeof code);
    struct kvm_userspace_memory_region region = {
        .memory_size = 4096,
        .userspace_addr = (uintptr_t)memory,
    };
    ck_assert_int_eq(ioctl(vm->vm, KVM_SET_USER_MEMORY_REGION, &region), 0);
    struct kvm_sregs sregs;
    ck_assert_int_eq(ioctl(vm->vcpu, KVM_GET_SREGS, &sregs), 0);
    sregs.cs.base = 0;
    sregs.cs.selector = 0;
    ck_assert_int_eq(ioctl(vm->vcpu, KVM_SET_SREGS, &sregs), 0);
    struct kvm_regs regs = {.rip = 0, .rflags = 2};
    ck_assert_int_eq(ioctl(vm->vcpu, KVM_SET_REGS, &regs), 0);
    int bytes = ioctl(vm->kvm, KVM_GET_VCPU_MMAP_SIZE, NULL);
    ck_assert_int_gt(bytes, 0);
    struct kvm_run *run =
        mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vm->vcpu, 0);
    ck_assert(run != MAP_FAILED);
    return run;
}

/*
 * The value under a name is the thing of that name. Each write is an exit to us; the kernel sees it
 * as an exit for I/O, or emulates the instruction where the processor has no real mode for guests.
 */
START_TEST(counts_are_what_the_guest_did)
{
    enum {
        EXITS = 1000
    };
    struct vm vm = vm_create();
    struct kvm_run *run = guest_load(&vm);
    struct kvmstats_schema *schema = schema_of(vm.vcpu_stats);
    static const char *const others[] = {"hypercalls", "nested_run", "nmi_injections",
                                         "nmi_window_exits"};
    for (int i = 0; i < EXITS; i++) {
        int r = ioctl(vm.vcpu, KVM_RUN, NULL);
        ck_assert_msg(r == 0 || errno == EINTR, "KVM_RUN: %s", strerror(errno));
        if (r < 0)
            i--;
        else
            ck_assert_uint_eq(run->exit_reason, KVM_EXIT_IO);
    }
    uint64_t exits = value_of(vm.vcpu_stats, schema, "exits");
    uint64_t io_exits = value_of(vm.vcpu_stats, schema, "io_exits");
    uint64_t emulated = value_of(vm.vcpu_stats, schema, "insn_emulation");
    ck_assert_uint_ge(exits, EXITS);
    ck_assert_msg(io_exits == EXITS || emulated >= EXITS, "io_exits %llu, insn_emulation %llu",
                  (unsigned long long)io_exits, (unsigned long long)emulated);
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        ck_assert_uint_eq(value_of(vm.vcpu_stats, schema, others[i]), 0);
    kvmstats_schema_free(schema);
    vm_close(&vm);
}
END_TEST
#endif

int main(void)
{
    Suite *suite = suite_create("kvmstats");
    TCase *tcase = tcase_create("kernel");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, both_scopes_decode);
    tcase_add_test(tcase, single_reads_are_the_bulk_read);
    tcase_add_test(tcase, vms_of_one_host_share_their_schemas);
    tcase_add_test(tcase, encoding_gives_back_the_kernels_bytes);
#ifdef __x86_64__
    tcase_add_test(tcase, counts_are_what_the_guest_did);
#endif
    suite_add_tcase(suite, tcase);
    return testing_run(suite, (Suite *)NULL);
}
