/* SPDX-License-Identifier: Apache-2.0 */
/* A deflate stream, or what is none: it is refused, or stays inside its room. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "splice.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct splicer splicer;
    size_t len;
    uint8_t *bytes = malloc(size + SPLICE_ROOM);
    if (!bytes)
        return 0;
    if (size)
        memcpy(bytes, data, size);
    if (splice_open_end(&splicer, bytes, size, &len) == 0 &&
        (len < size || len > size + SPLICE_ROOM))
        abort();
    free(bytes);
    return 0;
}
