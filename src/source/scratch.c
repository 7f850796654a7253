/* SPDX-License-Identifier: Apache-2.0 */
/* A VM of our own, for as long as it takes to ask the kernel what its statistics look like. */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "bpf.h"
#include "statsfd.h"

static int fail(struct bpf_error *error, const char *what)
{
    int r = -errno;
    (void)snprintf(error->message, sizeof error->message,
                   "cannot %s to learn the layout of the kernel's statistics: %s", what,
                   strerror(-r));
    return r;
}

static int read_schema(int object_fd, enum scope scope, struct schema_table *table,
                       const struct schema **ret_schema, struct bpf_error *error)
{
    struct statsfd_error why;
    CLEANUP_FD int stats_fd = ioctl(object_fd, KVM_GET_STATS_FD, NULL);
    if (stats_fd < 0)
        return fail(error, "open a scratch VM's statistics");
    int r = statsfd_open(stats_fd, scope, table, ret_schema, NULL, 0, &why);
    if (r < 0)
        (void)snprintf(error->message, sizeof error->message, "%s", why.message);
    return r;
}

int bpf_source_schemas(struct schema_table *table, const struct schema *ret_schemas[2],
                       struct bpf_error *ret_error)
{
    const struct schema *vm_schema, *vcpu_schema;
    CLEANUP_FD int kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm_fd < 0)
        return fail(ret_error, "open /dev/kvm");
    CLEANUP_FD int vm_fd = ioctl(kvm_fd, KVM_CREATE_VM, 0);
    if (vm_fd < 0)
        return fail(ret_error, "create a scratch VM");
    CLEANUP_FD int vcpu_fd = ioctl(vm_fd, KVM_CREATE_VCPU, 0);
    if (vcpu_fd < 0)
        return fail(ret_error, "create a scratch vCPU");
    int r = read_schema(vm_fd, SCOPE_VM, table, &vm_schema, ret_error);
    if (r == 0)
        r = read_schema(vcpu_fd, SCOPE_VCPU, table, &vcpu_schema, ret_error);
    if (r < 0)
        return r;
    ret_schemas[SCOPE_VM] = vm_schema;
    ret_schemas[SCOPE_VCPU] = vcpu_schema;
    return 0;
}
