/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any text as an address to listen on, and as a duration. An address that is taken says the same
 * when it is written out and read again.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(condition)   \
    do {                  \
        if (!(condition)) \
            abort();      \
    } while (0)

static void check_address(const struct listen_address *a)
{
    struct listen_address again;
    struct config_error error;
    char text[512];
    MUST(strnlen(a->host, sizeof a->host) < sizeof a->host);
    if (a->is_unix)
        snprintf(text, sizeof text, "unix:%s", a->host);
    else
        snprintf(text, sizeof text, a->is_v6 ? "[%s]:%u" : "%s:%u", a->host, a->port);
    MUST(config_parse_listen(text, &again, &error) == 0);
    MUST(strcmp(a->host, again.host) == 0 && a->port == again.port);
    MUST(a->is_unix == again.is_unix && a->is_v6 == again.is_v6);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct listen_address address;
    struct config_error error = {{0}};
    int64_t ns = -1;
    char *text = malloc(size + 1);
    MUST(text);
    if (size)
        memcpy(text, data, size);
    text[size] = '\0';

    if (config_parse_listen(text, &address, &error) == 0) {
        check_address(&address);
    } else {
        size_t len = strnlen(error.message, sizeof error.message);
        MUST(len > 0 && len < sizeof error.message);
        for (size_t i = 0; i < len; i++)
            MUST(error.message[i] >= 0x20 && error.message[i] <= 0x7e);
    }
    int r = config_parse_duration(text, &ns);
    MUST(r == 0 ? ns >= 0 : (r == -EINVAL || r == -ERANGE) && ns == -1);
    free(text);
    return 0;
}
