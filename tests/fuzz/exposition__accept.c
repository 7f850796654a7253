/* SPDX-License-Identifier: Apache-2.0 */
/* Accept and Accept-Encoding headers: whatever the bytes, there is an answer, and it is stable. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "exposition.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* Exactly as large as the header, so that a read past its end is seen. */
    char *header = malloc(size + 1);
    if (!header)
        return 0;
    memcpy(header, data, size);
    header[size] = '\0';

    enum exposition_format format = exposition_negotiate(header);
    if (format != EXPOSITION_TEXT && format != EXPOSITION_OPENMETRICS &&
        format != EXPOSITION_PROTOBUF)
        abort();
    if (!exposition_content_type(format))
        abort();
    if (exposition_negotiate(header) != format ||
        exposition_accepts_gzip(header) != exposition_accepts_gzip(header))
        abort();
    /* Who never says a name with "openmetrics" or a wildcard never gets it. */
    if (format == EXPOSITION_OPENMETRICS && !strcasestr(header, "openmetrics") &&
        !strchr(header, '*'))
        abort();
    /* Protobuf is for who can read it: no wildcard gives it. */
    if (format == EXPOSITION_PROTOBUF && (!strcasestr(header, "application/vnd.google.protobuf") ||
                                          !strcasestr(header, "delimited")))
        abort();
    if (exposition_accepts_gzip(header) && !strcasestr(header, "gzip") && !strchr(header, '*'))
        abort();
    free(header);
    return 0;
}
