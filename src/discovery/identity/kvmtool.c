/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvmtool: lkvm run --name NAME. Its -n is the network. Unnamed, it calls the VM "guest-<pid>",
 * where the pid is its own name space's; that names nothing, so neither do we.
 */
#include <string.h>

#include "stack.h"

static bool recognises(const char *executable)
{
    return executable_is(executable, "lkvm");
}

static int read_arguments(const struct arguments *arguments, struct identity *identity)
{
    /* The guest's kernel parameters are free text. */
    static const char *const options[] = {"--name", "--params", "-p", NULL};
    const char *name = arguments_value(arguments, options, 1);
    return name ? identity_set(&identity->name, name, strlen(name)) : 0;
}

const struct identity_stack identity_kvmtool = {
    .vmm = "kvmtool",
    .recognises = recognises,
    .read_arguments = read_arguments,
};
