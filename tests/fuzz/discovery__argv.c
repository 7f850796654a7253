/* SPDX-License-Identifier: Apache-2.0 */
/* A VMM may write what it likes into its command line. */
#include <stdint.h>
#include <string.h>

#include "identity/stack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What a stack may put around what it has found: Kata's "sandbox-". */
enum {
    ADDED_BYTES_MAX = 8,
};

static void check_field(const char *field, size_t size)
{
    if (!field || strlen(field) > size || strlen(field) > IDENTITY_BYTES_MAX)
        __builtin_trap();
}

static void check(const char *executable, const char *bytes, size_t size)
{
    CLEANUP_IDENTITY struct identity identity = {0};
    const struct identity_sources sources = {
        .executable = executable,
        .cmdline = bytes,
        .cmdline_len = size,
        .comm = "",
        .cgroup = "0::/x.service",
    };
    if (identity_make(&sources, &identity) < 0)
        return;
    /* What comes out stood inside. */
    check_field(identity.name, size + ADDED_BYTES_MAX);
    check_field(identity.uuid, size);
    /* The words of a process change its name and uuid, and nothing that the kernel says. */
    if (*executable && strcmp(identity.vmm, "qemu") == 0 && strcmp(executable, "kvm") != 0)
        __builtin_trap();
    if (strcmp(identity.unit, "x.service") != 0 || *identity.machine)
        __builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const executables[] = {
        "",
        "kvm",
        "firecracker",
        "cloud-hypervisor",
        "crosvm",
        "lkvm",
        "containerd-shim-kata-v2",
        "kvmstatd-demo-vm",
        "other",
    };
    CLEANUP_ARGUMENTS struct arguments arguments = {0};
    if (arguments_split((const char *)data, size, &arguments) < 0)
        return 0;
    if (arguments.n > size)
        __builtin_trap();
    for (size_t i = 0; i < ARRAY_LEN(executables); i++)
        check(executables[i], (const char *)data, size);
    return 0;
}
