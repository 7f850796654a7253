/* SPDX-License-Identifier: Apache-2.0 */
#include "suites.h"

int main(void)
{
    return testing_run(suite_buffer(), suite_cleanup(), suite_clock(), suite_log(), suite_mailbox(),
                       suite_proc(), suite_timed_call(), NULL);
}
