/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file is read event by event, not as a tree: what the schema does not know is refused where it
 * stands, before anything behind it is looked at. So depth is bounded by the schema, not by the
 * file; no alias can make a cycle or grow a kilobyte into a gigabyte; and nothing is held in memory
 * but the one event and the configuration.
 */
#include "parse.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

#include "schema.h"
#include "words.h"

enum {
    /* Of a file's name in a message: its end is what tells it from others. */
    NAME_BYTES = 160,
};

/* Both 1-based, a column is a character. */
struct place {
    size_t line, column;
};

/* Where a value stands: "sampling.rules.match". */
struct path {
    const struct path *up; /* NULL at the top */
    const char *name;
};

struct parse {
    yaml_parser_t yaml;
    const char *name;
    const char *text;
    size_t len;
    struct config *config;
    struct config_error *error;
    /* Of each rule its interval, to say later which one was too many. */
    struct place rule_intervals[CONFIG_RULES_MAX];
};

/* What a mapping held, in the order of its table. */
struct seen {
    bool is;
    struct place key, value;
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

static void add_to_message(struct config_error *error, const char *format, va_list args)
{
    size_t at = strlen(error->message);
    (void)vsnprintf(error->message + at, sizeof error->message - at, format, args);
}

static void addf_to_message(struct config_error *error, const char *format, ...) PRINTF_LIKE(2, 3);
static void addf_to_message(struct config_error *error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    add_to_message(error, format, args);
    va_end(args);
}

int parse_refuse_file(const char *name, struct config_error *ret_error, const char *format, ...)
{
    va_list args;
    start_message(ret_error, name);
    addf_to_message(ret_error, ": ");
    va_start(args, format);
    add_to_message(ret_error, format, args);
    va_end(args);
    return -EINVAL;
}

static void add_path(struct config_error *error, const struct path *path)
{
    if (path->up && path->up->name)
        add_path(error, path->up);
    addf_to_message(error, "%s%s", path->up && path->up->name ? "." : "", path->name);
}

/* Refuses what stands at `at`; `path` may be NULL. Returns -EINVAL. */
static int refuse(struct parse *p, struct place at, const struct path *path, const char *format,
                  ...) PRINTF_LIKE(4, 5);
static int refuse(struct parse *p, struct place at, const struct path *path, const char *format,
                  ...)
{
    va_list args;
    start_message(p->error, p->name);
    addf_to_message(p->error, ":%zu:%zu: ", at.line, at.column);
    if (path && path->name) {
        add_path(p->error, path);
        addf_to_message(p->error, ": ");
    }
    va_start(args, format);
    add_to_message(p->error, format, args);
    va_end(args);
    return -EINVAL;
}

/* Events. */

/* libyaml's reader gives the offset of a byte it cannot take, not its line. */
static struct place place_of_offset(const struct parse *p, size_t offset)
{
    struct place at = {1, 1};
    for (size_t i = 0; i < offset && i < p->len; i++) {
        unsigned char c = (unsigned char)p->text[i];
        if (c == '\n') {
            at.line++;
            at.column = 1;
        } else if ((c & 0xc0) != 0x80) { /* a character counts where it begins */
            at.column++;
        }
    }
    return at;
}

/* Whether the character at `at` is a tab, the usual reason why an indented file does not scan. */
static bool is_tab(const struct parse *p, size_t index)
{
    size_t i = 0;
    for (size_t character = 0; i < p->len; i++) {
        if (((unsigned char)p->text[i] & 0xc0) != 0x80 && character++ == index)
            break;
    }
    return i < p->len && p->text[i] == '\t';
}

static int refuse_syntax(struct parse *p)
{
    const yaml_parser_t *yaml = &p->yaml;
    const char *problem = yaml->problem ? yaml->problem : "something that is not YAML";
    switch (yaml->error) {
    case YAML_MEMORY_ERROR:
        return -ENOMEM;
    case YAML_READER_ERROR:
        return refuse(p, place_of_offset(p, yaml->problem_offset), NULL,
                      "%s; write the file in UTF-8, without control characters", problem);
    case YAML_SCANNER_ERROR:
    case YAML_PARSER_ERROR:
        if (yaml->context && strcmp(yaml->context, "while scanning an alias") == 0)
            return refuse(p, place_of(yaml->context_mark), NULL,
                          "* alone means an alias in YAML; write a glob that begins with it in "
                          "quotes: \"*\"");
        if (is_tab(p, yaml->problem_mark.index))
            return refuse(p, place_of(yaml->problem_mark), NULL,
                          "a tab where YAML allows none; indent with spaces");
        return refuse(p, place_of(yaml->problem_mark), NULL,
                      "not valid YAML: %s%s%s; write \"key: "
                      "value\" lines, indented by spaces",
                      problem, yaml->context ? ", " : "", yaml->context ? yaml->context : "");
    case YAML_NO_ERROR:
    case YAML_COMPOSER_ERROR:
    case YAML_WRITER_ERROR:
    case YAML_EMITTER_ERROR:
        break;
    }
    return refuse(p, place_of(yaml->mark), NULL, "not valid YAML: %s", problem);
}

/* Anchors, aliases and tags say nothing that plain values could not say, so none are taken. */
static int refuse_decorated(struct parse *p, const yaml_event_t *event)
{
    const yaml_char_t *anchor = NULL, *tag = NULL;
    if (event->type == YAML_ALIAS_EVENT) {
        anchor = event->data.alias.anchor;
    } else if (event->type == YAML_SCALAR_EVENT) {
        anchor = event->data.scalar.anchor;
        tag = event->data.scalar.tag;
    } else if (event->type == YAML_SEQUENCE_START_EVENT) {
        anchor = event->data.sequence_start.anchor;
        tag = event->data.sequence_start.tag;
    } else if (event->type == YAML_MAPPING_START_EVENT) {
        anchor = event->data.mapping_start.anchor;
        tag = event->data.mapping_start.tag;
    }
    if (anchor)
        return refuse(p, place_of(event->start_mark), NULL,
                      "anchors and aliases (& and *) are not taken; write the value out, or in "
                      "quotes if it is a glob: \"*\"");
    if (tag)
        return refuse(p, place_of(event->start_mark), NULL,
                      "the tag %s is not taken; write the value without it",
                      quoted((const char *)tag).text);
    return 0;
}

static int refuse_scalar_bytes(struct parse *p, const yaml_event_t *event)
{
    const yaml_char_t *bytes = event->data.scalar.value;
    for (size_t i = 0; i < event->data.scalar.length; i++) {
        if (bytes[i] < 0x20 || bytes[i] == 0x7f)
            return refuse(p, place_of(event->start_mark), NULL,
                          "a text with the control character \\x%02x; write one line of "
                          "printable characters",
                          bytes[i]);
    }
    return 0;
}

/* The caller releases *ret_event by yaml_event_delete(), also after an error. */
static int next_event(struct parse *p, yaml_event_t *ret_event)
{
    memset(ret_event, 0, sizeof *ret_event);
    if (!yaml_parser_parse(&p->yaml, ret_event))
        return refuse_syntax(p);
    int r = refuse_decorated(p, ret_event);
    if (r == 0 && ret_event->type == YAML_SCALAR_EVENT)
        r = refuse_scalar_bytes(p, ret_event);
    return r;
}
#define CLEANUP_EVENT CLEANUP(yaml_event_delete)

static const char *scalar_text(const yaml_event_t *event)
{
    return (const char *)event->data.scalar.value;
}

/* Nothing after the colon, or YAML's words for nothing. */
static bool is_null(const yaml_event_t *event)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL"};
    if (event->type != YAML_SCALAR_EVENT || event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return false;
    for (size_t i = 0; i < ARRAY_LEN(nulls); i++) {
        if (strcmp(scalar_text(event), nulls[i]) == 0)
            return true;
    }
    return false;
}

/* Values. */

static int parse_mapping(struct parse *p, const struct path *path, const struct key_table *table,
                         void *base, struct seen *seen);

static int add_value(struct parse *p, const struct path *path, const struct key *key, void *base,
                     const yaml_event_t *event)
{
    struct config_error reason;
    struct place at = place_of(event->start_mark);
    if (event->type != YAML_SCALAR_EVENT)
        return refuse(p, at, path,
                      "one value belongs here, not a list or a section; write for "
                      "example %s",
                      schema_example(key));
    if (is_null(event))
        return refuse(p, at, path,
                      "a value is missing; write for example %s, or \"%s\" if you "
                      "mean that word",
                      schema_example(key), scalar_text(event));
    int r = key->type->add(key, base, scalar_text(event), &reason);
    return r == -EINVAL ? refuse(p, at, path, "%s", reason.message) : r;
}

static int parse_scalar(struct parse *p, const struct path *path, const struct key *key,
                        struct place key_place, void *base, const yaml_event_t *event)
{
    /* libyaml puts an empty value where the next thing stands, which is no help. */
    if (is_null(event) && event->data.scalar.length == 0)
        return refuse(p, key_place, path,
                      "a value is missing; write for example %s, or leave "
                      "the key out",
                      schema_example(key));
    key->type->clear(key, base);
    return add_value(p, path, key, base, event);
}

static int refuse_not_list(struct parse *p, const struct path *path, const struct key *key,
                           struct place key_place, const yaml_event_t *event)
{
    bool empty = is_null(event) && event->data.scalar.length == 0;
    return refuse(p, empty ? key_place : place_of(event->start_mark), path,
                  "a list belongs here; write for example [%s]%s", schema_example(key),
                  key->min_items ? "" : ", or [] for none");
}

static int parse_list(struct parse *p, const struct path *path, const struct key *key,
                      struct place key_place, void *base, const yaml_event_t *event)
{
    struct place start = place_of(event->start_mark);
    if (event->type != YAML_SEQUENCE_START_EVENT)
        return refuse_not_list(p, path, key, key_place, event);
    key->type->clear(key, base);
    for (size_t n = 0;; n++) {
        CLEANUP_EVENT yaml_event_t item;
        int r = next_event(p, &item);
        if (r < 0)
            return r;
        if (item.type == YAML_SEQUENCE_END_EVENT && n < key->min_items)
            return refuse(p, start, path,
                          "an empty list; write for example [%s], or leave the "
                          "key out",
                          schema_example(key));
        if (item.type == YAML_SEQUENCE_END_EVENT)
            return 0;
        if (n == key->max_items && !key->choices)
            return refuse(p, place_of(item.start_mark), path, "too many items; write at most %zu",
                          key->max_items);
        r = add_value(p, path, key, base, &item);
        if (r < 0)
            return r;
    }
}

static int parse_section(struct parse *p, const struct path *path, const struct key *key,
                         void *base, const yaml_event_t *event)
{
    struct seen seen[KEYS_MAX] = {0};
    /* A section whose keys are all commented out is what an edited file often holds. */
    if (is_null(event))
        return 0;
    if (event->type != YAML_MAPPING_START_EVENT)
        return refuse(p, place_of(event->start_mark), path,
                      "keys belong here, indented under %s; write for example %s: ...", key->name,
                      key->keys->keys[0].name);
    return parse_mapping(p, path, key->keys, base, seen);
}

static const struct seen *seen_key(const struct key_table *table, const struct seen *seen,
                                   const char *name)
{
    return &seen[schema_find(table, name) - table->keys];
}

static int parse_rule(struct parse *p, const struct path *path, const struct key *key,
                      const yaml_event_t *event)
{
    struct seen seen[KEYS_MAX] = {0};
    struct config_rule *rule = NULL;
    struct place start = place_of(event->start_mark);
    if (event->type != YAML_MAPPING_START_EVENT)
        return refuse(p, start, path, "a rule belongs here; write for example %s", key->example);
    if (p->config->sampling.n_rules == CONFIG_RULES_MAX)
        return refuse(p, start, path, "too many rules; write at most %d", CONFIG_RULES_MAX);
    int r = schema_append_rule(p->config, &rule);
    if (r == 0)
        r = parse_mapping(p, path, &schema_rule, rule, seen);
    if (r < 0)
        return r;

    if (!rule->vm && !rule->uuid && !rule->vmm && !rule->unit)
        return refuse(p, start, path,
                      "the rule does not say which VMs it is for; write for "
                      "example match: {vm: \"db-*\"}, or match: {vm: \"*\"} for "
                      "all");
    const struct seen *interval = seen_key(&schema_rule, seen, "interval");
    if (!interval->is && !seen_key(&schema_rule, seen, "enabled")->is)
        return refuse(p, start, path,
                      "the rule changes nothing; write interval: 20ms or enabled: "
                      "false beside its match");
    p->rule_intervals[p->config->sampling.n_rules - 1] = interval->value;
    return 0;
}

static int parse_rules(struct parse *p, const struct path *path, const struct key *key,
                       struct place key_place, const yaml_event_t *event)
{
    if (is_null(event))
        return 0;
    if (event->type != YAML_SEQUENCE_START_EVENT)
        return refuse_not_list(p, path, key, key_place, event);
    for (;;) {
        CLEANUP_EVENT yaml_event_t item;
        int r = next_event(p, &item);
        if (r < 0)
            return r;
        if (item.type == YAML_SEQUENCE_END_EVENT)
            return 0;
        r = parse_rule(p, path, key, &item);
        if (r < 0)
            return r;
    }
}

static int parse_value(struct parse *p, const struct path *path, const struct key *key, void *base,
                       struct seen *seen)
{
    CLEANUP_EVENT yaml_event_t event;
    int r = next_event(p, &event);
    if (r < 0)
        return r;
    seen->value = place_of(event.start_mark);
    switch (key->shape) {
    case KEY_SCALAR:
        return parse_scalar(p, path, key, seen->key, base, &event);
    case KEY_LIST:
        return parse_list(p, path, key, seen->key, base, &event);
    case KEY_SECTION:
        return parse_section(p, path, key, base, &event);
    case KEY_RULES:
        return parse_rules(p, path, key, seen->key, &event);
    }
    return -EINVAL;
}

static int refuse_unknown_key(struct parse *p, const struct path *path, struct place at,
                              const struct key_table *table, const char *name)
{
    const char *names[KEYS_MAX + 1] = {NULL};
    for (size_t i = 0; i < table->n; i++)
        names[i] = table->keys[i].name;
    const char *meant = words_nearest(name, names);
    if (meant)
        return refuse(p, at, path, "there is no key %s; did you mean %s?", quoted(name).text,
                      meant);
    return refuse(p, at, path, "there is no key %s; write %s", quoted(name).text,
                  words_join(names, " or ").text);
}

/* The mapping's start has been read; `seen` has a place for each key of the table, all zero. */
static int parse_mapping(struct parse *p, const struct path *path, const struct key_table *table,
                         void *base, struct seen *seen)
{
    for (;;) {
        CLEANUP_EVENT yaml_event_t event;
        int r = next_event(p, &event);
        if (r < 0)
            return r;
        if (event.type == YAML_MAPPING_END_EVENT)
            return 0;

        struct place at = place_of(event.start_mark);
        if (event.type != YAML_SCALAR_EVENT)
            return refuse(p, at, path, "a key must be a word; write for example %s: ...",
                          table->keys[0].name);
        const struct key *key = schema_find(table, scalar_text(&event));
        if (!key)
            return refuse_unknown_key(p, path, at, table, scalar_text(&event));
        struct seen *this = &seen[key - table->keys];
        struct path inside = {.up = path, .name = key->name};
        if (this->is)
            return refuse(p, at, &inside,
                          "the key stands here twice, first on line %zu; write "
                          "it once",
                          this->key.line);
        *this = (struct seen){.is = true, .key = at};
        r = parse_value(p, &inside, key, base, this);
        if (r < 0)
            return r;
    }
}

/* Each interval in use costs a timer and frames of its own. */
static int check_intervals(struct parse *p)
{
    const struct config *config = p->config;
    const struct path sampling = {.name = "sampling"}, rules = {&sampling, "rules"};
    int64_t known[CONFIG_INTERVALS_MAX] = {config->sampling.interval_ns};
    size_t n = 1;
    for (size_t i = 0; i < config->sampling.n_rules; i++) {
        const struct config_rule *rule = &config->sampling.rules[i];
        size_t j = 0;
        if (!rule->enabled || rule->interval_ns == 0)
            continue;
        while (j < n && known[j] != rule->interval_ns)
            j++;
        if (j == CONFIG_INTERVALS_MAX)
            return refuse(p, p->rule_intervals[i], &rules,
                          "one interval too many; write at most %d different ones, "
                          "sampling.interval among them",
                          CONFIG_INTERVALS_MAX);
        if (j == n)
            known[n++] = rule->interval_ns;
    }
    return 0;
}

static int parse_document(struct parse *p)
{
    static const struct path top = {0};
    struct seen seen[KEYS_MAX] = {0};
    CLEANUP_EVENT yaml_event_t event;
    int r = next_event(p, &event);
    if (r < 0)
        return r;
    if (is_null(&event))
        return 0;
    if (event.type != YAML_MAPPING_START_EVENT)
        return refuse(p, place_of(event.start_mark), NULL,
                      "keys belong here; write for example sampling: {interval: 100ms}");
    return parse_mapping(p, &top, &schema_root, p->config, seen);
}

/* No document at all is as good as an empty one. */
static int parse_stream(struct parse *p)
{
    for (size_t n_documents = 0;;) {
        CLEANUP_EVENT yaml_event_t event;
        int r = next_event(p, &event);
        if (r < 0)
            return r;
        if (event.type == YAML_STREAM_END_EVENT)
            return 0;
        if (event.type != YAML_DOCUMENT_START_EVENT) /* the stream's start, a document's end */
            continue;
        if (n_documents++ > 0)
            return refuse(p, place_of(event.start_mark), NULL,
                          "a second document begins here; write all in one, without ---");
        r = parse_document(p);
        if (r < 0)
            return r;
    }
}

int parse_yaml(const char *name, const char *text, size_t len, struct config *config,
               struct config_error *ret_error)
{
    static const char byte_order_mark[] = "\xef\xbb\xbf";
    CLEANUP_FREE struct parse *p = calloc(1, sizeof *p);
    if (!p || !yaml_parser_initialize(&p->yaml))
        return -ENOMEM;
    if (len >= strlen(byte_order_mark) && memcmp(text, byte_order_mark, 3) == 0) {
        text += strlen(byte_order_mark);
        len -= strlen(byte_order_mark);
    }
    p->name = name;
    p->text = text;
    p->len = len;
    p->config = config;
    p->error = ret_error;
    /* Else libyaml would read UTF-16 where a file begins like it. */
    yaml_parser_set_encoding(&p->yaml, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&p->yaml, (const unsigned char *)text, len);

    int r = parse_stream(p);
    if (r == 0)
        r = check_intervals(p);
    yaml_parser_delete(&p->yaml);
    return r;
}
