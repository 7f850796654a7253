/* SPDX-License-Identifier: Apache-2.0 */
#include "parent.h"

#include <signal.h>
#include <sys/prctl.h>

#include "fail.h"

void parent_follow(pid_t parent)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
        fail_errno("PR_SET_PDEATHSIG");
    /* The parent may have gone before that call, and no signal will tell. */
    if (getppid() != parent)
        _exit(EXIT_FAILURE);
}
