/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as an Authorization header. What is taken is encoded once more, which must give the
 * same text: there is one way to write a name and a password, and no other is taken for it.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(condition)   \
    do {                  \
        if (!(condition)) \
            abort();      \
    } while (0)

static void encode(const char *bytes, size_t len, char *to)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < len; i += 3) {
        uint32_t bits = 0;
        for (size_t j = 0; j < 3; j++)
            bits = bits << 8 | (i + j < len ? (uint8_t)bytes[i + j] : 0);
        for (size_t j = 0; j < 4; j++)
            *to++ = i + j > len ? '=' : alphabet[bits >> (18 - 6 * j) & 63];
    }
    *to = '\0';
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct credentials credentials;
    char plain[sizeof credentials + 2], again[sizeof plain * 2];
    /* A sanitizer takes strndup() to read all of what has no end. */
    char *header = malloc(size + 1);
    MUST(header);
    memcpy(header, data, size);
    header[size] = '\0';
    if (auth_parse(header, &credentials) == 0) {
        MUST(memchr(credentials.user, '\0', sizeof credentials.user));
        MUST(memchr(credentials.password, '\0', sizeof credentials.password));
        MUST(!strchr(credentials.user, ':'));
        int len = snprintf(plain, sizeof plain, "%s:%s", credentials.user, credentials.password);
        encode(plain, (size_t)len, again);
        const char *given = header + strlen("Basic ");
        MUST(strcmp(given + strspn(given, " "), again) == 0);
    }
    free(header);
    return 0;
}
