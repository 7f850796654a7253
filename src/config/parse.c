/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A walk through the file along the schema's tables: each function reads one shape, each value goes
 * to its type. It stops at the first thing wrong, which is the first in the file.
 */
#include "parse.h"

#include <string.h>

#include "reader.h"
#include "schema.h"
#include "words.h"

struct parse {
    struct reader *reader;
    struct config *config; /* NULL: another kind of file, which has no rules */
    /* Of each rule its interval, to say later which one was too many. */
    struct place rule_intervals[CONFIG_RULES_MAX];
};

/* What a section held, in the order of its table. */
struct seen {
    bool is;
    struct place key, value;
};

static int parse_keys(struct parse *p, const struct path *path, const struct key_table *table,
                      void *base, struct seen *seen);

static int add_value(struct parse *p, const struct path *path, const struct key *key, void *base,
                     const struct event *event)
{
    struct config_error reason;
    if (event->kind != EVENT_VALUE)
        return reader_refuse(
            p->reader, event->at, path,
            "one value belongs here, not a list or a section; write for example %s",
            schema_example(key));
    if (event->is_null)
        return reader_refuse(p->reader, event->at, path,
                             "a value is missing; write for example %s, or \"%s\" for that text",
                             schema_example(key), event->text);
    if (!key->lines && strchr(event->text, '\n'))
        return reader_refuse(p->reader, event->at, path, "a text of several lines; write one line");
    int r = key->type->add(key, base, event->text, &reason);
    return r == -EINVAL ? reader_refuse(p->reader, event->at, path, "%s", reason.message) : r;
}

static int parse_scalar(struct parse *p, const struct path *path, const struct key *key,
                        struct place key_place, void *base, const struct event *event)
{
    if (event->is_empty)
        return reader_refuse(p->reader, key_place, path,
                             "a value is missing; write for example %s, or leave the key out",
                             schema_example(key));
    key->type->clear(key, base);
    return add_value(p, path, key, base, event);
}

static int refuse_not_list(struct parse *p, const struct path *path, const struct key *key,
                           struct place key_place, const struct event *event)
{
    return reader_refuse(p->reader, event->is_empty ? key_place : event->at, path,
                         "a list belongs here; write for example [%s]%s", schema_example(key),
                         key->min_items ? "" : ", or [] for none");
}

static int parse_list(struct parse *p, const struct path *path, const struct key *key,
                      struct place key_place, void *base, const struct event *event)
{
    if (event->kind != EVENT_LIST)
        return refuse_not_list(p, path, key, key_place, event);
    key->type->clear(key, base);
    for (size_t n = 0;; n++) {
        CLEANUP_EVENT struct event item = {0};
        int r = reader_next(p->reader, &item);
        if (r < 0)
            return r;
        if (item.kind == EVENT_LIST_END && n < key->min_items)
            return reader_refuse(p->reader, event->at, path,
                                 "an empty list; write for example [%s], or leave the key out",
                                 schema_example(key));
        if (item.kind == EVENT_LIST_END)
            return 0;
        /* Of choices there cannot be more than there are: a repeat is the better message. */
        if (n == key->max_items && !key->choices)
            return reader_refuse(p->reader, item.at, path, "too many items; write at most %zu",
                                 key->max_items);
        r = add_value(p, path, key, base, &item);
        if (r < 0)
            return r;
    }
}

static int parse_section(struct parse *p, const struct path *path, const struct key *key,
                         void *base, const struct event *event)
{
    struct seen seen[KEYS_MAX] = {0};
    /* A section whose keys are all commented out is what an edited file often holds. */
    if (event->is_null)
        return 0;
    if (event->kind != EVENT_SECTION)
        return reader_refuse(p->reader, event->at, path,
                             "keys belong here; write for example %s: %s", key->name,
                             schema_example(key));
    return parse_keys(p, path, key->keys, base, seen);
}

static const struct seen *seen_key(const struct key_table *table, const struct seen *seen,
                                   const char *name)
{
    return &seen[schema_find(table, name) - table->keys];
}

