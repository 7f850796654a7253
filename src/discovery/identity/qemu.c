/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QEMU, as libvirt, Proxmox or a person starts it. The syntax of -name is QemuOpts' (QEMU
 * util/qemu-option.c): NAME,key=value… in any order, the bare NAME only in front, each comma inside
 * a value doubled. Several -name options are merged, the last guest= wins.
 */
#include "identity.h"

#include <string.h>
#include <strings.h>

static bool recognises(const char *executable)
{
    /* "kvm" is Debian's and Proxmox', "qemu-kvm" is Red Hat's. */
    return strncmp(executable, "qemu-system-", 12) == 0 || strcmp(executable, "qemu-kvm") == 0 ||
           strcmp(executable, "kvm") == 0;
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

/* One -name argument. `guest` keeps what it held when the argument names no guest. */
static int take_name(const char *argument, char **guest)
{
    CLEANUP_FREE char *value = malloc(strlen(argument) + 1);
    if (!value)
        return -ENOMEM;
    for (const char *p = argument; *p;) {
        size_t key = strcspn(p, "=,");
        bool is_guest = false;
        if (p[key] == '=') {
            is_guest = key == 5 && memcmp(p, "guest", 5) == 0;
            p += key + 1;
        } else {
            /* Only the first may go without its key; elsewhere it is a switch. */
            is_guest = p == argument;
        }
        p = take_value(p, value);
        if (is_guest) {
            int r = identity_set(guest, value, strlen(value));
            if (r < 0)
                return r;
        }
        if (*p == ',')
            p++;
    }
    return 0;
}

/* Options whose argument is free text, which may look like an option. */
static bool takes_free_text(const char *option)
{
    static const char *const options[] = {"append",  "kernel", "initrd", "dtb", "bios",
                                          "pidfile", "D",      "L",      "m",   "smp"};
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
            r = take_name(value, &identity->name);
        else if (strcmp(option, "uuid") == 0)
            r = identity_set(&identity->uuid, value, strlen(value));
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
