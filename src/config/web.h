/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The web configuration: TLS, users, headers and a rate limit, in the format of Prometheus'
 * exporter toolkit, which people share between exporters. Parsed, validated, immutable. What stands
 * in the files it names is not looked at here.
 */
#pragma once

#include "config.h"

enum web_tls_version {
    WEB_TLS10,
    WEB_TLS11,
    WEB_TLS12,
    WEB_TLS13,
    WEB_TLS_VERSIONS,
};

enum web_client_auth {
    WEB_CLIENT_NONE,
    WEB_CLIENT_REQUEST,
    WEB_CLIENT_REQUIRE_ANY,
    WEB_CLIENT_VERIFY_IF_GIVEN,
    WEB_CLIENT_REQUIRE_AND_VERIFY,
    WEB_CLIENT_REQUIRE, /* an old name of REQUIRE_ANY, which is what is kept */
};

/* Go's names. Those of TLS 1.3 come first. */
enum web_cipher {
    WEB_CIPHER_13_AES_128_GCM,
    WEB_CIPHER_13_AES_256_GCM,
    WEB_CIPHER_13_CHACHA20,
    WEB_CIPHERS_13,
    WEB_CIPHER_RSA_AES_128_CBC = WEB_CIPHERS_13,
    WEB_CIPHER_RSA_AES_256_CBC,
    WEB_CIPHER_RSA_AES_128_GCM,
    WEB_CIPHER_RSA_AES_256_GCM,
    WEB_CIPHER_RSA_CHACHA20,
    WEB_CIPHER_ECDSA_AES_128_CBC,
    WEB_CIPHER_ECDSA_AES_256_CBC,
    WEB_CIPHER_ECDSA_AES_128_GCM,
    WEB_CIPHER_ECDSA_AES_256_GCM,
    WEB_CIPHER_ECDSA_CHACHA20,
    WEB_CIPHERS,
};

enum web_curve {
    WEB_CURVE_P256,
    WEB_CURVE_P384,
    WEB_CURVE_P521,
    WEB_CURVE_X25519,
    WEB_CURVES,
};

enum web_header {
    WEB_HEADER_CSP,
    WEB_HEADER_FRAME,
    WEB_HEADER_TYPE,
    WEB_HEADER_XSS,
    WEB_HEADER_HSTS,
    WEB_HEADERS,
};
/* "Content-Security-Policy" and so on. */
extern const char *const web_header_names[WEB_HEADERS];

/* Where keys stand, for what only shows when they are used. A line of 0: not there. */
enum web_place {
    WEB_PLACE_CERT,
    WEB_PLACE_KEY,
    WEB_PLACE_CLIENT_CA,
    WEB_PLACE_CERT_FILE,
    WEB_PLACE_KEY_FILE,
    WEB_PLACE_CLIENT_CA_FILE,
    WEB_PLACE_CLIENT_AUTH,
    WEB_PLACE_SANS,
    WEB_PLACE_MIN_VERSION,
    WEB_PLACE_MAX_VERSION,
    WEB_PLACE_CIPHERS,
    WEB_PLACE_PREFER,
    WEB_PLACE_CURVES,
    WEB_PLACES_TLS, /* those above are keys of tls_server_config */
    WEB_PLACE_TLS = WEB_PLACES_TLS,
    WEB_PLACE_HTTP2,
    WEB_PLACES,
};

enum {
    WEB_USERS_MAX = 1024,
    /*
     * Checking a password of this cost takes some 12 s of a CPU (10: 45 ms), and each step doubles
     * it.
     */
    WEB_COST_MAX = 18,
    WEB_COST_MIN = 4,
    WEB_HASH_BYTES = 60, /* of a bcrypt hash, "$2y$10$" and 53 characters */
};

struct web_user {
    char *name;
    char *hash; /* bcrypt: WEB_HASH_BYTES characters */
};

struct web_config {
    char *name;      /* the file's, for messages */
    uint64_t digest; /* of its text */
    struct place places[WEB_PLACES];
    struct {
        char *cert, *key, *client_ca;                /* PEM; NULL: not given */
        char *cert_file, *key_file, *client_ca_file; /* NULL: not given */
        enum web_client_auth client_auth;
        struct string_list sans; /* client_allowed_sans; none: any */
        enum web_tls_version min_version, max_version;
        size_t n_ciphers, n_curves; /* 0: the defaults */
        enum web_cipher ciphers[WEB_CIPHERS];
        enum web_curve curves[WEB_CURVES];
        bool prefer_server;
    } tls;
    bool has_tls;
    bool http2;
    char *headers[WEB_HEADERS]; /* NULL or "": not to be set */
    size_t n_users;
    struct web_user *users;
    struct {
        int64_t interval_ns; /* a token each; 0: no limit */
        uint32_t burst;
    } rate;
};

/*
 * `name` is how messages call the text, and paths in it are relative to the folder of that file.
 * Returns 0, -EINVAL with *ret_error filled, or -ENOMEM.
 */
MUST_USE int web_config_parse(const char *name, const char *text, size_t len,
                              struct web_config **ret_config, struct config_error *ret_error);
/* The same from a file; the errnos of opening it come with *ret_error filled too. */
MUST_USE int web_config_load(const char *path, struct web_config **ret_config,
                             struct config_error *ret_error);
/* Wipes what is secret. */
void web_config_free(struct web_config *config);
DEFINE_CLEANUP(struct web_config *, web_config_free)

/* Fills in what is wrong with what stands at a place that is there. Returns -EINVAL. */
int web_config_refuse(const struct web_config *config, enum web_place place,
                      struct config_error *ret_error, const char *format, ...) PRINTF_LIKE(4, 5);

/* The cost of a hash: 2^cost rounds. */
unsigned web_user_cost(const struct web_user *user);
