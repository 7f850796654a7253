/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ways of keeping a value. Fields are found by offset, so nothing here knows a key by name;
 * what a field's C type is stands beside its value_type in schema.h, and a test sets and reads each
 * key.
 */
#include <assert.h>
#include <string.h>

#include "schema.h"
#include "values.h"
#include "words.h"

typedef int number_reader(const char *text, const char *example, int64_t *ret_value,
                          struct config_error *ret_reason);

static void *field_of(const struct key *key, void *base)
{
    return (char *)base + key->at;
}

static const void *field_in(const struct key *key, const void *base)
{
    return (const char *)base + key->at;
}

static size_t *count_of(const struct key *key, void *base)
{
    return (size_t *)(void *)((char *)base + key->count_at);
}

static size_t count_in(const struct key *key, const void *base)
{
    return *(const size_t *)(const void *)((const char *)base + key->count_at);
}

/* Pointers of any type are carried by memcpy(): an int * is not a void * to the compiler. */
static void *load_pointer(const void *field)
{
    void *pointer;
    memcpy(&pointer, field, sizeof pointer);
    return pointer;
}

static void store_pointer(void *field, void *pointer)
{
    memcpy(field, &pointer, sizeof pointer);
}

/* Plain fields and their comparison. */

static void flat_clear(const struct key *key, void *base)
{
    memset(field_of(key, base), 0, key->type->width);
}

static bool flat_equal(const struct key *key, const void *a, const void *b)
{
    return memcmp(field_in(key, a), field_in(key, b), key->type->width) == 0;
}

/* Lists in memory of their own. */

/* Puts an item of the type's width at place `index`, the later ones one place on. */
static int array_insert(const struct key *key, void *base, size_t index, const void *item)
{
    size_t n = *count_of(key, base), width = key->type->width;
    char *items = reallocarray(load_pointer(field_of(key, base)), n + 1, width);
    if (!items)
        return -ENOMEM;
    store_pointer(field_of(key, base), items);
    memmove(items + (index + 1) * width, items + index * width, (n - index) * width);
    memcpy(items + index * width, item, width);
    *count_of(key, base) = n + 1;
    return 0;
}

static void array_clear(const struct key *key, void *base)
{
    free(load_pointer(field_of(key, base)));
    store_pointer(field_of(key, base), NULL);
    *count_of(key, base) = 0;
}

static bool array_equal(const struct key *key, const void *a, const void *b)
{
    size_t n = count_in(key, a);
    return n == count_in(key, b) &&
           (n == 0 || memcmp(load_pointer(field_in(key, a)), load_pointer(field_in(key, b)),
                             n * key->type->width) == 0);
}

static int refuse_repeat(const char *text, struct config_error *ret_reason)
{
    return reason_set(ret_reason, "%s stands here twice; write it once", quoted(text).text);
}

/* Numbers. */

/* A bound of the schema: that it reads is our own promise. */
static int64_t bound(number_reader *read, const char *text)
{
    struct config_error ignored;
    int64_t value = 0;
    int r = read(text, text, &value, &ignored);
    assert(r == 0);
    (void)r;
    return value;
}

static int read_number(const struct key *key, number_reader *read, const char *text,
                       int64_t *ret_value, struct config_error *ret_reason)
{
    int64_t value;
    if (key->off && strcmp(text, key->off) == 0) {
        *ret_value = 0;
        return 0;
    }
    int r = read(text, schema_example(key), &value, ret_reason);
    if (r < 0)
        return r == -ERANGE ? -EINVAL : r;

    bool below = value < bound(read, key->min);
    if (below || value > bound(read, key->max))
        return reason_set(ret_reason, "%s is %s; write %s to %s%s%s", quoted(text).text,
                          below ? "too small" : "too large", key->min, key->max,
                          key->off ? ", or " : "", key->off ? key->off : "");
    *ret_value = value;
    return 0;
}

static int duration_add(const struct key *key, void *base, const char *text,
                        struct config_error *ret_reason)
{
    return read_number(key, value_duration, text, field_of(key, base), ret_reason);
}

const struct value_type type_duration = {
    .width = sizeof(int64_t),
    .add = duration_add,
    .clear = flat_clear,
    .equal = flat_equal,
};

