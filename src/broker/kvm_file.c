/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Such a text cannot be forged by a file's name: the link of a file that has a name begins with
 * '/'. (virt/kvm/kvm_main.c names the anonymous inodes.)
 */
#include "broker.h"

#include <string.h>

enum {
    VCPU_ID_MAX = 0x7fffffff, /* the kernel prints an int */
};

static const struct {
    const char *prefix;
    enum kvm_file_kind kind;
    bool numbered; /* a vcpu_id follows */
} kinds[] = {
    {"anon_inode:kvm-vm", KVM_FILE_VM, false},
    {"anon_inode:kvm-vcpu:", KVM_FILE_VCPU, true},
    {"anon_inode:kvm-vm-stats", KVM_FILE_VM_STATS, false},
    {"anon_inode:kvm-vcpu-stats:", KVM_FILE_VCPU_STATS, true},
};

/* The whole of `text` as a decimal number as the kernel prints it: no sign, no leading zero. */
static bool parse_vcpu_id(const char *text, size_t len, int32_t *ret_id)
{
    int64_t id = 0;
    if (len == 0 || (len > 1 && text[0] == '0'))
        return false;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        id = id * 10 + (text[i] - '0');
        if (id > VCPU_ID_MAX)
            return false;
    }
    *ret_id = (int32_t)id;
    return true;
}

bool kvm_file_parse(const char *link, size_t len, enum kvm_file_kind *ret_kind, int32_t *ret_vcpu)
{
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        size_t prefix = strlen(kinds[i].prefix);
        int32_t vcpu = -1;
        if (len < prefix || memcmp(link, kinds[i].prefix, prefix) != 0)
            continue;
        if (kinds[i].numbered ? !parse_vcpu_id(link + prefix, len - prefix, &vcpu) : len != prefix)
            continue;
        *ret_kind = kinds[i].kind;
        *ret_vcpu = vcpu;
        return true;
    }
    return false;
}

void kvm_file_list_free(struct kvm_file_list *list)
{
    free(list->files);
    *list = (struct kvm_file_list){0};
}