static int parse_rule(struct parse *p, const struct path *path, const struct key *key,
                      const struct event *event)
{
    struct seen seen[KEYS_MAX] = {0};
    struct config_rule *rule = NULL;
    if (event->kind != EVENT_SECTION)
        return reader_refuse(p->reader, event->at, path,
                             "a rule belongs here; write for example %s", schema_example(key));
    if (p->config->sampling.n_rules == key->max_items)
        return reader_refuse(p->reader, event->at, path, "too many rules; write at most %zu",
                             key->max_items);
    int r = schema_append_rule(p->config, &rule);
    if (r == 0)
        r = parse_keys(p, path, key->keys, rule, seen);
    if (r < 0)
        return r;

    if (!rule->vm && !rule->uuid && !rule->vmm && !rule->unit)
        return reader_refuse(p->reader, event->at, path,
                             "the rule does not say which VMs it is for; write for example "
                             "match: {vm: \"db-*\"}, or match: {vm: \"*\"} for all");
    const struct seen *interval = seen_key(key->keys, seen, "interval");
    if (!interval->is && !seen_key(key->keys, seen, "enabled")->is)
        return reader_refuse(p->reader, event->at, path,
                             "the rule changes nothing; write interval: 20ms or enabled: false "
                             "beside its match");
    p->rule_intervals[p->config->sampling.n_rules - 1] = interval->value;
    return 0;
}

static int parse_rules(struct parse *p, const struct path *path, const struct key *key,
                       struct place key_place, const struct event *event)
{
    if (event->is_null) /* as a section */
        return 0;
    if (event->kind != EVENT_LIST)
        return refuse_not_list(p, path, key, key_place, event);
    for (;;) {
        CLEANUP_EVENT struct event item = {0};
        int r = reader_next(p->reader, &item);
        if (r < 0)
            return r;
        if (item.kind == EVENT_LIST_END)
            return 0;
        r = parse_rule(p, path, key, &item);
        if (r < 0)
            return r;
    }
}

/* A name and its value. Only what was there before is a repeat: the list is searched by `add`. */
static int parse_pair(struct parse *p, const struct path *path, const struct key *key, void *base,
                      const struct event *name)
{
    struct config_error reason;
    CLEANUP_EVENT struct event value = {0};
    if (name->kind != EVENT_VALUE || name->is_empty || strchr(name->text, '\n'))
        return reader_refuse(p->reader, name->at, path, "a name belongs here; write for example %s",
                             schema_example(key));
    int r = reader_next(p->reader, &value);
    if (r < 0)
        return r;
    if (value.kind != EVENT_VALUE || value.is_null || strchr(value.text, '\n'))
        return reader_refuse(p->reader, value.is_empty ? name->at : value.at, path,
                             "the value of %s is missing; write for example %s",
                             quoted(name->text).text, schema_example(key));
    r = key->add_pair(key, base, name->text, value.text, &reason);
    return r == -EINVAL ? reader_refuse(p->reader, name->at, path, "%s", reason.message) : r;
}

static int parse_pairs(struct parse *p, const struct path *path, const struct key *key, void *base,
                       const struct event *event)
{
    if (event->is_null) /* as a section */
        return 0;
    if (event->kind != EVENT_SECTION)
        return reader_refuse(p->reader, event->at, path,
                             "names and values belong here; write for example %s: %s", key->name,
                             schema_example(key));
    for (size_t n = 0;; n++) {
        CLEANUP_EVENT struct event name = {0};
        int r = reader_next(p->reader, &name);
        if (r < 0)
            return r;
        if (name.kind == EVENT_SECTION_END)
            return 0;
        if (n == key->max_items)
            return reader_refuse(p->reader, name.at, path, "too many; write at most %zu",
                                 key->max_items);
        r = parse_pair(p, path, key, base, &name);
        if (r < 0)
            return r;
    }
}

static int parse_value(struct parse *p, const struct path *path, const struct key *key, void *base,
                       struct seen *seen)
{
    CLEANUP_EVENT struct event event = {0};
    int r = reader_next(p->reader, &event);
    if (r < 0)
        return r;
    seen->value = event.at;
    if (key->place_at)
        *(struct place *)(void *)((char *)base + key->place_at) = event.at;
    switch (key->shape) {
    case KEY_SCALAR:
        return parse_scalar(p, path, key, seen->key, base, &event);
    case KEY_LIST:
        return parse_list(p, path, key, seen->key, base, &event);
    case KEY_SECTION:
        return parse_section(p, path, key, base, &event);
    case KEY_RULES:
        return parse_rules(p, path, key, seen->key, &event);
    case KEY_PAIRS:
        return parse_pairs(p, path, key, base, &event);
    }
    return -EINVAL;
}

