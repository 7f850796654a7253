/* SPDX-License-Identifier: Apache-2.0 */
/* The terminal as a screen of text and a keyboard: a few sequences that all of them have. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "cleanup.h"

/* Takes the terminal until screen_end(). Returns 0 or -errno. */
MUST_USE int screen_begin(void);
void screen_end(void);
void screen_size(size_t *ret_rows, size_t *ret_width);
/* Instead of what is shown. */
void screen_draw(const char *text);
/* Waits so long for a key; 0: none came, or a signal did. */
int screen_key(int64_t wait_ns);
