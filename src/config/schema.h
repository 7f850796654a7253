/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What may stand in the configuration: one table of keys a section, each with its type, range, unit
 * and default. Parsing, defaults, comparing and freeing all walk these tables, so a new key is one
 * new line here and a field in config.h. Internal to the configuration (and to its tests).
 */
#pragma once

#include "config.h"

enum key_shape {
    KEY_SCALAR,  /* one value */
    KEY_LIST,    /* values, each at most once */
    KEY_SECTION, /* keys */
    KEY_RULES,   /* a list of groups of keys, each a struct config_rule */
    KEY_PAIRS,   /* names of a person's choosing, each with a value */
};

enum {
    KEYS_MAX = 16, /* of one table */
};

struct key;
struct key_table;

/*
 * How a value is kept. `base` is the struct that holds the field: struct config, or struct
 * config_rule for the keys of a rule.
 */
struct value_type {
    size_t width; /* bytes of the field, or of one item */
    /* Reads a value into its field, or adds it to its list. Returns 0, -EINVAL or -ENOMEM. */
    int (*add)(const struct key *key, void *base, const char *text,
               struct config_error *ret_reason);
    /* Frees it and makes it 0, false, NULL or no items. */
    void (*clear)(const struct key *key, void *base);
    bool (*equal)(const struct key *key, const void *a, const void *b);
};

struct key {
    const char *name;
    enum key_shape shape;
    const struct value_type *type; /* SCALAR, LIST */
    const struct key_table *keys;  /* SECTION, RULES: what stands inside */
    size_t at;                     /* of the field, or of a list's items */
    size_t count_at;               /* of a list's number of items */
    size_t place_at; /* of a struct place that wants to know where it stands; 0: none */

    /* All values are written here as a person writes them; the unit comes with them. */
    const char *fallback; /* the default; a list's items with spaces between; NULL: absent */
    const char *example;  /* a right value, or item, for messages; NULL: the default is one */
    const char *min, *max;
    const char *off;            /* the word for 0, which is outside the range */
    const char *const *choices; /* NULL-terminated, in the order of their enum */
    int (*check)(const char *text, struct config_error *ret_reason);
    size_t min_items, max_items;
    bool lines; /* a text may have several */
    /* PAIRS. Each returns as value_type's of the same name. */
    int (*add_pair)(const struct key *key, void *base, const char *name, const char *value,
                    struct config_error *ret_reason);
    void (*clear_pairs)(const struct key *key, void *base);
};

struct key_table {
    size_t n;
    const struct key *keys;
};

extern const struct key_table schema_root; /* its base: struct config */
extern const struct key_table schema_rule; /* its base: struct config_rule */

/* One for each way of keeping a value. */
extern const struct value_type type_duration;  /* int64_t */
extern const struct value_type type_durations; /* int64_t * */
extern const struct value_type type_size;      /* uint64_t */
extern const struct value_type type_count;     /* uint32_t */
extern const struct value_type type_ints;      /* int *, kept ascending */
extern const struct value_type type_choice;    /* an enum */
extern const struct value_type type_choices;   /* an array of an enum, in the struct itself */
extern const struct value_type type_switch;    /* bool: which of two choices */
extern const struct value_type type_flags;     /* a bool for each choice, side by side */
extern const struct value_type type_string;    /* char * */
extern const struct value_type type_strings;   /* struct string_list */

/* The key of that name, or NULL. */
const struct key *schema_find(const struct key_table *table, const char *name);
/* A right value of the key, for messages. */
const char *schema_example(const struct key *key);

/* `base` holds nothing yet (all zero). Returns 0 or -ENOMEM; then schema_clear() is still due. */
MUST_USE int schema_set_defaults(const struct key_table *table, void *base);
void schema_clear(const struct key_table *table, void *base);
bool schema_equal(const struct key_table *table, const void *a, const void *b);

/* A new rule with the defaults, at the end of the list. Returns 0 or -ENOMEM. */
MUST_USE int schema_append_rule(struct config *config, struct config_rule **ret_rule);
