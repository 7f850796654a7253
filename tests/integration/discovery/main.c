/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "log.h"
#include "suites.h"

int main(void)
{
    if (!getenv("KVMSTATD_TEST_LOG"))
        log_set_level(LOG_LEVEL_ERROR);
    return testing_run(suite_looks(), suite_shared(), suite_refused(), suite_events(),
                       suite_random(), suite_handed(), NULL);
}
