/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <check.h>

Suite *suite_confined(void);
