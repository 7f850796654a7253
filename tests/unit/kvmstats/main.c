/* SPDX-License-Identifier: Apache-2.0 */
#include "suites.h"

int main(void)
{
    return testing_run(decode_suite(), decimal_suite(), encode_suite(), histogram_suite(),
                       names_suite(), (Suite *)NULL);
}
