/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The words of error messages. A message is one printable line, whatever bytes the input holds.
 * Internal to the configuration.
 */
#pragma once

#include "config.h"

enum {
    /* More of a wrong value does not help to find it: the line and column do. */
    QUOTED_BYTES = 48,
};

/* A text in double quotes, what is not printable ASCII as \xNN, cut after QUOTED_BYTES bytes. */
struct quoted {
    char text[QUOTED_BYTES * 4 + sizeof "\"...\""];
};
struct quoted quoted(const char *text);

/* Appends `bytes` to the string `to`, escaped as above; stops where `size` bytes are full. */
void words_escape(char *to, size_t size, const char *bytes, size_t len);

/* "vcpu, vm or off": the words of a NULL-terminated list, cut where the text is full. */
struct word_list {
    char text[256];
};
struct word_list words_join(const char *const *words, const char *last_joint);

/* The word most like `text`, or NULL when none is near enough to be meant. Case does not count. */
const char *words_nearest(const char *text, const char *const *words);

/* Fills in why something is wrong and what would be right. Returns -EINVAL. */
int reason_set(struct config_error *ret_reason, const char *format, ...) PRINTF_LIKE(2, 3);
