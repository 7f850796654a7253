/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exhausted memory: each allocation of our code fails once, and what was allocated before it must
 * be freed. The linker leads the code's calls here (extra.cmake); libyaml's own it does not.
 */
#include <stdio.h>

#include "suites.h"
#include "web.h"

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_reallocarray(void *old, size_t n, size_t size);
char *__real_strdup(const char *text);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_reallocarray(void *old, size_t n, size_t size);
char *__wrap_strdup(const char *text);

static long countdown = -1; /* allocations until one fails; below 0: none does */

static bool fails(void)
{
    return countdown >= 0 && countdown-- == 0;
}

void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return fails() ? NULL : __real_realloc(old, size);
}

void *__wrap_reallocarray(void *old, size_t n, size_t size)
{
    return fails() ? NULL : __real_reallocarray(old, n, size);
}

char *__wrap_strdup(const char *text)
{
    return fails() ? NULL : __real_strdup(text);
}

START_TEST(making_defaults)
{
    long n = 0;
    for (int r = -ENOMEM; r < 0; n++) {
        struct config *config = NULL;
        countdown = n;
        r = config_defaults(&config);
        countdown = -1;
        ck_assert(r == 0 || (r == -ENOMEM && !config));
        config_unref(config);
    }
    ck_assert_int_gt(n, 20); /* else the calls did not come here */
}
END_TEST

START_TEST(parsing)
{
    static const char text[] = "sampling: {cpu_affinity: [1, 0], rules: [{match: {vm: a, unit: b},"
                               " interval: 1s}, {match: {uuid: c}, enabled: false}]}\n"
                               "metrics: {exclude: [a, b]}\nbursts: {windows: [1s, 2s]}\n"
                               "web: {config_file: /x}\n";
    struct config *config = NULL, *want = config_of(text);
    long n = 0;
    for (int r = -ENOMEM; r < 0; n++) {
        struct config_error error = {{0}};
        countdown = n;
        r = config_parse("f.yaml", text, strlen(text), &config, &error);
        countdown = -1;
        ck_assert_msg(r == 0 || (r == -ENOMEM && !config), "%ld: %d %s", n, r, error.message);
    }
    ck_assert_int_gt(n, 60);
    ck_assert(config_equal(config, want));
    config_unref(config);
    config_unref(want);
}
END_TEST

START_TEST(loading)
{
    struct config *config = NULL;
    long n = 0;
    for (int r = -ENOMEM; r < 0; n++) {
        struct config_error error = {{0}};
        countdown = n;
        r = config_load(DEFAULT_FILE, false, &config, &error);
        countdown = -1;
        ck_assert_msg(r == 0 || (r == -ENOMEM && !config), "%ld: %d %s", n, r, error.message);
    }
    config_unref(config);
}
END_TEST

START_TEST(parsing_a_web_configuration)
{
    static const char text[] =
        "tls_server_config: {cert_file: /a, key_file: /b, client_auth_type: RequestClientCert, "
        "client_allowed_sans: [a, b]}\n"
        "http_server_config: {headers: {X-Frame-Options: deny}}\n"
        "basic_auth_users:\n"
        "  a: $2y$10$abcdefghijklmnopqrstuuabcdefghijklmnopqrstuvwxyz01234\n"
        "  b: $2y$10$abcdefghijklmnopqrstuuabcdefghijklmnopqrstuvwxyz01234\n";
    struct web_config *config = NULL;
    long n = 0;
    for (int r = -ENOMEM; r < 0; n++) {
        struct config_error error = {{0}};
        countdown = n;
        r = web_config_parse("/w.yaml", text, strlen(text), &config, &error);
        countdown = -1;
        ck_assert_msg(r == 0 || (r == -ENOMEM && !config), "%ld: %d %s", n, r, error.message);
    }
    ck_assert_int_gt(n, 30); /* else the calls did not come here */
    ck_assert_uint_eq(config->n_users, 2);
    web_config_free(config);
}
END_TEST

START_TEST(setting_listen)
{
    char first[] = ":1", second[] = ":2";
    char *items[] = {first, second};
    struct config *config = config_of(""), *defaults = config_of("");
    long n = 0;
    for (int r = -ENOMEM; r < 0; n++) {
        countdown = n;
        r = config_set_listen(config, &(struct string_list){2, items});
        countdown = -1;
        ck_assert(r == 0 || (r == -ENOMEM && config_equal(config, defaults)));
    }
    ck_assert_int_ge(n, 4); /* more where a static C library's own calls are caught, too */
    config_unref(config);
    config_unref(defaults);
}
END_TEST

Suite *suite_memory(void)
{
    Suite *suite = suite_create("memory");
    TCase *tc = tcase_create("memory");
    tcase_add_test(tc, making_defaults);
    tcase_add_test(tc, parsing);
    tcase_add_test(tc, loading);
    tcase_add_test(tc, parsing_a_web_configuration);
    tcase_add_test(tc, setting_listen);
    suite_add_tcase(suite, tc);
    return suite;
}
