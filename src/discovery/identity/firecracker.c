/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Firecracker, by itself or by its jailer, which hands its own --id on. Without one the VM is named
 * after the API socket, which is how people who start it by hand tell theirs apart. A value never
 * begins with "--", so none is free text.
 */
#include <string.h>

#include "stack.h"

static bool recognises(const char *executable)
{
    return executable_is(executable, "firecracker");
}

static int read_arguments(const struct arguments *arguments, struct identity *identity)
{
    static const char *const options[] = {"--id", NULL};
    const char *id = arguments_value(arguments, options, 1);
    return id ? identity_set(&identity->name, id, strlen(id)) : 0;
}

static int read_socket(const struct arguments *arguments, char **ret_path)
{
    static const char *const options[] = {"--api-sock", NULL};
    const char *path = arguments_value(arguments, options, 1);
    *ret_path = path ? strdup(path) : NULL;
    return path && !*ret_path ? -ENOMEM : 0;
}

const struct identity_stack identity_firecracker = {
    .vmm = "firecracker",
    .recognises = recognises,
    .read_arguments = read_arguments,
    .read_socket = read_socket,
};
