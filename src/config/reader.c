/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file is read event by event, not as a tree, so that what nobody expects is refused where it
 * stands, before anything behind it is looked at: depth is bounded by the schema, not by the file,
 * and no alias can make a cycle or grow a kilobyte into a gigabyte.
 */
#include "reader.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

#include "words.h"

enum {
    /* Of a file's name in a message: its end is what tells it from others. */
    NAME_BYTES = 160,
};

struct reader {
    yaml_parser_t yaml;
    const char *name;
    const char *text;
    size_t len;
    struct config_error *error;
    bool has_begun, takes_lines;
};

static struct place place_of(yaml_mark_t mark)
{
    return (struct place){.line = mark.line + 1, .column = mark.column + 1};
}

/* Messages. */

static void start_message(struct config_error *error, const char *name)
{
    size_t len = strlen(name);
    error->message[0] = '\0';
    if (len > NAME_BYTES) {
        words_escape(error->message, sizeof error->message, "...", 3);
        name += len - NAME_BYTES;
        len = NAME_BYTES;
    }
    words_escape(error->message, sizeof error->message / 2, name, len);
}

static void vadd_message(struct config_error *error, const char *format, va_list args)
    PRINTF_LIKE(2, 0);
static void vadd_message(struct config_error *error, const char *format, va_list args)
{
    size_t at = strlen(error->message);
    (void)vsnprintf(error->message + at, sizeof error->message - at, format, args);
}

static void add_message(struct config_error *error, const char *format, ...) PRINTF_LIKE(2, 3);
static void add_message(struct config_error *error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vadd_message(error, format, args);
    va_end(args);
}

static void add_path(struct config_error *error, const struct path *path)
{
    if (!path->name)
        return;
    add_path(error, path->up);
    add_message(error, "%s%s", path->up->name ? "." : "", path->name);
}

int reader_refuse(struct reader *reader, struct place at, const struct path *path,
                  const char *format, ...)
{
    va_list args;
    start_message(reader->error, reader->name);
    add_message(reader->error, ":%zu:%zu: ", at.line, at.column);
    if (path && path->name) {
        add_path(reader->error, path);
        add_message(reader->error, ": ");
    }
    va_start(args, format);
    vadd_message(reader->error, format, args);
    va_end(args);
    return -EINVAL;
}

int refuse_file(const char *name, struct config_error *ret_error, const char *format, ...)
{
    va_list args;
    start_message(ret_error, name);
    add_message(ret_error, ": ");
    va_start(args, format);
    vadd_message(ret_error, format, args);
    va_end(args);
    return -EINVAL;
}

int refuse_at(const char *name, struct place at, struct config_error *ret_error, const char *format,
              ...)
{
    va_list args;
    start_message(ret_error, name);
    add_message(ret_error, ":%zu:%zu: ", at.line, at.column);
    va_start(args, format);
    vadd_message(ret_error, format, args);
    va_end(args);
    return -EINVAL;
}

/* What is not YAML, or YAML that has no use here. */

static bool begins_character(char c)
{
    return ((unsigned char)c & 0xc0) != 0x80;
}

static struct place place_of_offset(const struct reader *reader, size_t offset)
{
    struct place at = {1, 1};
    for (size_t i = 0; i < offset && i < reader->len; i++) {
        if (reader->text[i] == '\n')
            at = (struct place){at.line + 1, 1};
        else if (begins_character(reader->text[i]))
            at.column++;
    }
    return at;
}

/* Whether the character with that index is a tab: the usual reason why an indented file fails. */
static bool is_tab(const struct reader *reader, size_t index)
{
    size_t i = 0;
    for (size_t characters = 0; i < reader->len; i++) {
        if (begins_character(reader->text[i]) && characters++ == index)
            break;
    }
    return i < reader->len && reader->text[i] == '\t';
}

