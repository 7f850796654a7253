/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libvirt registers a VM as a machine named DRIVER-ID-NAME, the drivers of KVM being "qemu" and
 * "ch"; DRIVER-embed-HASH-ID-NAME where a program embeds it; older ones DRIVER-NAME. NAME is the
 * domain's name less all but letters, digits and single dashes and dots, and the whole is cut to 64
 * characters: so it is only for VMs whose command line does not say, such as Cloud Hypervisor's.
 */
#include <string.h>

#include "stack.h"

static const char digits[] = "0123456789";

/* "embed-" and eight digits of a hash; none: where it begins. */
static const char *skip_embed(const char *p)
{
    static const char head[] = "embed-";
    enum {
        HASH = 8
    };
    if (strncmp(p, head, sizeof head - 1) != 0)
        return p;
    const char *hash = p + sizeof head - 1;
    return strspn(hash, "0123456789abcdef") == HASH && hash[HASH] == '-' ? hash + HASH + 1 : p;
}

static int read_cgroup(const struct cgroup *cgroup, char **name)
{
    static const char *const drivers[] = {"qemu-", "ch-"};
    for (size_t i = 0; i < ARRAY_LEN(drivers); i++) {
        size_t len = strlen(drivers[i]);
        if (strncmp(cgroup->machine, drivers[i], len) != 0)
            continue;
        const char *found = skip_embed(cgroup->machine + len);
        size_t id = strspn(found, digits);
        if (id && found[id] == '-')
            found += id + 1;
        return identity_set(name, found, strlen(found));
    }
    return 0;
}

const struct identity_manager identity_libvirt = {
    .read_cgroup = read_cgroup,
};
