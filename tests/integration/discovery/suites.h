/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "testing.h"

Suite *suite_looks(void);
Suite *suite_shared(void);
Suite *suite_refused(void);
Suite *suite_events(void);
Suite *suite_random(void);
Suite *suite_handed(void);
