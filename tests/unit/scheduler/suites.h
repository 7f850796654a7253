/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "testing.h"

Suite *suite_names(void);
Suite *suite_schedstat(void);
Suite *suite_bind(void);
Suite *suite_peaks(void);
Suite *suite_threads(void);
