/* SPDX-License-Identifier: Apache-2.0 */
/* Our own demo VMM: --name NAME or --name=NAME, the last one wins. */
#include "identity.h"

#include <string.h>

static bool recognises(const char *executable)
{
    return strcmp(executable, "kvmstatd-demo-vm") == 0;
}

static int read_arguments(const struct arguments *arguments, struct identity *identity)
{
    for (size_t i = 1; i < arguments->n; i++) {
        const char *option = arguments->items[i];
        const char *name = NULL;
        if (strncmp(option, "--name=", 7) == 0)
            name = option + 7;
        else if (strcmp(option, "--name") == 0 && i + 1 < arguments->n)
            name = arguments->items[++i];
        if (!name)
            continue;
        int r = identity_set(&identity->name, name, strlen(name));
        if (r < 0)
            return r;
    }
    return 0;
}

const struct identity_stack identity_demo = {
    .vmm = "kvmstatd-demo-vm",
    .recognises = recognises,
    .read_arguments = read_arguments,
};
