/* SPDX-License-Identifier: Apache-2.0 */
#include "arguments.h"

#include <string.h>

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

/*
 * The option at `item`: *ret_value gets what follows its '=', NULL without one. Returns its index;
 * that of the terminator when it is none of ours.
 */
static size_t find_option(const char *item, const char *const *options, const char **ret_value)
{
    size_t i = 0;
    for (; options[i]; i++) {
        size_t len = strlen(options[i]);
        if (strncmp(item, options[i], len) != 0 || (item[len] != '\0' && item[len] != '='))
            continue;
        *ret_value = item[len] == '=' ? item + len + 1 : NULL;
        break;
    }
    return i;
}

const char *arguments_value(const struct arguments *arguments, const char *const *options,
                            size_t n_wanted)
{
    const char *found = NULL;

    for (size_t i = 1; i < arguments->n; i++) {
        const char *value = NULL;
        if (strcmp(arguments->items[i], "--") == 0)
            break;
        size_t option = find_option(arguments->items[i], options, &value);
        if (!options[option])
            continue;
        if (!value && i + 1 < arguments->n)
            value = arguments->items[++i];
        if (value && option < n_wanted)
            found = value;
    }
    return found;
}
