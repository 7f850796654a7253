/* SPDX-License-Identifier: Apache-2.0 */
#include "text.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>

/*
 * Length of the well-formed character at p (n bytes are left), or minus the number of bytes to
 * replace by one U+FFFD. The ranges of the second byte are table 3-7 of the Unicode standard.
 */
static int sequence(const uint8_t *p, size_t n)
{
    unsigned lo = 0x80, hi = 0xbf;
    int len;
    if (p[0] == 0)
        return -1;
    if (p[0] < 0x80)
        return 1;
    if (p[0] >= 0xc2 && p[0] <= 0xdf) {
        len = 2;
    } else if (p[0] >= 0xe0 && p[0] <= 0xef) {
        len = 3;
        lo = p[0] == 0xe0 ? 0xa0 : 0x80;
        hi = p[0] == 0xed ? 0x9f : 0xbf;
    } else if (p[0] >= 0xf0 && p[0] <= 0xf4) {
        len = 4;
        lo = p[0] == 0xf0 ? 0x90 : 0x80;
        hi = p[0] == 0xf4 ? 0x8f : 0xbf;
    } else {
        return -1;
    }
    for (int i = 1; i < len; i++) {
        if ((size_t)i >= n || p[i] < lo || p[i] > hi)
            return -i;
        lo = 0x80;
        hi = 0xbf;
    }
    return len;
}

char *text_to_utf8(const char *bytes, size_t len)
{
    static const char replacement[3] = {'\xef', '\xbf', '\xbd'};
    const uint8_t *p = (const uint8_t *)bytes;
    size_t used = 0;
    char *out = malloc(MIN_OF(len, (size_t)TEXT_BYTES_MAX) * sizeof replacement + 1);
    if (!out)
        return NULL;
    while (len) {
        int n = sequence(p, len);
        size_t taken = (size_t)(n < 0 ? -n : n);
        size_t put = n < 0 ? sizeof replacement : taken;
        if (used + put > TEXT_BYTES_MAX)
            break;
        memcpy(out + used, n < 0 ? (const void *)replacement : (const void *)p, put);
        used += put;
        p += taken;
        len -= taken;
    }
    out[used] = '\0';
    return out;
}

char *text_with_suffix(const char *text, const char *suffix)
{
    size_t suffix_len = strlen(suffix);
    size_t len = strlen(text);
    assert(suffix_len <= TEXT_SUFFIX_BYTES_MAX);
    if (len > TEXT_BYTES_MAX - TEXT_SUFFIX_BYTES_MAX) {
        len = TEXT_BYTES_MAX - TEXT_SUFFIX_BYTES_MAX;
        while (len && ((uint8_t)text[len] & 0xc0) == 0x80)
            len--; /* in the middle of a character */
    }
    char *out = malloc(len + suffix_len + 1);
    if (!out)
        return NULL;
    memcpy(out, text, len);
    memcpy(out + len, suffix, suffix_len + 1);
    return out;
}

char *text_escape_label(char *to, const char *text)
{
    for (; *text; text++) {
        char c = *text;
        if (c == '\\' || c == '"' || c == '\n') {
            *to++ = '\\';
            c = c == '\n' ? 'n' : c;
        }
        *to++ = c;
    }
    return to;
}
