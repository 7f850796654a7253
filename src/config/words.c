/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Quoted values are returned by value, so that they can stand right in the argument list of the
 * message that needs them, and nothing has to be freed on the way out.
 */
#include "words.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum {
    WORD_BYTES = 64, /* the longest word of the schemas, a cipher suite's name, has 45 */
};

void words_escape(char *to, size_t size, const char *bytes, size_t len)
{
    size_t at = strlen(to);
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)bytes[i];
        char one[sizeof "\\xff"];
        if (c == '"' || c == '\\')
            (void)snprintf(one, sizeof one, "\\%c", c);
        else if (c >= 0x20 && c < 0x7f)
            (void)snprintf(one, sizeof one, "%c", c);
        else
            (void)snprintf(one, sizeof one, "\\x%02x", c);
        size_t n = strlen(one);
        if (size - at <= n)
            return;
        memcpy(to + at, one, n + 1);
        at += n;
    }
}

struct quoted quoted(const char *text)
{
    struct quoted q = {.text = "\""};
    size_t len = strlen(text);
    words_escape(q.text, sizeof q.text, text, MIN_OF(len, (size_t)QUOTED_BYTES));
    strcat(q.text, len > QUOTED_BYTES ? "...\"" : "\"");
    return q;
}

struct word_list words_join(const char *const *words, const char *last_joint)
{
    struct word_list list = {.text = ""};
    size_t at = 0;
    for (size_t i = 0; words[i] && at < sizeof list.text; i++) {
        const char *joint = i == 0 ? "" : words[i + 1] ? ", " : last_joint;
        at += (size_t)snprintf(list.text + at, sizeof list.text - at, "%s%s", joint, words[i]);
    }
    return list;
}

/* The number of letters to add, drop or change (Levenshtein). Both are at most WORD_BYTES long. */
static size_t distance(const char *a, size_t n_a, const char *b, size_t n_b)
{
    size_t row[WORD_BYTES + 1];
    for (size_t j = 0; j <= n_b; j++)
        row[j] = j;
    for (size_t i = 0; i < n_a; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < n_b; j++) {
            bool same = tolower((unsigned char)a[i]) == tolower((unsigned char)b[j]);
            size_t changed = diagonal + !same;
            diagonal = row[j + 1];
            row[j + 1] = MIN_OF(changed, MIN_OF(row[j], diagonal) + 1);
        }
    }
    return row[n_b];
}

const char *words_nearest(const char *text, const char *const *words)
{
    const char *nearest = NULL;
    size_t len = strlen(text), least = MAX_OF(len / 3, (size_t)1) + 1;
    if (len == 0 || len > WORD_BYTES)
        return NULL;
    for (size_t i = 0; words[i]; i++) {
        size_t n = strlen(words[i]);
        if (n > WORD_BYTES)
            continue;
        size_t d = distance(text, len, words[i], n);
        if (d < least) {
            least = d;
            nearest = words[i];
        }
    }
    return nearest;
}

int reason_set(struct config_error *ret_reason, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(ret_reason->message, sizeof ret_reason->message, format, args);
    va_end(args);
    return -EINVAL;
}
