/* SPDX-License-Identifier: Apache-2.0 */
#include "file.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "reader.h"

int file_refuse_size(const char *name, struct config_error *ret_error)
{
    return refuse_file(name, ret_error,
                       "larger than 1 MiB, which is no configuration; write at most %d bytes",
                       CONFIG_FILE_MAX_BYTES);
}

/* Up to `size` bytes, to the end of the file. A pipe is read as well as a file. */
static ssize_t read_all(int fd, char *bytes, size_t size)
{
    size_t len = 0;
    while (len < size) {
        ssize_t n = read(fd, bytes + len, size - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        len += (size_t)n;
    }
    return (ssize_t)len;
}

int file_slurp(const char *path, bool regular, size_t max, char **ret_text, size_t *ret_len)
{
    struct stat st;
    CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | (regular ? O_NONBLOCK : 0));
    if (fd < 0 || fstat(fd, &st) < 0)
        return -errno;
    if (S_ISDIR(st.st_mode))
        return -EISDIR;
    if (regular && !S_ISREG(st.st_mode))
        return -EINVAL;
    char *text = malloc(max);
    if (!text)
        return -ENOMEM;
    ssize_t len = read_all(fd, text, max);
    if (len < 0 || (size_t)len == max) {
        explicit_bzero(text, max); /* it may be a secret */
        free(text);
        return len < 0 ? (int)len : -EFBIG;
    }
    *ret_text = text;
    *ret_len = (size_t)len;
    return 0;
}

int file_read(const char *path, bool regular, const char *example, char **ret_text, size_t *ret_len,
              struct config_error *ret_error)
{
    int r = file_slurp(path, regular, (size_t)CONFIG_FILE_MAX_BYTES + 1, ret_text, ret_len);
    if (r == -EISDIR) {
        (void)refuse_file(path, ret_error, "a directory; name a file in it, for example %s",
                          example);
    } else if (r == -EINVAL && regular) {
        (void)refuse_file(path, ret_error,
                          "not a regular file; it is read more than once, so name one");
    } else if (r == -EFBIG) {
        return file_refuse_size(path, ret_error);
    } else if (r < 0) {
        errno = -r;
        (void)refuse_file(path, ret_error, "cannot be %s: %m",
                          r == -EIO || r == -ENOMEM ? "read" : "opened");
    }
    return r;
}
