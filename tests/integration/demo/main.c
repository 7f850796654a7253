/* SPDX-License-Identifier: Apache-2.0 */
#include "testing.h"

Suite *suite_loads(void);
Suite *suite_processes(void);

int main(void)
{
    return testing_run(suite_loads(), suite_processes(), NULL);
}
