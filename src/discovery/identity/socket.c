/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who starts a VMM without a name gives it a control socket, and each VM has another:
 * /run/ch/web1.sock, or /run/vms/web1/api.sock. So the VM is named after the file, or after the
 * directory where the file says only what it is.
 */
#include <string.h>

#include "stack.h"

/* `len` bytes from `start`: one name of the path. */
struct part {
    const char *start;
    size_t len;
};

static bool is_one_of(struct part part, const char *const *words)
{
    for (; *words; words++) {
        if (strlen(*words) == part.len && memcmp(part.start, *words, part.len) == 0)
            return true;
    }
    return false;
}

/* Names that tell no VM from another. */
static bool says_nothing(struct part part)
{
    static const char *const words[] = {"api",        "ch",          "ch-api",
                                        "clh",        "clh-api",     "cloud-hypervisor",
                                        "control",    "crosvm",      "crosvm_control",
                                        "fc",         "firecracker", "hypervisor",
                                        "socket",     "vm",          "vmm",
                                        "vm_control", NULL};
    return is_one_of(part, words);
}

/* Directories that hold everybody's sockets; all digits: /run/user/1000. */
static bool is_shared(struct part directory)
{
    static const char *const words[] = {"", "run", "tmp", "var", "srv", "root", "vms", NULL};
    return is_one_of(directory, words) || strspn(directory.start, "0123456789") >= directory.len ||
           says_nothing(directory);
}

static struct part last_part(const char *path, size_t len)
{
    const char *slash = memrchr(path, '/', len);
    const char *start = slash ? slash + 1 : path;
    return (struct part){start, len - (size_t)(start - path)};
}

int identity_name_by_socket(const char *path, char **name)
{
    /* libvirt's older Cloud Hypervisor driver has NAME-socket. */
    static const char *const tails[] = {".sock", ".socket", "-socket"};
    int r = identity_name_by_kata_path(path, name);
    if (r < 0 || **name)
        return r;

    struct part file = last_part(path, strlen(path));
    struct part directory = {"", 0};
    if (file.start > path)
        directory = last_part(path, (size_t)(file.start - 1 - path));
    for (size_t i = 0; i < ARRAY_LEN(tails); i++) {
        size_t len = strlen(tails[i]);
        if (file.len >= len && memcmp(file.start + file.len - len, tails[i], len) == 0) {
            file.len -= len;
            break;
        }
    }
    if (says_nothing(file) && !is_shared(directory))
        file = directory;
    return identity_set(name, file.start, file.len);
}
