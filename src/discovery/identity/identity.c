/* SPDX-License-Identifier: Apache-2.0 */
#include "identity.h"

#include <limits.h>
#include <string.h>
#include <systemd/sd-login.h>

enum {
    /*
     * A libvirt guest with a hundred disks has a command line of some 60 KB, and its name and uuid
     * stand near the front. The kernel allows several MB, all of which the VMM may fill with what
     * it likes.
     */
    CMDLINE_BYTES_MAX = 256 * 1024,
};

static const struct identity_stack *const stacks[] = {
    &identity_qemu,
    &identity_demo,
};

void identity_free(struct identity *identity)
{
    free(identity->name);
    free(identity->uuid);
    free(identity->vmm);
    free(identity->machine);
    free(identity->unit);
    *identity = (struct identity){0};
}

int identity_set(char **field, const char *bytes, size_t len)
{
    char *copy = strndup(bytes, len);
    if (!copy)
        return -ENOMEM;
    free(*field);
    *field = copy;
    return 0;
}

int arguments_split(const char *bytes, size_t len, struct arguments *ret_arguments)
{
    CLEANUP_ARGUMENTS struct arguments arguments = {0};
    size_t n = 0;

    arguments.bytes = malloc(len + 1);
    if (!arguments.bytes)
        return -ENOMEM;
    if (len)
        memcpy(arguments.bytes, bytes, len);
    arguments.bytes[len] = '\0';
    for (size_t i = 0; i < len; i++)
        n += arguments.bytes[i] == '\0';
    if (len && arguments.bytes[len - 1] != '\0')
        n++; /* cut, or a process that rewrote its command line */
    arguments.items = calloc(n ? n : 1, sizeof *arguments.items);
    if (!arguments.items)
        return -ENOMEM;
    for (char *p = arguments.bytes; arguments.n < n; p += strlen(p) + 1)
        arguments.items[arguments.n++] = p;
    *ret_arguments = arguments;
    arguments = (struct arguments){0};
    return 0;
}

void arguments_free(struct arguments *arguments)
{
    free(arguments->items);
    free(arguments->bytes);
    *arguments = (struct arguments){0};
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static const struct identity_stack *find_stack(const char *executable)
{
    for (size_t i = 0; i < ARRAY_LEN(stacks); i++) {
        if (stacks[i]->recognises(executable))
            return stacks[i];
    }
    return NULL;
}

/*
 * The executable decides; argv[0] does where a wrapper or an emulator for another architecture runs
 * the VMM, or where the link may not be read.
 */
static int read_command(const struct proc *proc, pid_t pid, struct identity *identity)
{
    CLEANUP_FREE char *cmdline = NULL;
    CLEANUP_ARGUMENTS struct arguments arguments = {0};
    char executable[NAME_MAX + 1] = "";
    size_t len = 0;
    int r;

    /* Without either there is less to say; a process that has ended is found to have so. */
    if (proc_exe_name(proc, pid, executable, sizeof executable) < 0)
        executable[0] = '\0';
    r = proc_read(proc, pid, "cmdline", CMDLINE_BYTES_MAX, &cmdline, &len);
    if (r == -ENOMEM)
        return r;
    r = arguments_split(cmdline, len, &arguments);
    if (r < 0)
        return r;

    const char *called = arguments.n ? base_name(arguments.items[0]) : "";
    const struct identity_stack *stack = find_stack(executable);
    if (!stack)
        stack = find_stack(called);
    const char *vmm = stack ? stack->vmm : executable[0] ? executable : called;
    r = identity_set(&identity->vmm, vmm, strlen(vmm));
    if (r == 0 && stack)
        r = stack->read_arguments(&arguments, identity);
    return r;
}

static void take_if_known(char **field, int r, char *found)
{
    if (r < 0)
        return;
    free(*field);
    *field = found;
}

int identity_read(const struct proc *proc, pid_t pid, struct identity *ret_identity)
{
    CLEANUP_IDENTITY struct identity identity = {0};
    char **fields[] = {&identity.name, &identity.uuid, &identity.vmm, &identity.machine,
                       &identity.unit};
    char *found;
    int r;

    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        r = identity_set(fields[i], "", 0);
        if (r < 0)
            return r;
    }
    r = read_command(proc, pid, &identity);
    if (r < 0)
        return r;
    if (proc_is_real(proc)) {
        /* libsystemd reads the real /proc and /run, whatever our prefix. */
        r = sd_pid_get_machine_name(pid, &found);
        take_if_known(&identity.machine, r, found);
        r = sd_pid_get_unit(pid, &found);
        take_if_known(&identity.unit, r, found);
    }
    *ret_identity = identity;
    identity = (struct identity){0};
    return 0;
}
