/* SPDX-License-Identifier: Apache-2.0 */
#include "http_test.h"

int main(void)
{
    return testing_run(suite_accept(), suite_limits(), suite_auth(), suite_gzip(), suite_listen(),
                       suite_policy(), suite_routes(), suite_requests(), suite_http(), NULL);
}
