/* SPDX-License-Identifier: Apache-2.0 */
#include "statsfd.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static int PRINTF_LIKE(3, 4) refuse(struct statsfd_error *error, int r, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(error->message, sizeof error->message, format, args);
    va_end(args);
    return r;
}

/* Reads exactly `len` bytes at `offset`: the kernel answers any range of its file in full. */
static int read_exactly(int fd, void *to, size_t len, off_t offset, const char *what,
                        struct statsfd_error *error)
{
    ssize_t n = pread(fd, to, len, offset);
    if (n < 0) {
        int r = -errno;
        return refuse(error, r, "cannot read the %s: %s", what, strerror(-r));
    }
    if ((size_t)n != len)
        return refuse(error, -EBADMSG, "the %s ends after %zd of %zu bytes", what, n, len);
    return 0;
}

int statsfd_open(int fd, enum scope scope, struct schema_table *table,
                 const struct schema **ret_schema, char *ret_id, size_t id_size,
                 struct statsfd_error *ret_error)
{
    struct kvmstats_error why;
    struct kvmstats_schema *decoded;
    char header[KVMSTATS_HEADER_BYTES];
    CLEANUP_FREE char *bytes = NULL;
    size_t extent;

    int r = read_exactly(fd, header, sizeof header, 0, "header", ret_error);
    if (r < 0)
        return r;
    r = kvmstats_header_extent(header, sizeof header, &extent, &why);
    if (r < 0)
        return refuse(ret_error, r, "%s", why.message);
    bytes = malloc(extent);
    if (!bytes)
        return refuse(ret_error, -ENOMEM, "no memory for %zu bytes of descriptors", extent);
    r = read_exactly(fd, bytes, extent, 0, "descriptor block", ret_error);
    if (r < 0)
        return r;
    r = kvmstats_schema_decode(bytes, extent, &decoded, &why);
    if (r == -ENOMEM)
        return refuse(ret_error, r, "no memory for the schema");
    if (r < 0)
        return refuse(ret_error, r, "%s", why.message);

    if (ret_id && id_size)
        (void)snprintf(ret_id, id_size, "%s", kvmstats_schema_id(decoded));
    r = schema_table_intern(table, scope, decoded, ret_schema);
    if (r < 0)
        return refuse(ret_error, r, "more than %d different schemas on this host", SCHEMAS_MAX);
    return 0;
}
