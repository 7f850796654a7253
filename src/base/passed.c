/* SPDX-License-Identifier: Apache-2.0 */
#include "passed.h"

#include <string.h>

void passed_fds_free(struct passed_fds *passed)
{
    for (size_t i = 0; i < passed->n; i++) {
        passed->fds[i].fd = fd_close(passed->fds[i].fd);
        free(passed->fds[i].name);
    }
    free(passed->fds);
    *passed = (struct passed_fds){0};
}

int passed_fds_take(struct passed_fds *passed, const char *name)
{
    for (size_t i = 0; passed && i < passed->n; i++) {
        if (passed->fds[i].fd >= 0 && strcmp(passed->fds[i].name, name) == 0)
            return steal_fd(&passed->fds[i].fd);
    }
    return -1;
}
