/* SPDX-License-Identifier: Apache-2.0 */
/* What the store derives from ticks, against models that keep everything. */
#include "suites.h"

int main(void)
{
    return testing_run(window_suite(), distribution_suite(), (Suite *)NULL);
}
