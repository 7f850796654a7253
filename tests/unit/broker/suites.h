/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "testing.h"

Suite *suite_fdinfo(void);
Suite *suite_proc(void);
Suite *suite_kvm_file(void);
Suite *suite_list(void);