/* Whether a line begins at `at`, by each of YAML's line breaks. */
static bool begins_line(const char *text, size_t at)
{
    static const char *const breaks[] = {"\n", "\r", "\xc2\x85", "\xe2\x80\xa8", "\xe2\x80\xa9"};
    for (size_t i = 0; i < ARRAY_LEN(breaks); i++) {
        size_t n = strlen(breaks[i]);
        if (at >= n && memcmp(text + at - n, breaks[i], n) == 0)
            return true;
    }
    return at == 0;
}

/*
 * A line that begins with % can only be a directive or a mistake. None is of use here, and libyaml
 * 0.2.5 compares each with all before it: a file of nothing else would keep it busy for 14 s.
 */
static int refuse_directives(struct reader *reader)
{
    const char *at = reader->text, *end = reader->text + reader->len;
    while (at < end && (at = memchr(at, '%', (size_t)(end - at)))) {
        size_t offset = (size_t)(at - reader->text);
        if (begins_line(reader->text, offset))
            return reader_refuse(
                reader, place_of_offset(reader, offset), NULL,
                "directives (lines that begin with %%) are not taken; leave the line out");
        at++;
    }
    return 0;
}

static int refuse_syntax(struct reader *reader)
{
    const yaml_parser_t *yaml = &reader->yaml;
    const char *problem = yaml->problem ? yaml->problem : "something that is not YAML";
    switch (yaml->error) {
    case YAML_MEMORY_ERROR:
        return -ENOMEM;
    case YAML_READER_ERROR:
        return reader_refuse(reader, place_of_offset(reader, yaml->problem_offset), NULL,
                             "%s; write the file in UTF-8, without control characters", problem);
    case YAML_SCANNER_ERROR:
    case YAML_PARSER_ERROR:
        if (yaml->context && strcmp(yaml->context, "while scanning an alias") == 0)
            return reader_refuse(
                reader, place_of(yaml->context_mark), NULL,
                "* begins an alias in YAML; write a glob that begins with it in quotes: \"*\"");
        if (is_tab(reader, yaml->problem_mark.index))
            return reader_refuse(reader, place_of(yaml->problem_mark), NULL,
                                 "a tab where YAML allows none; indent with spaces");
        return reader_refuse(
            reader, place_of(yaml->problem_mark), NULL,
            "not valid YAML: %s%s%s; write \"key: value\" lines, indented by spaces", problem,
            yaml->context ? ", " : "", yaml->context ? yaml->context : "");
    case YAML_NO_ERROR:
    case YAML_COMPOSER_ERROR:
    case YAML_WRITER_ERROR:
    case YAML_EMITTER_ERROR:
        break;
    }
    return reader_refuse(reader, place_of(yaml->mark), NULL, "not valid YAML: %s", problem);
}

/* Anchors, aliases and tags say nothing that plain values could not say, so none are taken. */
static int refuse_decorated(struct reader *reader, struct place at, const yaml_char_t *anchor,
                            const yaml_char_t *tag)
{
    if (anchor)
        return reader_refuse(reader, at, NULL,
                             "anchors and aliases (& and *) are not taken; write the value out, or "
                             "in quotes if it is a glob: \"*\"");
    if (tag)
        return reader_refuse(reader, at, NULL,
                             "the tag %s is not taken; write the value without it",
                             quoted((const char *)tag).text);
    return 0;
}

/* Values. */

static bool is_word_for_null(const char *text)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL"};
    for (size_t i = 0; i < ARRAY_LEN(nulls); i++) {
        if (strcmp(text, nulls[i]) == 0)
            return true;
    }
    return false;
}

