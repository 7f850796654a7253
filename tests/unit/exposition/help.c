/* SPDX-License-Identifier: Apache-2.0 */
#include "help.h"

#include <stdio.h>
#include <string.h>

#include "suites.h"

enum {
    STATISTICS_AT_LEAST = 240, /* the file is there and was read */
    TEXT_MAX = 140,
};

static FILE *open_list(void)
{
    FILE *f = fopen(TEST_SOURCE_DIR "/tests/unit/exposition/statistics.txt", "re");
    ck_assert_ptr_nonnull(f);
    return f;
}

/* The next "architecture scope name" of the list; false at its end. */
static bool next_listed(FILE *f, enum scope *ret_scope, char name[64])
{
    char line[256], scope[16];
    while (fgets(line, sizeof line, f)) {
        if (line[0] == '#')
            continue;
        ck_assert_int_eq(sscanf(line, "%*s %15s %63s", scope, name), 2);
        ck_assert(strcmp(scope, "vm") == 0 || strcmp(scope, "vcpu") == 0);
        *ret_scope = strcmp(scope, "vm") == 0 ? SCOPE_VM : SCOPE_VCPU;
        return true;
    }
    return false;
}

START_TEST(every_statistic_has_one)
{
    FILE *f = open_list();
    enum scope scope;
    char name[64];
    unsigned n = 0;
    for (; next_listed(f, &scope, name); n++)
        ck_assert_msg(help_find(scope, name) != NULL, "no help for %s", name);
    ck_assert_uint_ge(n, STATISTICS_AT_LEAST);
    fclose(f);
}
END_TEST

START_TEST(no_other_has_one)
{
    const struct help *h;
    for (size_t i = 0; (h = help_at(i)); i++) {
        FILE *f = open_list();
        enum scope scope;
        char name[64];
        bool listed = false;
        while (!listed && next_listed(f, &scope, name))
            listed = scope == h->scope && strcmp(name, h->name) == 0;
        ck_assert_msg(listed, "help for %s, which no kernel has", h->name);
        fclose(f);
    }
    ck_assert_ptr_null(help_find(SCOPE_VM, "exits"));
    ck_assert_ptr_null(help_find(SCOPE_VCPU, ""));
}
END_TEST

START_TEST(all_are_distinct)
{
    const struct help *a, *b;
    for (size_t i = 0; (a = help_at(i)); i++) {
        for (size_t j = i + 1; (b = help_at(j)); j++) {
            ck_assert_msg(a->scope != b->scope || strcmp(a->name, b->name) != 0,
                          "%s is there twice", a->name);
            ck_assert_msg(strcmp(a->text, b->text) != 0, "%s and %s have one text", a->name,
                          b->name);
        }
    }
}
END_TEST

/* A sentence of printable ASCII that needs no escaping. */
START_TEST(form)
{
    const struct help *h;
    for (size_t i = 0; (h = help_at(i)); i++) {
        size_t len = strlen(h->text);
        ck_assert_msg(len > 10 && len <= TEXT_MAX, "%s: %zu bytes", h->name, len);
        ck_assert_msg(h->text[0] >= 'A' && h->text[0] <= 'Z', "%s", h->name);
        ck_assert_msg(h->text[len - 1] == '.', "%s", h->name);
        for (size_t k = 0; k < len; k++)
            ck_assert_msg(h->text[k] >= 0x20 && h->text[k] < 0x7f && !strchr("\\\"", h->text[k]),
                          "%s: byte %zu", h->name, k);
    }
}
END_TEST

Suite *help_suite(void)
{
    Suite *suite = suite_create("help");
    TCase *tc = tcase_create("help");
    tcase_add_test(tc, every_statistic_has_one);
    tcase_add_test(tc, no_other_has_one);
    tcase_add_test(tc, all_are_distinct);
    tcase_add_test(tc, form);
    suite_add_tcase(suite, tc);
    return suite;
}
