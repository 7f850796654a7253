/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A YAML file as a stream of events with their places, and the way to refuse one of them. Only
 * reader.c sees yaml.h. Internal to the configuration.
 */
#pragma once

#include "config.h"

enum event_kind {
    EVENT_DOCUMENT, /* one value follows */
    EVENT_DOCUMENT_END,
    EVENT_VALUE,
    EVENT_LIST, /* values follow */
    EVENT_LIST_END,
    EVENT_SECTION, /* pairs of key and value follow */
    EVENT_SECTION_END,
    EVENT_END, /* of the file; the last one */
};

struct event {
    enum event_kind kind;
    struct place at;
    char *text;    /* owned; of a VALUE: one line without control characters, else NULL; wiped */
    bool is_empty; /* a VALUE of which nothing is written at all; `at` is then of what follows */
    bool is_null;  /* a VALUE that is empty or one of YAML's words for nothing, not in quotes */
};

void event_free(struct event *event);
#define CLEANUP_EVENT CLEANUP(event_free)

/* Where a value stands: "sampling.rules.match". The top is {NULL, NULL}. */
struct path {
    const struct path *up;
    const char *name;
};

struct reader;

/* Borrows all of its arguments. Returns 0 or -ENOMEM. */
MUST_USE int reader_new(const char *name, const char *text, size_t len, struct config_error *error,
                        struct reader **ret_reader);
void reader_free(struct reader *reader);
DEFINE_CLEANUP(struct reader *, reader_free)

/* Takes texts of several lines from now on (\n alone; tabs and the like stay refused). */
void reader_take_lines(struct reader *reader);

/*
 * The next event. Returns 0, -ENOMEM, or -EINVAL with the error filled: what is not YAML, and also
 * anchors, aliases, tags and directives. Nothing is to be read after an error or EVENT_END.
 */
MUST_USE int reader_next(struct reader *reader, struct event *ret_event);

/* Fills the error: "NAME:LINE:COLUMN: path: …"; `path` may be NULL. Returns -EINVAL. */
int reader_refuse(struct reader *reader, struct place at, const struct path *path,
                  const char *format, ...) PRINTF_LIKE(4, 5);

/* Fills the error for a file as a whole: "NAME: …". Returns -EINVAL. */
int refuse_file(const char *name, struct config_error *ret_error, const char *format, ...)
    PRINTF_LIKE(3, 4);
/* The same at a place: "NAME:LINE:COLUMN: …". Returns -EINVAL. */
int refuse_at(const char *name, struct place at, struct config_error *ret_error, const char *format,
              ...) PRINTF_LIKE(4, 5);
