/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QEMU, as libvirt, Proxmox, Kata or a person starts it. The syntax of its options' arguments is
 * QemuOpts' (QEMU util/qemu-option.c): key=value,… in any order, each comma inside a value doubled;
 * -name's guest may go without its key, in front only. Several -name are merged, the last guest=
 * wins; of -uuid and -smbios type=1,uuid=, which is Proxmox' way, the last one.
 */
#include <string.h>

#include "stack.h"

/*
 * "kvm" is Debian's and Proxmox', "qemu-kvm" Red Hat's; distributions and Kata also have builds
 * such as qemu-system-x86_64.real and qemu-virtiofs-system-x86_64.
 */
static bool recognises(const char *executable)
{
    const char *name = executable + (*executable == '.');
    return (strncmp(name, "qemu-", 5) == 0 && strstr(name + 4, "-system-")) ||
           executable_is(executable, "qemu-kvm") || executable_is(executable, "kvm");
}

/*
 * The value at `p`: up to a single comma. Returns where it ends; `value` gets it with doubled
 * commas made single, and has room for all of it.
 */
static const char *take_value(const char *p, char *value)
{
    for (; *p; p++) {
        if (*p == ',') {
            if (p[1] != ',')
                break;
            p++;
        }
        *value++ = *p;
    }
    *value = '\0';
    return p;
}

/*
 * The last value of `key` in `argument`, which with `implied` the first may go without. *field
 * stays as it is when there is none. Returns 0 or -ENOMEM.
 */
static int take_key(const char *argument, const char *key, bool implied, char **field)
{
    CLEANUP_FREE char *value = malloc(strlen(argument) + 1);
    size_t len = strlen(key);

    if (!value)
        return -ENOMEM;
    for (const char *p = argument; *p;) {
        size_t key_len = strcspn(p, "=,");
        bool wanted;
        if (p[key_len] == '=') {
            wanted = key_len == len && memcmp(p, key, len) == 0;
            p += key_len + 1;
        } else {
            wanted = implied && p == argument; /* elsewhere it is a switch */
        }
        p = take_value(p, value);
        if (wanted) {
            int r = identity_set(field, value, strlen(value));
            if (r < 0)
                return r;
        }
        if (*p == ',')
            p++;
    }
    return 0;
}

/* One -smbios argument: the system's table, which is type 1, has the uuid. */
static int take_smbios(const char *argument, char **uuid)
{
    CLEANUP_FREE char *type = NULL, *found = NULL;
    int r = take_key(argument, "type", false, &type);
    if (r == 0 && type && strcmp(type, "1") == 0)
        r = take_key(argument, "uuid", false, &found);
    return r == 0 && found ? identity_set(uuid, found, strlen(found)) : r;
}

/*
 * Options whose argument may be any text, a file's name for one, and so may look like an option. To
 * the others QEMU would not start with such an argument.
 */
static bool takes_free_text(const char *option)
{
    static const char *const options[] = {
        "append", "bios",    "cdrom",      "chroot",   "D",        "debugcon",    "dtb",
        "fda",    "fdb",     "hda",        "hdb",      "hdc",      "hdd",         "initrd",
        "kernel", "L",       "loadvm",     "mem-path", "mtdblock", "option-rom",  "parallel",
        "pflash", "pidfile", "readconfig", "sd",       "serial",   "writeconfig",
    };
    for (size_t i = 0; i < ARRAY_LEN(options); i++) {
        if (strcmp(option, options[i]) == 0)
            return true;
    }
    return false;
}

static int read_arguments(const struct arguments *arguments, struct identity *identity)
{
    for (size_t i = 1; i + 1 < arguments->n; i++) {
        const char *option = arguments->items[i];
        const char *value = arguments->items[i + 1];
        int r = 0;
        if (option[0] != '-')
            continue;
        option += option[1] == '-' ? 2 : 1; /* QEMU takes --name for -name */
        if (strcmp(option, "name") == 0)
            r = take_key(value, "guest", true, &identity->name);
        else if (strcmp(option, "uuid") == 0)
            r = identity_set(&identity->uuid, value, strlen(value));
        else if (strcmp(option, "smbios") == 0)
            r = take_smbios(value, &identity->uuid);
        else if (!takes_free_text(option))
            continue;
        if (r < 0)
            return r;
        i++; /* the argument is no option */
    }
    return 0;
}

const struct identity_stack identity_qemu = {
    .vmm = "qemu",
    .recognises = recognises,
    .read_arguments = read_arguments,
};
