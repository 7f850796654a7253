/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kata Containers. Its QEMU is started with -name sandbox-<id>, which qemu.c reads; the other VMMs
 * are named in the same way, so that one rule fits all. Cloud Hypervisor and Firecracker have their
 * sockets in a directory of the sandbox's; a jailed Firecracker gets --id, the first 32 characters
 * of the sandbox's. Dragonball is no process of its own: it runs within the shim, which containerd
 * starts with -id.
 */
#include <stdio.h>
#include <string.h>

#include "stack.h"

static int set_sandbox(char **name, const char *id, size_t len)
{
    static const char head[] = "sandbox-";
    CLEANUP_FREE char *sandbox = malloc(sizeof head + len);
    if (!sandbox)
        return -ENOMEM;
    char *end = mempcpy(mempcpy(sandbox, head, sizeof head - 1), id, len);
    *end = '\0';
    return identity_set(name, sandbox, (size_t)(end - sandbox));
}

/* What follows `prefix` in `path`; NULL when it does not begin so. */
static const char *skip(const char *path, const char *prefix)
{
    size_t len = strlen(prefix);
    return strncmp(path, prefix, len) == 0 ? path + len : NULL;
}

int identity_name_by_kata_path(const char *path, char **name)
{
    /* The Go runtime's two and the Rust runtime's two; the longer one first. */
    static const char *const directories[] = {"/run/vc/vm/", "/run/vc/firecracker/",
                                              "/run/kata/firecracker/", "/run/kata/"};
    const char *user = skip(path, "/run/user/"); /* rootless: the same below the user's own */
    if (user) {
        user += strspn(user, "0123456789");
        path = *user == '/' ? user : path;
    }
    for (size_t i = 0; i < ARRAY_LEN(directories); i++) {
        const char *id = skip(path, directories[i]);
        size_t len = id ? strcspn(id, "/") : 0;
        if (len && id[len] == '/')
            return set_sandbox(name, id, len);
    }
    return 0;
}

static bool recognises(const char *executable)
{
    return executable_is(executable, "containerd-shim-kata-v2");
}

static int read_arguments(const struct arguments *arguments, struct identity *identity)
{
    static const char *const options[] = {"-id", "--id", "-namespace", "-address", NULL};
    const char *id = arguments_value(arguments, options, 2);
    return id && *id ? set_sandbox(&identity->name, id, strlen(id)) : 0;
}

const struct identity_stack identity_dragonball = {
    .vmm = "dragonball",
    .recognises = recognises,
    .read_arguments = read_arguments,
};
