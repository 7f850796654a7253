/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order in which a VM may get its name: its VMM's command line, which has it whole; its
 * manager's, by the control group; its control socket's path, which is a guess.
 */
#include "identity.h"

#include <ctype.h>
#include <limits.h>
#include <string.h>
#include <systemd/sd-login.h>

#include "stack.h"

enum {
    /*
     * A libvirt guest with a hundred disks has a command line of some 60 KB, and its name and uuid
     * stand near the front. The kernel allows several MB, all of which the VMM may fill with what
     * it likes.
     */
    CMDLINE_BYTES_MAX = 256 * 1024,
    /* A line a hierarchy, of which v1 has some fifteen; a path is 4 KB at most. */
    CGROUP_BYTES_MAX = 64 * 1024,
    COMM_BYTES_MAX = 64, /* the kernel's own threads have longer ones than the 15 of the others */
};

const struct identity_stack *const identity_stacks[] = {
    &identity_qemu,
    &identity_firecracker,
    &identity_cloud_hypervisor,
    &identity_crosvm,
    &identity_kvmtool,
    &identity_dragonball,
    &identity_demo,
    NULL,
};

static const struct identity_manager *const managers[] = {
    &identity_libvirt,
    &identity_proxmox,
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
    len = strnlen(bytes, len);
    if (len > IDENTITY_BYTES_MAX) {
        /* Not within a UTF-8 character, whose bytes behind the first are 10xxxxxx. */
        len = IDENTITY_BYTES_MAX;
        for (int i = 0; i < 3 && ((unsigned char)bytes[len] & 0xc0) == 0x80; i++)
            len--;
    }
    char *copy = strndup(bytes, len);
    if (!copy)
        return -ENOMEM;
    free(*field);
    *field = copy;
    return 0;
}

bool executable_is(const char *executable, const char *word)
{
    size_t len = strlen(word);
    executable += *executable == '.';
    return strncmp(executable, word, len) == 0 && !isalnum((unsigned char)executable[len]);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static const struct identity_stack *find_stack(const char *executable)
{
    const struct identity_stack *const *stack = identity_stacks;
    while (*stack && !(*stack)->recognises(executable))
        stack++;
    return *stack;
}

/*
 * The executable decides. Where it is none that we know (a wrapper, a loader), argv[0] may choose
 * how the rest of the command line is read, for that too is the process's word on itself; where the
 * link may not be read, argv[0] or comm must also stand for the executable.
 */
static int read_command(const struct identity_sources *sources, const struct arguments *arguments,
                        const struct identity_stack **ret_stack, struct identity *identity)
{
    const char *executable = sources->executable;
    const char *called = arguments->n ? base_name(arguments->items[0]) : "";
    if (!*called)
        called = sources->comm;

    const struct identity_stack *by_executable = find_stack(executable);
    const struct identity_stack *stack = by_executable ? by_executable : find_stack(called);
    const char *vmm = *executable ? executable : called;
    if (by_executable || (stack && !*executable))
        vmm = stack->vmm;
    int r = identity_set(&identity->vmm, vmm, strlen(vmm));
    if (r == 0 && stack)
        r = stack->read_arguments(arguments, identity);
    *ret_stack = stack;
    return r;
}

static int read_cgroup(const char *text, struct identity *identity)
{
    CLEANUP_CGROUP struct cgroup cgroup = {0};
    int r = cgroup_parse(text, &cgroup);
    if (r == 0)
        r = identity_set(&identity->unit, cgroup.unit, strlen(cgroup.unit));
    if (r == 0)
        r = identity_set(&identity->machine, cgroup.machine, strlen(cgroup.machine));
    for (size_t i = 0; r == 0 && !*identity->name && i < ARRAY_LEN(managers); i++)
        r = managers[i]->read_cgroup(&cgroup, &identity->name);
    return r;
}

int identity_make(const struct identity_sources *sources, struct identity *ret_identity)
{
    CLEANUP_IDENTITY struct identity identity = {0};
    CLEANUP_ARGUMENTS struct arguments arguments = {0};
    CLEANUP_FREE char *socket = NULL;
    const struct identity_stack *stack = NULL;
    char **fields[] = {&identity.name, &identity.uuid, &identity.vmm, &identity.machine,
                       &identity.unit};

    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        int r = identity_set(fields[i], "", 0);
        if (r < 0)
            return r;
    }
    int r = arguments_split(sources->cmdline, sources->cmdline_len, &arguments);
    if (r == 0)
        r = read_command(sources, &arguments, &stack, &identity);
    if (r == 0)
        r = read_cgroup(sources->cgroup, &identity);
    if (r == 0 && !*identity.name && stack && stack->read_socket)
        r = stack->read_socket(&arguments, &socket);
    if (r == 0 && socket)
        r = identity_name_by_socket(socket, &identity.name);
    if (r < 0)
        return r;
    *ret_identity = identity;
    identity = (struct identity){0};
    return 0;
}

/* What cannot be read, for whatever reason, is "". Returns 0 or -ENOMEM. */
static int read_text(const struct proc *proc, pid_t pid, const char *name, size_t max,
                     char **ret_text, size_t *ret_len)
{
    *ret_len = 0;
    int r = proc_read(proc, pid, name, max, ret_text, ret_len);
    if (r < 0 && r != -ENOMEM)
        *ret_text = calloc(1, 1);
    return *ret_text ? 0 : -ENOMEM;
}

/*
 * systemd-machined's register (/run/systemd/machines), which libsystemd reads, also has the
 * machines whose unit is not named after them: VMs in an nspawn container, for one. It knows only
 * the real /proc.
 */
static int ask_machined(pid_t pid, struct identity *identity)
{
    CLEANUP_FREE char *machine = NULL;
    if (sd_pid_get_machine_name(pid, &machine) < 0)
        return 0;
    return identity_set(&identity->machine, machine, strlen(machine));
}

int identity_read(const struct proc *proc, pid_t pid, struct identity *ret_identity)
{
    CLEANUP_IDENTITY struct identity identity = {0};
    CLEANUP_FREE char *cmdline = NULL, *cgroup = NULL, *comm = NULL;
    char executable[NAME_MAX + 1] = "";
    size_t cmdline_len, len;

    /* Without either there is less to say; a process that has ended is found to have so. */
    if (proc_exe_name(proc, pid, executable, sizeof executable) < 0)
        executable[0] = '\0';
    int r = read_text(proc, pid, "cmdline", CMDLINE_BYTES_MAX, &cmdline, &cmdline_len);
    if (r == 0)
        r = read_text(proc, pid, "cgroup", CGROUP_BYTES_MAX, &cgroup, &len);
    if (r == 0)
        r = read_text(proc, pid, "comm", COMM_BYTES_MAX, &comm, &len);
    if (r < 0)
        return r;
    comm[strcspn(comm, "\n")] = '\0';

    const struct identity_sources sources = {
        .executable = executable,
        .cmdline = cmdline,
        .cmdline_len = cmdline_len,
        .comm = comm,
        .cgroup = cgroup,
    };
    r = identity_make(&sources, &identity);
    if (r == 0 && proc_is_real(proc))
        r = ask_machined(pid, &identity);
    if (r < 0)
        return r;
    *ret_identity = identity;
    identity = (struct identity){0};
    return 0;
}
