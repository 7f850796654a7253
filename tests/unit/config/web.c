/* SPDX-License-Identifier: Apache-2.0 */
/* The web configuration. What is refused, and with what words, tests/system/test_web_config.py
 * tells. */
#include "web.h"

#include <stdio.h>

#include "clock.h"
#include "suites.h"

#define HASH "$2y$12$abcdefghijklmnopqrstuuabcdefghijklmnopqrstuvwxyz01234"

static struct web_config *web_of(const char *name, const char *text)
{
    struct web_config *config = NULL;
    struct config_error error = {{0}};
    int r = web_config_parse(name, text, strlen(text), &config, &error);
    ck_assert_msg(r == 0, "%d: %s\n%s", r, error.message, text);
    return config;
}

START_TEST(defaults_are_the_toolkits)
{
    struct web_config *config = web_of("w.yaml", "# nothing\n");
    ck_assert(!config->has_tls);
    ck_assert_uint_eq(config->n_users, 0);
    ck_assert_int_eq(config->rate.interval_ns, 0);
    ck_assert_int_eq(config->tls.min_version, WEB_TLS12);
    ck_assert_int_eq(config->tls.max_version, WEB_TLS13);
    ck_assert_int_eq(config->tls.client_auth, WEB_CLIENT_NONE);
    ck_assert(config->tls.prefer_server);
    ck_assert(config->http2);
    ck_assert_uint_eq(config->places[WEB_PLACE_HTTP2].line, 0);
    web_config_free(config);
}
END_TEST

START_TEST(paths_are_relative_to_the_file)
{
    static const struct {
        const char *name, *path, *expected;
    } cases[] = {
        {"/etc/kvmstatd/web.yaml", "server.crt", "/etc/kvmstatd/server.crt"},
        {"/etc/kvmstatd/web.yaml", "../ssl/a.crt", "/etc/kvmstatd/../ssl/a.crt"},
        {"/etc/kvmstatd/web.yaml", "/srv/a.crt", "/srv/a.crt"},
        {"conf/web.yaml", "a.crt", "conf/a.crt"},
        {"web.yaml", "a.crt", "a.crt"},
        {"/web.yaml", "a.crt", "/a.crt"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char text[256];
        (void)snprintf(text, sizeof text, "tls_server_config: {cert_file: %s, key_file: k}\n",
                       cases[i].path);
        struct web_config *config = web_of(cases[i].name, text);
        ck_assert_str_eq(config->tls.cert_file, cases[i].expected);
        web_config_free(config);
    }
}
END_TEST

START_TEST(everything_is_kept)
{
    struct web_config *config =
        web_of("/w", "tls_server_config:\n  cert: |\n    -----BEGIN C\n    x\n  key_file: k\n"
                     "  client_auth_type: RequireClientCert\n  client_allowed_sans: [a, b]\n"
                     "  min_version: TLS10\n  max_version: TLS12\n"
                     "  cipher_suites: [TLS_AES_256_GCM_SHA384, "
                     "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256]\n"
                     "  prefer_server_cipher_suites: false\n  curve_preferences: [X25519]\n"
                     "http_server_config: {http2: false, headers: {X-XSS-Protection: 1}}\n"
                     "basic_auth_users: {a: " HASH ", 'b c': \"" HASH "\"}\n"
                     "rate_limit: {interval: 1m30.5s, burst: 7}\n");
    ck_assert(config->has_tls);
    ck_assert_str_eq(config->tls.cert, "-----BEGIN C\nx\n");
    ck_assert_int_eq(config->tls.client_auth, WEB_CLIENT_REQUIRE_ANY);
    ck_assert_uint_eq(config->tls.sans.n, 2);
    ck_assert_str_eq(config->tls.sans.items[1], "b");
    ck_assert_int_eq(config->tls.min_version, WEB_TLS10);
    ck_assert_int_eq(config->tls.max_version, WEB_TLS12);
    ck_assert_uint_eq(config->tls.n_ciphers, 2);
    ck_assert_int_eq(config->tls.ciphers[0], WEB_CIPHER_13_AES_256_GCM);
    ck_assert_int_eq(config->tls.ciphers[1], WEB_CIPHER_ECDSA_CHACHA20);
    ck_assert(!config->tls.prefer_server);
    ck_assert_int_eq(config->tls.curves[0], WEB_CURVE_X25519);
    ck_assert(!config->http2);
    ck_assert_uint_eq(config->places[WEB_PLACE_HTTP2].line, 13);
    ck_assert_str_eq(config->headers[WEB_HEADER_XSS], "1");
    ck_assert_ptr_null(config->headers[WEB_HEADER_CSP]);
    ck_assert_uint_eq(config->n_users, 2);
    ck_assert_str_eq(config->users[1].name, "b c");
    ck_assert_uint_eq(web_user_cost(&config->users[1]), 12);
    ck_assert_int_eq(config->rate.interval_ns, 90500 * NSEC_PER_MSEC);
    ck_assert_uint_eq(config->rate.burst, 7);
    web_config_free(config);
}
END_TEST

START_TEST(a_place_is_told)
{
    struct config_error error;
    struct web_config *config = web_of("/w", "tls_server_config:\n  key_file: k\n  cert_file: c\n");
    ck_assert_int_eq(web_config_refuse(config, WEB_PLACE_CERT_FILE, &error, "no %d", 7), -EINVAL);
    ck_assert_str_eq(error.message, "/w:3:14: tls_server_config.cert_file: no 7");
    (void)web_config_refuse(config, WEB_PLACE_TLS, &error, "no");
    ck_assert_str_eq(error.message, "/w:2:3: tls_server_config: no");
    web_config_free(config);
}
END_TEST

Suite *suite_web(void)
{
    Suite *suite = suite_create("web");
    TCase *tc = tcase_create("web");
    tcase_add_test(tc, defaults_are_the_toolkits);
    tcase_add_test(tc, paths_are_relative_to_the_file);
    tcase_add_test(tc, everything_is_kept);
    tcase_add_test(tc, a_place_is_told);
    suite_add_tcase(suite, tc);
    return suite;
}
