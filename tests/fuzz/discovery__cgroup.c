/* SPDX-License-Identifier: Apache-2.0 */
/* The names of control groups are whoever's may make them. */
#include <stdint.h>
#include <string.h>

#include "identity/stack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP_FREE char *text = malloc(size + 1);
    CLEANUP_CGROUP struct cgroup cgroup = {0};
    CLEANUP_IDENTITY struct identity identity = {0};
    if (!text)
        return 0;
    if (size)
        memcpy(text, data, size);
    text[size] = '\0';

    if (cgroup_parse(text, &cgroup) < 0)
        return 0;
    /* A unit and its slice stand in the text as they are; neither is a path. */
    if (!strstr(text, cgroup.unit) || !strstr(text, cgroup.slice) || strchr(cgroup.unit, '/') ||
        strchr(cgroup.machine, '/') || strchr(cgroup.unit, '\n') || strlen(cgroup.unit) > 255)
        __builtin_trap();
    if (!*cgroup.unit && *cgroup.slice)
        __builtin_trap();

    const struct identity_sources sources = {
        .executable = "kvm", .cmdline = "", .comm = "", .cgroup = text};
    if (identity_make(&sources, &identity) < 0)
        return 0;
    if (strcmp(identity.vmm, "qemu") != 0 || *identity.uuid ||
        strlen(identity.name) > IDENTITY_BYTES_MAX)
        __builtin_trap();
    return 0;
}
