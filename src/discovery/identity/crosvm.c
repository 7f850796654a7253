/* SPDX-License-Identifier: Apache-2.0 */
/* crosvm: run --name NAME, which is recent; --socket PATH (-s) else. "=" may stand between. */
#include <string.h>

#include "stack.h"

/* The guest's kernel parameters are free text. */
#define FREE_TEXT "--params", "-p"

static bool recognises(const char *executable)
{
    return executable_is(executable, "crosvm");
}

static int read_arguments(const struct arguments *arguments, struct identity *identity)
{
    static const char *const options[] = {"--name", FREE_TEXT, NULL};
    const char *name = arguments_value(arguments, options, 1);
    return name ? identity_set(&identity->name, name, strlen(name)) : 0;
}

static int read_socket(const struct arguments *arguments, char **ret_path)
{
    static const char *const options[] = {"--socket", "-s", FREE_TEXT, NULL};
    const char *path = arguments_value(arguments, options, 2);
    *ret_path = path ? strdup(path) : NULL;
    return path && !*ret_path ? -ENOMEM : 0;
}

const struct identity_stack identity_crosvm = {
    .vmm = "crosvm",
    .recognises = recognises,
    .read_arguments = read_arguments,
    .read_socket = read_socket,
};
