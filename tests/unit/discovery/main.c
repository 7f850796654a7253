/* SPDX-License-Identifier: Apache-2.0 */
#include "suites.h"

int main(void)
{
    return testing_run(suite_identity(), suite_identity_recorded(), suite_cgroup(), suite_uevents(),
                       suite_handoff_message(), suite_handoff_hostile(), suite_handoff(),
                       suite_fdstore(), NULL);
}