static int refuse_unknown_key(struct parse *p, const struct path *path,
                              const struct key_table *table, const struct event *event)
{
    const char *names[KEYS_MAX + 1] = {NULL};
    for (size_t i = 0; i < table->n; i++)
        names[i] = table->keys[i].name;
    const char *meant = words_nearest(event->text, names);
    if (meant)
        return reader_refuse(p->reader, event->at, path, "there is no key %s; did you mean %s?",
                             quoted(event->text).text, meant);
    return reader_refuse(p->reader, event->at, path, "there is no key %s; write %s",
                         quoted(event->text).text, words_join(names, " or ").text);
}

/* Up to the section's end; `seen` has a place for each key of the table, all zero. */
static int parse_keys(struct parse *p, const struct path *path, const struct key_table *table,
                      void *base, struct seen *seen)
{
    for (;;) {
        CLEANUP_EVENT struct event event = {0};
        int r = reader_next(p->reader, &event);
        if (r < 0)
            return r;
        if (event.kind == EVENT_SECTION_END)
            return 0;
        if (event.kind != EVENT_VALUE)
            return reader_refuse(p->reader, event.at, path,
                                 "a key must be a word; write for example %s: %s",
                                 table->keys[0].name, schema_example(&table->keys[0]));

        const struct key *key = schema_find(table, event.text);
        if (!key)
            return refuse_unknown_key(p, path, table, &event);
        struct seen *this = &seen[key - table->keys];
        struct path inside = {.up = path, .name = key->name};
        if (this->is)
            return reader_refuse(p->reader, event.at, &inside,
                                 "the key stands here twice, first on line %zu; write it once",
                                 this->key.line);
        *this = (struct seen){.is = true, .key = event.at};
        r = parse_value(p, &inside, key, base, this);
        if (r < 0)
            return r;
    }
}

/* Each interval in use costs a timer and frames of its own. */
static int check_intervals(struct parse *p)
{
    const struct config *config = p->config;
    const struct path top = {0}, sampling = {&top, "sampling"}, rules = {&sampling, "rules"};
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
            return reader_refuse(p->reader, p->rule_intervals[i], &rules,
                                 "one interval too many; write at most %d different ones, "
                                 "sampling.interval among them",
                                 CONFIG_INTERVALS_MAX);
        if (j == n)
            known[n++] = rule->interval_ns;
    }
    return 0;
}

static int parse_document(struct parse *p, const struct key_table *table, void *base)
{
    static const struct path top = {0};
    struct seen seen[KEYS_MAX] = {0};
    CLEANUP_EVENT struct event event = {0};
    int r = reader_next(p->reader, &event);
    if (r < 0)
        return r;
    if (event.is_null)
        return 0;
    if (event.kind != EVENT_SECTION)
        return reader_refuse(p->reader, event.at, NULL,
                             "keys belong here; write for example %s: %s", table->keys[0].name,
                             schema_example(&table->keys[0]));
    return parse_keys(p, &top, table, base, seen);
}

/* No document at all is as good as an empty one. */
static int parse_stream(struct parse *p, const struct key_table *table, void *base)
{
    for (size_t n_documents = 0;;) {
        CLEANUP_EVENT struct event event = {0};
        int r = reader_next(p->reader, &event);
        if (r < 0)
            return r;
        if (event.kind == EVENT_END)
            return 0;
        if (event.kind == EVENT_DOCUMENT_END)
            continue;
        if (n_documents++ > 0)
            return reader_refuse(p->reader, event.at, NULL,
                                 "a second document begins here; write all in one, without ---");
        r = parse_document(p, table, base);
        if (r < 0)
            return r;
    }
}

int parse_table(const char *name, const char *text, size_t len, const struct key_table *table,
                void *base, struct config_error *ret_error)
{
    CLEANUP(cleanup_reader_free) struct reader *reader = NULL;
    CLEANUP_FREE struct parse *p = calloc(1, sizeof *p);
    if (!p)
        return -ENOMEM;
    int r = reader_new(name, text, len, ret_error, &reader);
    if (r < 0)
        return r;
    reader_take_lines(reader);
    p->reader = reader;
    return parse_stream(p, table, base);
}

int parse_yaml(const char *name, const char *text, size_t len, struct config *config,
               struct config_error *ret_error)
{
    CLEANUP(cleanup_reader_free) struct reader *reader = NULL;
    CLEANUP_FREE struct parse *p = calloc(1, sizeof *p);
    if (!p)
        return -ENOMEM;
    int r = reader_new(name, text, len, ret_error, &reader);
    if (r < 0)
        return r;
    p->reader = reader;
    p->config = config;
    r = parse_stream(p, &schema_root, config);
    if (r == 0)
        r = check_intervals(p);
    return r;
}
