/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "testing.h"

Suite *bursts_suite(void);
Suite *delayed_suite(void);
Suite *labels_suite(void);
Suite *return_suite(void);
Suite *recorded_suite(void);
