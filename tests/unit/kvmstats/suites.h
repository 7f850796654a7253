/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "testing.h"

Suite *decode_suite(void);
Suite *decimal_suite(void);
Suite *encode_suite(void);
Suite *histogram_suite(void);
Suite *names_suite(void);
