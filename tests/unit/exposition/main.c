/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "suites.h"

int has_line(const char *text, const char *line)
{
    size_t len = strlen(line);
    for (const char *at = text; (at = strstr(at, line)); at++) {
        if ((at == text || at[-1] == '\n') && at[len] == '\n')
            return 1;
    }
    return 0;
}

int count_of(const char *text, const char *part)
{
    int n = 0;
    for (const char *at = text; (at = strstr(at, part)); at++)
        n++;
    return n;
}

int main(void)
{
    return testing_run(negotiate_suite(), number_suite(), writer_suite(), families_suite(),
                       help_suite(), protobuf_suite(), render_suite(), sums_suite(),
                       selfmetrics_suite(), concurrent_suite(), threads_suite(), bursts_suite(),
                       (Suite *)NULL);
}
