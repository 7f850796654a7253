/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "suites.h"

struct config *config_of(const char *text)
{
    struct config *config = NULL;
    struct config_error error = {{0}};
    int r = config_parse("f.yaml", text, strlen(text), &config, &error);
    ck_assert_msg(r == 0, "%d: %s\n%s", r, error.message, text);
    return config;
}

bool is_printable_line(const char *message)
{
    size_t len = strnlen(message, sizeof((struct config_error *)NULL)->message);
    if (len == 0 || len == sizeof((struct config_error *)NULL)->message)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (message[i] < 0x20 || message[i] > 0x7e)
            return false;
    }
    return true;
}

char *default_file(void)
{
    FILE *file = fopen(DEFAULT_FILE, "r");
    char *text = calloc(1, 1 << 16);
    ck_assert(file && text);
    ck_assert_uint_lt(fread(text, 1, 1 << 16, file), 1 << 16);
    ck_assert(feof(file));
    fclose(file);
    return text;
}

int main(void)
{
    return testing_run(suite_values(), suite_accepted(), suite_refused(), suite_life(),
                       suite_file(), suite_memory(), suite_web(), NULL);
}
