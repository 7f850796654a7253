/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <check.h>

#ifdef WITH_SECCOMP
Suite *suite_confined(void);
#else
#define suite_confined() NULL /* the last one */
#endif
