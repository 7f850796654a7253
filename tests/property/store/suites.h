/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "testing.h"

Suite *window_suite(void);
Suite *distribution_suite(void);
