/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "testing.h"

Suite *suite_fdstore(void);
Suite *suite_handoff(void);
Suite *suite_handoff_hostile(void);
Suite *suite_handoff_message(void);
Suite *suite_identity(void);
Suite *suite_identity_recorded(void);
Suite *suite_cgroup(void);
Suite *suite_uevents(void);
