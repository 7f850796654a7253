/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <string.h>

#include "config.h"
#include "testing.h"

Suite *suite_accepted(void);
Suite *suite_refused(void);
Suite *suite_values(void);
Suite *suite_life(void);
Suite *suite_file(void);
Suite *suite_memory(void);
Suite *suite_web(void);

/* Parses a text that must be right. The configuration is the caller's. */
struct config *config_of(const char *text);
/* Whether a message is one line of printable ASCII, and not empty. */
bool is_printable_line(const char *message);
/* The whole default file, NUL-terminated; free() it. */
char *default_file(void);
#define DEFAULT_FILE TEST_SOURCE_DIR "/conf/kvmstatd.yaml"