/* Takes the text out of the event. */
static int read_value(struct reader *reader, yaml_event_t *yaml, struct event *event)
{
    const char *text = (const char *)yaml->data.scalar.value;
    size_t len = yaml->data.scalar.length;
    bool is_plain = yaml->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if ((c < 0x20 || c == 0x7f) && !(c == '\n' && reader->takes_lines))
            return reader_refuse(
                reader, event->at, NULL,
                "a text with the control character \\x%02x; write one line of printable characters",
                c);
    }
    int r = refuse_decorated(reader, event->at, yaml->data.scalar.anchor, yaml->data.scalar.tag);
    if (r < 0)
        return r;
    event->is_empty = is_plain && len == 0;
    event->is_null = is_plain && is_word_for_null(text);
    event->text = strdup(text);
    return event->text ? 0 : -ENOMEM;
}

void event_free(struct event *event)
{
    if (event->text)
        explicit_bzero(event->text, strlen(event->text)); /* a private key may stand in a file */
    free(event->text);
    event->text = NULL;
}

/* Returns 0 or -errno; 1 where the event means nothing to us. */
static int convert(struct reader *reader, yaml_event_t *yaml, struct event *event)
{
    event->at = place_of(yaml->start_mark);
    switch (yaml->type) {
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
        return 1;
    case YAML_STREAM_END_EVENT:
        event->kind = EVENT_END;
        return 0;
    case YAML_DOCUMENT_START_EVENT:
        event->kind = EVENT_DOCUMENT;
        return 0;
    case YAML_DOCUMENT_END_EVENT:
        event->kind = EVENT_DOCUMENT_END;
        return 0;
    case YAML_ALIAS_EVENT:
        return refuse_decorated(reader, event->at, yaml->data.alias.anchor, NULL);
    case YAML_SCALAR_EVENT:
        event->kind = EVENT_VALUE;
        return read_value(reader, yaml, event);
    case YAML_SEQUENCE_START_EVENT:
        event->kind = EVENT_LIST;
        return refuse_decorated(reader, event->at, yaml->data.sequence_start.anchor,
                                yaml->data.sequence_start.tag);
    case YAML_SEQUENCE_END_EVENT:
        event->kind = EVENT_LIST_END;
        return 0;
    case YAML_MAPPING_START_EVENT:
        event->kind = EVENT_SECTION;
        return refuse_decorated(reader, event->at, yaml->data.mapping_start.anchor,
                                yaml->data.mapping_start.tag);
    case YAML_MAPPING_END_EVENT:
        event->kind = EVENT_SECTION_END;
        return 0;
    }
    return 1;
}

int reader_next(struct reader *reader, struct event *ret_event)
{
    struct event event = {0};
    int r = reader->has_begun ? 0 : refuse_directives(reader);
    if (r < 0)
        return r;
    reader->has_begun = true;
    do {
        yaml_event_t yaml;
        if (!yaml_parser_parse(&reader->yaml, &yaml))
            return refuse_syntax(reader);
        r = convert(reader, &yaml, &event);
        yaml_event_delete(&yaml);
    } while (r > 0);
    if (r == 0)
        *ret_event = event;
    return r;
}

int reader_new(const char *name, const char *text, size_t len, struct config_error *error,
               struct reader **ret_reader)
{
    static const char byte_order_mark[] = "\xef\xbb\xbf";
    CLEANUP_FREE struct reader *reader = calloc(1, sizeof *reader);
    if (!reader || !yaml_parser_initialize(&reader->yaml))
        return -ENOMEM;
    if (len >= strlen(byte_order_mark) &&
        memcmp(text, byte_order_mark, strlen(byte_order_mark)) == 0) {
        text += strlen(byte_order_mark);
        len -= strlen(byte_order_mark);
    }
    reader->name = name;
    reader->text = text;
    reader->len = len;
    reader->error = error;
    /* Else libyaml would read UTF-16 where a file begins like it. */
    yaml_parser_set_encoding(&reader->yaml, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&reader->yaml, (const unsigned char *)text, len);
    *ret_reader = steal_ptr(&reader);
    return 0;
}

void reader_take_lines(struct reader *reader)
{
    reader->takes_lines = true;
}

void reader_free(struct reader *reader)
{
    if (!reader)
        return;
    yaml_parser_delete(&reader->yaml);
    free(reader);
}
