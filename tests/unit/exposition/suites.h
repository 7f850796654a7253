/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "testing.h"

Suite *concurrent_suite(void);
Suite *bursts_suite(void);
Suite *families_suite(void);
Suite *help_suite(void);
Suite *negotiate_suite(void);
Suite *number_suite(void);
Suite *protobuf_suite(void);
Suite *render_suite(void);
Suite *selfmetrics_suite(void);
Suite *sums_suite(void);
Suite *threads_suite(void);
Suite *writer_suite(void);

/* Whether `text` has `line` as a whole line. */
int has_line(const char *text, const char *line);
/* How often `part` occurs. */
int count_of(const char *text, const char *part);

#define assert_line(text, line) \
    ck_assert_msg(has_line((text), (line)), "no line %s in:\n%s", (line), (text))
#define assert_no_line(text, line) \
    ck_assert_msg(!has_line((text), (line)), "line %s in:\n%s", (line), (text))
#define assert_lacks(text, part) \
    ck_assert_msg(count_of((text), (part)) == 0, "%s in:\n%s", (part), (text))
