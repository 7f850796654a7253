/* SPDX-License-Identifier: Apache-2.0 */
#include "suites.h"

int main(void)
{
    return testing_run(suite_proc(), suite_kvm_file(), suite_list(), suite_fdinfo(), NULL);
}
