/* SPDX-License-Identifier: Apache-2.0 */
/* Our own demo VMM: --name NAME or --name=NAME, the last one wins. */
#include <string.h>

#include "stack.h"

static bool recognises(const char *executable)
{
    return executable_is(executable, "kvmstatd-demo-vm");
}

static int read_arguments(const struct arguments *arguments, struct identity *identity)
{
    static const char *const options[] = {"--name", NULL};
    const char *name = arguments_value(arguments, options, 1);
    return name ? identity_set(&identity->name, name, strlen(name)) : 0;
}

const struct identity_stack identity_demo = {
    .vmm = "kvmstatd-demo-vm",
    .recognises = recognises,
    .read_arguments = read_arguments,
};
