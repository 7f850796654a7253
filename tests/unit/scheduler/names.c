/* SPDX-License-Identifier: Apache-2.0 */
#include "names.h"
#include "suites.h"

static const struct {
    const char *vmm; /* NULL: a VMM that is not known */
    const char *name;
    int32_t number;
} threads[] = {
    {"qemu", "CPU 0/KVM", 0},
    {"qemu", "CPU 11/KVM", 11},
    {"qemu", "CPU 65535/KVM", 65535},
    {"firecracker", "fc_vcpu 3", 3},
    {"cloud-hypervisor", "vcpu12", 12},
    {"crosvm", "crosvm_vcpu0", 0},
    {"kvmtool", "kvm-vcpu-7", 7},
    {"kvmstatd-demo-vm", "CPU 1/KVM", 1},
    {NULL, "CPU 2/KVM", 2},
    {NULL, "fc_vcpu 2", 2},
    /* other threads of theirs */
    {"qemu", "qemu-system-x86", -1},
    {"qemu", "CPU 0/TCG", -1},
    {"qemu", "IO mon_iothread", -1},
    {"qemu", "worker", -1},
    {"firecracker", "firecracker", -1},
    {"firecracker", "fc_api", -1},
    {"cloud-hypervisor", "vmm", -1},
    {"cloud-hypervisor", "_disk0_q0", -1},
    {"crosvm", "crosvm", -1},
    {"crosvm", "v_block", -1},
    {"kvmtool", "kvm-main", -1},
    /* nearly */
    {"qemu", "CPU /KVM", -1},
    {"qemu", "CPU 1/KVM2", -1},
    {"qemu", "CPU -1/KVM", -1},
    {"qemu", "CPU 01/KVM", -1},
    {"qemu", "CPU  1/KVM", -1},
    {"qemu", "CPU 100000/KVM", -1},
    {"qemu", "XCPU 1/KVM", -1},
    {"cloud-hypervisor", "vcpu", -1},
    {"cloud-hypervisor", "vcpu1x", -1},
    {"cloud-hypervisor", "vcpu 1", -1},
    {"firecracker", "fc_vcpu1", -1},
    {NULL, "", -1},
    /* one VMM's names are not another's */
    {"qemu", "vcpu1", -1},
    {"cloud-hypervisor", "CPU 1/KVM", -1},
};

START_TEST(numbers)
{
    const struct thread_names *names = threads[_i].vmm ? thread_names_of(threads[_i].vmm) : NULL;
    ck_assert(!threads[_i].vmm || names);
    ck_assert_int_eq(thread_names_number(names, threads[_i].name), threads[_i].number);
}
END_TEST

START_TEST(unknown_vmm)
{
    ck_assert_ptr_null(thread_names_of("vmware-vmx"));
    ck_assert_ptr_null(thread_names_of(""));
}
END_TEST

Suite *suite_names(void)
{
    Suite *suite = suite_create("names of threads");
    TCase *tcase = tcase_create("names");
    tcase_add_loop_test(tcase, numbers, 0, sizeof threads / sizeof threads[0]);
    tcase_add_test(tcase, unknown_vmm);
    suite_add_tcase(suite, tcase);
    return suite;
}
