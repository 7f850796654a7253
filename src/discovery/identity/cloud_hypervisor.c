/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cloud Hypervisor knows no name. libvirt gives it the socket as an fd and a FIFO for its events,
 * NAME-event-monitor-fifo; everybody else a path: --api-socket PATH or path=PATH. The uuid, where
 * the VM is made on the command line, is --platform's.
 *
 * The syntax of its values is key=value,…; commas within "…" and […] do not count (option_parser in
 * its source), an error ends the reading. No value may look like an option.
 */
#include <string.h>

#include "stack.h"

static bool recognises(const char *executable)
{
    return executable_is(executable, "cloud-hypervisor");
}

/* Copies one key=value without its quotes; `to` has room for all of it. Returns where it ends. */
static const char *take_pair(const char *p, char *to)
{
    size_t brackets = 0;
    bool quoted = false;

    for (; *p && (quoted || brackets || *p != ','); p++) {
        if (*p == '"') {
            quoted = !quoted;
            continue;
        }
        if (!quoted && *p == '[')
            brackets++;
        else if (!quoted && *p == ']' && brackets)
            brackets--;
        *to++ = *p;
    }
    *to = '\0';
    return p;
}

/*
 * The value of the last key=… in `text`, owned; NULL where there is none. Returns 0 or -ENOMEM.
 */
static int find_value(const char *text, const char *key, char **ret_value)
{
    size_t key_len = strlen(key);
    CLEANUP_FREE char *pair = malloc(strlen(text) + 1);
    CLEANUP_FREE char *found = NULL;

    if (!pair)
        return -ENOMEM;
    for (const char *p = text; *p;) {
        p = take_pair(p, pair);
        if (strncmp(pair, key, key_len) == 0 && pair[key_len] == '=') {
            free(found);
            found = strdup(pair + key_len + 1);
            if (!found)
                return -ENOMEM;
        }
        if (*p == ',')
            p++;
    }
    *ret_value = steal_ptr(&found);
    return 0;
}

/* libvirt's name for the VM, whole and unfiltered. */
static int read_event_monitor(const struct arguments *arguments, struct identity *identity)
{
    static const char *const options[] = {"--event-monitor", NULL};
    static const char tail[] = "-event-monitor-fifo";
    CLEANUP_FREE char *path = NULL;
    const char *value = arguments_value(arguments, options, 1);
    int r = value ? find_value(value, "path", &path) : 0;
    if (r < 0 || !path)
        return r;
    const char *slash = strrchr(path, '/');
    const char *file = slash ? slash + 1 : path;
    size_t len = strlen(file), tail_len = sizeof tail - 1;
    if (len <= tail_len || strcmp(file + len - tail_len, tail) != 0)
        return 0;
    return identity_set(&identity->name, file, len - tail_len);
}

static int read_arguments(const struct arguments *arguments, struct identity *identity)
{
    static const char *const options[] = {"--platform", NULL};
    static const char *const keys[] = {"uuid", "system_uuid"}; /* the second is the newer one */
    const char *platform = arguments_value(arguments, options, 1);
    int r = 0;

    for (size_t i = 0; platform && r == 0 && i < ARRAY_LEN(keys); i++) {
        CLEANUP_FREE char *uuid = NULL;
        r = find_value(platform, keys[i], &uuid);
        if (r == 0 && uuid)
            r = identity_set(&identity->uuid, uuid, strlen(uuid));
    }
    return r < 0 ? r : read_event_monitor(arguments, identity);
}

static int read_socket(const struct arguments *arguments, char **ret_path)
{
    static const char *const options[] = {"--api-socket", NULL};
    CLEANUP_FREE char *fd = NULL, *path = NULL;
    const char *value = arguments_value(arguments, options, 1);
    int r = value ? find_value(value, "fd", &fd) : 0;
    if (r < 0 || !value || fd)
        return r;
    r = find_value(value, "path", &path);
    if (r == 0 && !path) {
        path = strdup(value);
        r = path ? 0 : -ENOMEM;
    }
    if (r == 0)
        *ret_path = steal_ptr(&path);
    return r;
}

const struct identity_stack identity_cloud_hypervisor = {
    .vmm = "cloud-hypervisor",
    .recognises = recognises,
    .read_arguments = read_arguments,
    .read_socket = read_socket,
};