static int durations_add(const struct key *key, void *base, const char *text,
                         struct config_error *ret_reason)
{
    const int64_t *items = load_pointer(field_of(key, base));
    size_t n = *count_of(key, base);
    int64_t value;
    int r = read_number(key, value_duration, text, &value, ret_reason);
    if (r < 0)
        return r;
    for (size_t i = 0; i < n; i++) {
        if (items[i] == value) /* 60s is 1m */
            return refuse_repeat(text, ret_reason);
    }
    return array_insert(key, base, n, &value);
}

const struct value_type type_durations = {
    .width = sizeof(int64_t),
    .add = durations_add,
    .clear = array_clear,
    .equal = array_equal,
};

static int size_add(const struct key *key, void *base, const char *text,
                    struct config_error *ret_reason)
{
    int64_t value;
    int r = read_number(key, value_size, text, &value, ret_reason);
    if (r == 0)
        *(uint64_t *)field_of(key, base) = (uint64_t)value;
    return r;
}

const struct value_type type_size = {
    .width = sizeof(uint64_t),
    .add = size_add,
    .clear = flat_clear,
    .equal = flat_equal,
};

static int count_add(const struct key *key, void *base, const char *text,
                     struct config_error *ret_reason)
{
    int64_t value;
    int r = read_number(key, value_count, text, &value, ret_reason);
    if (r == 0)
        *(uint32_t *)field_of(key, base) = (uint32_t)value;
    return r;
}

const struct value_type type_count = {
    .width = sizeof(uint32_t),
    .add = count_add,
    .clear = flat_clear,
    .equal = flat_equal,
};

/* A set of numbers: kept ascending, so that two orders of the same CPUs are the same. */
static int ints_add(const struct key *key, void *base, const char *text,
                    struct config_error *ret_reason)
{
    const int *items = load_pointer(field_of(key, base));
    size_t n = *count_of(key, base), index = 0;
    int64_t value;
    int r = read_number(key, value_count, text, &value, ret_reason);
    if (r < 0)
        return r;
    while (index < n && items[index] < value)
        index++;
    if (index < n && items[index] == value)
        return refuse_repeat(text, ret_reason);
    int item = (int)value;
    return array_insert(key, base, index, &item);
}

const struct value_type type_ints = {
    .width = sizeof(int),
    .add = ints_add,
    .clear = array_clear,
    .equal = array_equal,
};

/* Choices. */

/* What people write for true and false elsewhere, YAML 1.1 among it. */
static const char *meant_boolean(const char *text)
{
    static const char *const words[][2] = {{"yes", "no"}, {"on", "off"}, {"y", "n"},
                                           {"1", "0"},    {"t", "f"},    {"true", "false"}};
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (strcasecmp(text, words[i][0]) == 0)
            return "true";
        if (strcasecmp(text, words[i][1]) == 0)
            return "false";
    }
    return NULL;
}

static int read_choice(const struct key *key, const char *text, unsigned *ret_choice,
                       struct config_error *ret_reason)
{
    for (unsigned i = 0; key->choices[i]; i++) {
        if (strcmp(text, key->choices[i]) == 0) {
            *ret_choice = i;
            return 0;
        }
    }
    const char *meant = meant_boolean(text);
    for (unsigned i = 0; meant && key->choices[i]; i++) {
        if (strcmp(meant, key->choices[i]) == 0)
            return reason_set(ret_reason, "%s is not a choice; write %s", quoted(text).text, meant);
    }
    meant = words_nearest(text, key->choices);
    return reason_set(ret_reason, "%s is not a choice; write %s%s%s%s", quoted(text).text,
                      words_join(key->choices, " or ").text, meant ? " (did you mean " : "",
                      meant ? meant : "", meant ? "?)" : "");
}

static int choice_add(const struct key *key, void *base, const char *text,
                      struct config_error *ret_reason)
{
    return read_choice(key, text, field_of(key, base), ret_reason);
}

const struct value_type type_choice = {
    .width = sizeof(unsigned),
    .add = choice_add,
    .clear = flat_clear,
    .equal = flat_equal,
};

/* max_items is the size of the array: the caller refuses more, and a repeat is refused here. */
static int choices_add(const struct key *key, void *base, const char *text,
                       struct config_error *ret_reason)
{
    unsigned *items = field_of(key, base), choice;
    size_t *n = count_of(key, base);
    int r = read_choice(key, text, &choice, ret_reason);
    if (r < 0)
        return r;
    for (size_t i = 0; i < *n; i++) {
        if (items[i] == choice)
            return refuse_repeat(text, ret_reason);
    }
    assert(*n < key->max_items);
    items[(*n)++] = choice;
    return 0;
}

