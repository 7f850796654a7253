/* SPDX-License-Identifier: Apache-2.0 */
#include "suites.h"

int main(void)
{
    return testing_run(suite_names(), suite_schedstat(), suite_bind(), suite_peaks(),
                       suite_threads(), NULL);
}
