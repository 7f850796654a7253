/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "broker.h"
#include "suites.h"

static const struct {
    const char *link;
    bool is;
    enum kvm_file_kind kind;
    int32_t vcpu;
} links[] = {
    {"anon_inode:kvm-vm", true, KVM_FILE_VM, -1},
    {"anon_inode:kvm-vcpu:0", true, KVM_FILE_VCPU, 0},
    {"anon_inode:kvm-vcpu:4095", true, KVM_FILE_VCPU, 4095},
    {"anon_inode:kvm-vcpu:2147483647", true, KVM_FILE_VCPU, 2147483647},
    {"anon_inode:kvm-vm-stats", true, KVM_FILE_VM_STATS, -1},
    {"anon_inode:kvm-vcpu-stats:7", true, KVM_FILE_VCPU_STATS, 7},
    {"anon_inode:kvm-vcpu-stats:10", true, KVM_FILE_VCPU_STATS, 10},
    /* other files of KVM's, and nearly so */
    {"anon_inode:kvm-device", false, 0, 0},
    {"anon_inode:kvm-vm-stat", false, 0, 0},
    {"anon_inode:kvm-vm-stats2", false, 0, 0},
    {"anon_inode:kvm-vm ", false, 0, 0},
    {"anon_inode:kvm-vcpu:", false, 0, 0},
    {"anon_inode:kvm-vcpu", false, 0, 0},
    {"anon_inode:kvm-vcpu:-1", false, 0, 0},
    {"anon_inode:kvm-vcpu:+1", false, 0, 0},
    {"anon_inode:kvm-vcpu:01", false, 0, 0},
    {"anon_inode:kvm-vcpu: 1", false, 0, 0},
    {"anon_inode:kvm-vcpu:1 ", false, 0, 0},
    {"anon_inode:kvm-vcpu:0x1", false, 0, 0},
    {"anon_inode:kvm-vcpu:2147483648", false, 0, 0},
    {"anon_inode:kvm-vcpu:99999999999999999999999", false, 0, 0},
    {"anon_inode:kvm-vcpu-stats:", false, 0, 0},
    {"anon_inode:[eventfd]", false, 0, 0},
    {"/tmp/anon_inode:kvm-vm-stats", false, 0, 0},
    {" anon_inode:kvm-vm", false, 0, 0},
    {"", false, 0, 0},
};

START_TEST(parses_links)
{
    enum kvm_file_kind kind = KVM_FILE_VM;
    int32_t vcpu = -2;
    const char *link = links[_i].link;
    ck_assert_int_eq(kvm_file_parse(link, strlen(link), &kind, &vcpu), links[_i].is);
    if (links[_i].is) {
        ck_assert_int_eq(kind, links[_i].kind);
        ck_assert_int_eq(vcpu, links[_i].vcpu);
    } else {
        ck_assert_int_eq(vcpu, -2); /* written only on success */
    }
}
END_TEST

/* A link text is no string: its length counts. */
START_TEST(length_counts)
{
    enum kvm_file_kind kind;
    int32_t vcpu;
    ck_assert(!kvm_file_parse("anon_inode:kvm-vm\0", 18, &kind, &vcpu));
    ck_assert(kvm_file_parse("anon_inode:kvm-vcpu:12", 21, &kind, &vcpu));
    ck_assert_int_eq(vcpu, 1);
}
END_TEST

Suite *suite_kvm_file(void)
{
    Suite *suite = suite_create("kvm_file");
    TCase *tcase = tcase_create("links");
    tcase_add_loop_test(tcase, parses_links, 0, (int)(sizeof links / sizeof links[0]));
    tcase_add_test(tcase, length_counts);
    suite_add_tcase(suite, tcase);
    return suite;
}
