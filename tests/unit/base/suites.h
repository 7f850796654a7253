/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "testing.h"

Suite *suite_buffer(void);
Suite *suite_cleanup(void);
Suite *suite_clock(void);
Suite *suite_log(void);
Suite *suite_mailbox(void);
Suite *suite_proc(void);
Suite *suite_timed_call(void);
