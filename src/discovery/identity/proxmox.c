/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Proxmox VE starts QEMU with -id ID -name NAME in qemu.slice/ID.scope, and gives its uuid by
 * -smbios; qemu.c reads those. It calls a VM without a name "vmID", and so is one called whose
 * command line cannot be read.
 */
#include <stdio.h>
#include <string.h>

#include "stack.h"

static int read_cgroup(const struct cgroup *cgroup, char **name)
{
    char text[32];
    size_t id = strspn(cgroup->unit, "0123456789");
    if (strcmp(cgroup->slice, "qemu.slice") != 0 || id == 0 || id > 10 ||
        strcmp(cgroup->unit + id, ".scope") != 0)
        return 0;
    int len = snprintf(text, sizeof text, "vm%.*s", (int)id, cgroup->unit);
    return identity_set(name, text, (size_t)len);
}

const struct identity_manager identity_proxmox = {
    .read_cgroup = read_cgroup,
};