static void choices_clear(const struct key *key, void *base)
{
    memset(field_of(key, base), 0, key->max_items * key->type->width);
    *count_of(key, base) = 0;
}

static bool choices_equal(const struct key *key, const void *a, const void *b)
{
    size_t n = count_in(key, a);
    return n == count_in(key, b) &&
           memcmp(field_in(key, a), field_in(key, b), n * key->type->width) == 0;
}

const struct value_type type_choices = {
    .width = sizeof(unsigned),
    .add = choices_add,
    .clear = choices_clear,
    .equal = choices_equal,
};

static int switch_add(const struct key *key, void *base, const char *text,
                      struct config_error *ret_reason)
{
    unsigned choice;
    int r = read_choice(key, text, &choice, ret_reason);
    if (r == 0)
        *(bool *)field_of(key, base) = choice == 1;
    return r;
}

const struct value_type type_switch = {
    .width = sizeof(bool),
    .add = switch_add,
    .clear = flat_clear,
    .equal = flat_equal,
};

static int flags_add(const struct key *key, void *base, const char *text,
                     struct config_error *ret_reason)
{
    bool *flags = field_of(key, base);
    unsigned choice;
    int r = read_choice(key, text, &choice, ret_reason);
    if (r < 0)
        return r;
    if (flags[choice])
        return refuse_repeat(text, ret_reason);
    flags[choice] = true;
    return 0;
}

static void flags_clear(const struct key *key, void *base)
{
    memset(field_of(key, base), 0, key->max_items * key->type->width);
}

static bool flags_equal(const struct key *key, const void *a, const void *b)
{
    return memcmp(field_in(key, a), field_in(key, b), key->max_items * key->type->width) == 0;
}

const struct value_type type_flags = {
    .width = sizeof(bool),
    .add = flags_add,
    .clear = flags_clear,
    .equal = flags_equal,
};

/* Texts. */

static int string_add(const struct key *key, void *base, const char *text,
                      struct config_error *ret_reason)
{
    int r = key->check(text, ret_reason);
    if (r < 0)
        return r;
    char *copy = strdup(text);
    if (!copy)
        return -ENOMEM;
    store_pointer(field_of(key, base), copy);
    return 0;
}

static void string_clear(const struct key *key, void *base)
{
    free(load_pointer(field_of(key, base)));
    store_pointer(field_of(key, base), NULL);
}

static bool string_equal(const struct key *key, const void *a, const void *b)
{
    const char *text_a = load_pointer(field_in(key, a)), *text_b = load_pointer(field_in(key, b));
    return text_a && text_b ? strcmp(text_a, text_b) == 0 : text_a == text_b;
}

const struct value_type type_string = {
    .width = sizeof(char *),
    .add = string_add,
    .clear = string_clear,
    .equal = string_equal,
};

static int strings_add(const struct key *key, void *base, const char *text,
                       struct config_error *ret_reason)
{
    char *const *items = load_pointer(field_of(key, base));
    size_t n = *count_of(key, base);
    int r = key->check(text, ret_reason);
    if (r < 0)
        return r;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(items[i], text) == 0)
            return refuse_repeat(text, ret_reason);
    }
    char *copy = strdup(text);
    if (!copy)
        return -ENOMEM;
    r = array_insert(key, base, n, &copy);
    if (r < 0)
        free(copy);
    return r;
}

static void strings_clear(const struct key *key, void *base)
{
    char **items = load_pointer(field_of(key, base));
    for (size_t i = 0; i < *count_of(key, base); i++)
        free(items[i]);
    array_clear(key, base);
}

static bool strings_equal(const struct key *key, const void *a, const void *b)
{
    char *const *items_a = load_pointer(field_in(key, a));
    char *const *items_b = load_pointer(field_in(key, b));
    size_t n = count_in(key, a);
    if (n != count_in(key, b))
        return false;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(items_a[i], items_b[i]) != 0)
            return false;
    }
    return true;
}

const struct value_type type_strings = {
    .width = sizeof(char *),
    .add = strings_add,
    .clear = strings_clear,
    .equal = strings_equal,
};
