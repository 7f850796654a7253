/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables of the web configuration's keys, and what holds between keys. Where the toolkit takes
 * something without a word that has no effect (a minimum version without a certificate, say), it is
 * refused here: who writes it believes to be protected by it.
 */
#include "web.h"

#include <assert.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "digest.h"
#include "file.h"
#include "parse.h"
#include "reader.h"
#include "values.h"
#include "words.h"

#define TABLE(array)                           \
    {                                          \
        .n = ARRAY_LEN(array), .keys = (array) \
    }
#define FIELD(field)     .at = offsetof(struct web_config, field)
#define COUNT(field)     .count_at = offsetof(struct web_config, field)
#define PLACE(which)     .place_at = offsetof(struct web_config, places[which])
#define SCALAR(of_type)  .shape = KEY_SCALAR, .type = &(of_type)
#define LIST(of_type)    .shape = KEY_LIST, .type = &(of_type)
#define SECTION(keys_of) .shape = KEY_SECTION, .keys = &(keys_of)

enum {
    SANS_MAX = 1024,
    PEM_BYTES = 256 * 1024, /* of inline text; a chain has some kilobytes */
    HEADER_BYTES = 4096,
    USER_BYTES = 255,
};

static_assert(offsetof(struct web_config, places) > 0, "an offset of 0 is no place");
static_assert(sizeof(enum web_cipher) == sizeof(unsigned) &&
                  sizeof(enum web_curve) == sizeof(unsigned) &&
                  sizeof(enum web_tls_version) == sizeof(unsigned) &&
                  sizeof(enum web_client_auth) == sizeof(unsigned),
              "type_choice and type_choices keep an enum as an unsigned int");

static const char *const booleans[] = {"false", "true", NULL};
static const char *const version_choices[] = {"TLS10", "TLS11", "TLS12", "TLS13", NULL};
static const char *const client_auth_choices[] = {
    [WEB_CLIENT_NONE] = "NoClientCert",
    [WEB_CLIENT_REQUEST] = "RequestClientCert",
    [WEB_CLIENT_REQUIRE_ANY] = "RequireAnyClientCert",
    [WEB_CLIENT_VERIFY_IF_GIVEN] = "VerifyClientCertIfGiven",
    [WEB_CLIENT_REQUIRE_AND_VERIFY] = "RequireAndVerifyClientCert",
    [WEB_CLIENT_REQUIRE] = "RequireClientCert",
    NULL,
};
static const char *const cipher_choices[] = {
    [WEB_CIPHER_13_AES_128_GCM] = "TLS_AES_128_GCM_SHA256",
    [WEB_CIPHER_13_AES_256_GCM] = "TLS_AES_256_GCM_SHA384",
    [WEB_CIPHER_13_CHACHA20] = "TLS_CHACHA20_POLY1305_SHA256",
    [WEB_CIPHER_RSA_AES_128_CBC] = "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    [WEB_CIPHER_RSA_AES_256_CBC] = "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    [WEB_CIPHER_RSA_AES_128_GCM] = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    [WEB_CIPHER_RSA_AES_256_GCM] = "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    [WEB_CIPHER_RSA_CHACHA20] = "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    [WEB_CIPHER_ECDSA_AES_128_CBC] = "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    [WEB_CIPHER_ECDSA_AES_256_CBC] = "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    [WEB_CIPHER_ECDSA_AES_128_GCM] = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    [WEB_CIPHER_ECDSA_AES_256_GCM] = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    [WEB_CIPHER_ECDSA_CHACHA20] = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    NULL,
};
static const char *const curve_choices[] = {"CurveP256", "CurveP384", "CurveP521", "X25519", NULL};
static const char *const frame_choices[] = {"", "deny", "sameorigin", NULL};
static const char *const type_choices_[] = {"", "nosniff", NULL};

const char *const web_header_names[WEB_HEADERS] = {
    [WEB_HEADER_CSP] = "Content-Security-Policy",    [WEB_HEADER_FRAME] = "X-Frame-Options",
    [WEB_HEADER_TYPE] = "X-Content-Type-Options",    [WEB_HEADER_XSS] = "X-XSS-Protection",
    [WEB_HEADER_HSTS] = "Strict-Transport-Security",
};

/* Texts. */

static int check_pem(const char *text, struct config_error *ret_reason)
{
    /* Of a private key nothing may stand in a message. */
    if (strncmp(text, "-----BEGIN ", strlen("-----BEGIN ")) != 0)
        return reason_set(ret_reason, "not PEM: it does not begin with -----BEGIN; write the text "
                                      "under a | or name its file by the key that ends in _file");
    if (strlen(text) > PEM_BYTES)
        return reason_set(ret_reason, "more than %d bytes; name a file instead", PEM_BYTES);
    return 0;
}

static int check_path(const char *text, struct config_error *ret_reason)
{
    if (strlen(text) >= PATH_MAX)
        return reason_set(ret_reason, "longer than a path can be, %d bytes", PATH_MAX - 1);
    return 0;
}

static int check_san(const char *text, struct config_error *ret_reason)
{
    if (text[0] == '\0')
        return reason_set(ret_reason, "an empty name; write a DNS name, an e-mail address, an IP "
                                      "address or a URI");
    return 0;
}

static int check_header(const char *text, struct config_error *ret_reason)
{
    for (size_t i = 0; text[i]; i++) {
        if ((unsigned char)text[i] < 0x20 || (unsigned char)text[i] >= 0x7f)
            return reason_set(ret_reason, "%s is not printable ASCII, as a header must be",
                              quoted(text).text);
    }
    if (strlen(text) > HEADER_BYTES)
        return reason_set(ret_reason, "longer than %d bytes", HEADER_BYTES);
    return 0;
}

static int check_word(const char *text, const char *const *words, struct config_error *ret_reason)
{
    for (size_t i = 0; words[i]; i++) {
        if (strcmp(text, words[i]) == 0)
            return 0;
    }
    return reason_set(ret_reason, "%s is not a choice; write %s", quoted(text).text,
                      words_join(words + 1, " or ").text);
}

static int check_frame(const char *text, struct config_error *ret_reason)
{
    return check_word(text, frame_choices, ret_reason);
}

static int check_type(const char *text, struct config_error *ret_reason)
{
    return check_word(text, type_choices_, ret_reason);
}

/* Go's durations: several numbers with units may stand one after another, and 0 needs none. */
static int interval_add(const struct key *key, void *base, const char *text,
                        struct config_error *ret_reason)
{
    int64_t sum_ns = 0, part_ns;
    char part[32];
    if (strcmp(text, "0") == 0)
        text = "0s";
    for (const char *at = text; at == text || *at;) {
        size_t len = strspn(at, "0123456789.");
        len += strcspn(at + len, "0123456789.");
        (void)snprintf(part, sizeof part, "%.*s", (int)MIN_OF(len, sizeof part), at);
        int r = value_duration(len < sizeof part ? part : text, key->example, &part_ns, ret_reason);
        if (r < 0)
            return -EINVAL;
        if (__builtin_add_overflow(sum_ns, part_ns, &sum_ns))
            return reason_set(ret_reason, "%s is too large", quoted(text).text);
        at += len;
    }
    memcpy((char *)base + key->at, &sum_ns, sizeof sum_ns);
    return 0;
}

static void interval_clear(const struct key *key, void *base)
{
    memset((char *)base + key->at, 0, sizeof(int64_t));
}

static const struct value_type type_interval = {
    .width = sizeof(int64_t),
    .add = interval_add,
    .clear = interval_clear,
};

/* Users. The hash is never quoted: where somebody wrote a password instead, it would be in the log.
 */

static bool is_bcrypt(const char *hash)
{
    static const char alphabet[] =
        "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    return strlen(hash) == WEB_HASH_BYTES && hash[0] == '$' && hash[1] == '2' &&
           strchr("aby", hash[2]) && hash[3] == '$' && strspn(hash + 4, "0123456789") == 2 &&
           hash[6] == '$' && strspn(hash + 7, alphabet) == WEB_HASH_BYTES - 7;
}

unsigned web_user_cost(const struct web_user *user)
{
    return (unsigned)(user->hash[4] - '0') * 10 + (unsigned)(user->hash[5] - '0');
}

static int check_user_pair(const struct web_config *config, const struct web_user *user,
                           struct config_error *ret_reason)
{
    if (user->name[0] == '\0' || strlen(user->name) > USER_BYTES || strchr(user->name, ':'))
        return reason_set(ret_reason,
                          "%s cannot be a user's name: write 1 to %d bytes without a colon",
                          quoted(user->name).text, USER_BYTES);
    for (size_t i = 0; i < config->n_users; i++) {
        if (strcmp(config->users[i].name, user->name) == 0)
            return reason_set(ret_reason, "the user %s stands here twice", quoted(user->name).text);
    }
    if (!is_bcrypt(user->hash))
        return reason_set(ret_reason,
                          "what stands for %s is not a bcrypt hash ($2a$, $2b$ or $2y$, %d "
                          "characters); make one with: htpasswd -nBC 10 \"\" | tr -d ':\\n'",
                          quoted(user->name).text, WEB_HASH_BYTES);
    unsigned cost = web_user_cost(user);
    if (cost < WEB_COST_MIN || cost > WEB_COST_MAX)
        return reason_set(ret_reason, "the hash of %s has cost %u; make one of %d to %d",
                          quoted(user->name).text, cost, WEB_COST_MIN, WEB_COST_MAX);
    return 0;
}

static int user_add(const struct key *key, void *base, const char *name, const char *value,
                    struct config_error *ret_reason)
{
    struct web_config *config = base;
    const struct web_user given = {(char *)(uintptr_t)name, (char *)(uintptr_t)value};
    (void)key;
    int r = check_user_pair(config, &given, ret_reason);
    if (r < 0)
        return r;
    struct web_user *users = reallocarray(config->users, config->n_users + 1, sizeof *users);
    if (!users)
        return -ENOMEM;
    config->users = users;
    struct web_user *user = &users[config->n_users];
    *user = (struct web_user){strdup(name), strdup(value)};
    config->n_users++; /* also a half one: it is freed with the rest */
    return user->name && user->hash ? 0 : -ENOMEM;
}

static void users_clear(const struct key *key, void *base)
{
    struct web_config *config = base;
    (void)key;
    for (size_t i = 0; i < config->n_users; i++) {
        free(config->users[i].name);
        if (config->users[i].hash)
            explicit_bzero(config->users[i].hash, strlen(config->users[i].hash));
        free(config->users[i].hash);
    }
    free(config->users);
    config->users = NULL;
    config->n_users = 0;
}

/* The tables. */

#define PEM_KEY(key_name, field, which)                                                     \
    {                                                                                       \
        .name = (key_name), SCALAR(type_string), FIELD(field), PLACE(which), .lines = true, \
        .check = check_pem, .example = "| and the PEM text below it"                        \
    }
#define FILE_KEY(key_name, field, which, of_example)                                              \
    {                                                                                             \
        .name = (key_name), SCALAR(type_string), FIELD(field), PLACE(which), .check = check_path, \
        .example = (of_example)                                                                   \
    }

static const struct key tls_keys[] = {
    FILE_KEY("cert_file", tls.cert_file, WEB_PLACE_CERT_FILE, "server.crt"),
    FILE_KEY("key_file", tls.key_file, WEB_PLACE_KEY_FILE, "server.key"),
    PEM_KEY("cert", tls.cert, WEB_PLACE_CERT),
    PEM_KEY("key", tls.key, WEB_PLACE_KEY),
    {.name = "client_auth_type",
     SCALAR(type_choice),
     FIELD(tls.client_auth),
     PLACE(WEB_PLACE_CLIENT_AUTH),
     .choices = client_auth_choices,
     .fallback = "NoClientCert"},
    FILE_KEY("client_ca_file", tls.client_ca_file, WEB_PLACE_CLIENT_CA_FILE, "ca.crt"),
    PEM_KEY("client_ca", tls.client_ca, WEB_PLACE_CLIENT_CA),
    {.name = "client_allowed_sans",
     LIST(type_strings),
     FIELD(tls.sans.items),
     COUNT(tls.sans.n),
     PLACE(WEB_PLACE_SANS),
     .check = check_san,
     .min_items = 1,
     .max_items = SANS_MAX,
     .example = "prometheus.example.org"},
    {.name = "min_version",
     SCALAR(type_choice),
     FIELD(tls.min_version),
     PLACE(WEB_PLACE_MIN_VERSION),
     .choices = version_choices,
     .fallback = "TLS12"},
    {.name = "max_version",
     SCALAR(type_choice),
     FIELD(tls.max_version),
     PLACE(WEB_PLACE_MAX_VERSION),
     .choices = version_choices,
     .fallback = "TLS13"},
    {.name = "cipher_suites",
     LIST(type_choices),
     FIELD(tls.ciphers),
     COUNT(tls.n_ciphers),
     PLACE(WEB_PLACE_CIPHERS),
     .choices = cipher_choices,
     .max_items = WEB_CIPHERS,
     .example = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"},
    {.name = "prefer_server_cipher_suites",
     SCALAR(type_switch),
     FIELD(tls.prefer_server),
     PLACE(WEB_PLACE_PREFER),
     .choices = booleans,
     .fallback = "true"},
    {.name = "curve_preferences",
     LIST(type_choices),
     FIELD(tls.curves),
     COUNT(tls.n_curves),
     PLACE(WEB_PLACE_CURVES),
     .choices = curve_choices,
     .max_items = WEB_CURVES,
     .example = "X25519"},
};
static const struct key_table tls_table = TABLE(tls_keys);

#define HEADER_KEY(key_name, which, of_check, of_example)                                    \
    {                                                                                        \
        .name = (key_name), SCALAR(type_string), FIELD(headers[which]), .check = (of_check), \
        .example = (of_example)                                                              \
    }

static const struct key header_keys[] = {
    HEADER_KEY("Content-Security-Policy", WEB_HEADER_CSP, check_header, "\"default-src 'self'\""),
    HEADER_KEY("X-Frame-Options", WEB_HEADER_FRAME, check_frame, "deny"),
    HEADER_KEY("X-Content-Type-Options", WEB_HEADER_TYPE, check_type, "nosniff"),
    HEADER_KEY("X-XSS-Protection", WEB_HEADER_XSS, check_header, "\"1; mode=block\""),
    HEADER_KEY("Strict-Transport-Security", WEB_HEADER_HSTS, check_header, "max-age=31536000"),
};
static const struct key_table header_table = TABLE(header_keys);

static const struct key http_keys[] = {
    {.name = "http2",
     SCALAR(type_switch),
     FIELD(http2),
     PLACE(WEB_PLACE_HTTP2),
     .choices = booleans,
     .fallback = "true"},
    {.name = "headers", SECTION(header_table), .example = "{X-Frame-Options: deny}"},
};
static const struct key_table http_table = TABLE(http_keys);

static const struct key rate_keys[] = {
    {.name = "interval", SCALAR(type_interval), FIELD(rate.interval_ns), .example = "1s"},
    {.name = "burst",
     SCALAR(type_count),
     FIELD(rate.burst),
     .min = "0",
     .max = "1000000000",
     .fallback = "0"},
};
static const struct key_table rate_table = TABLE(rate_keys);

static const struct key root_keys[] = {
    {.name = "tls_server_config",
     SECTION(tls_table),
     PLACE(WEB_PLACE_TLS),
     .example = "{cert_file: server.crt, key_file: server.key}"},
    {.name = "http_server_config", SECTION(http_table), .example = "{http2: false}"},
    {.name = "basic_auth_users",
     .shape = KEY_PAIRS,
     .add_pair = user_add,
     .clear_pairs = users_clear,
     .max_items = WEB_USERS_MAX,
     .example = "{prometheus: $2y$10$...}"},
    {.name = "rate_limit", SECTION(rate_table), .example = "{interval: 1s, burst: 20}"},
};
static const struct key_table root_table = TABLE(root_keys);

/* What holds between keys. */

int web_config_refuse(const struct web_config *config, enum web_place place,
                      struct config_error *ret_error, const char *format, ...)
{
    char why[sizeof ret_error->message];
    const char *key = "tls_server_config";
    const char *dot = "";
    const struct place *at = &config->places[place];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(why, sizeof why, format, args);
    va_end(args);
    for (size_t i = 0; i < ARRAY_LEN(tls_keys); i++) {
        if (tls_keys[i].place_at == offsetof(struct web_config, places) + place * sizeof *at) {
            dot = ".";
            key = tls_keys[i].name;
        }
    }
    return refuse_at(config->name, *at, ret_error, "%s%s%s: %s", *dot ? "tls_server_config" : "",
                     dot, key, why);
}

static int check_one_of(const struct web_config *config, enum web_place text, enum web_place file,
                        const char *name, struct config_error *ret_error)
{
    const bool has_text = config->places[text].line, has_file = config->places[file].line;
    if (has_text && has_file)
        return web_config_refuse(config, text, ret_error,
                                 "%s_file stands here too; keep one of them", name);
    if (!has_text && !has_file)
        return web_config_refuse(config, WEB_PLACE_TLS, ret_error,
                                 "%s_file is missing; write for example %s_file: server.%s", name,
                                 name, strcmp(name, "key") == 0 ? "key" : "crt");
    return 0;
}

static int check_clients(const struct web_config *config, struct config_error *ret_error)
{
    bool has_text = config->places[WEB_PLACE_CLIENT_CA].line;
    bool has_file = config->places[WEB_PLACE_CLIENT_CA_FILE].line;
    enum web_place ca = has_text ? WEB_PLACE_CLIENT_CA : WEB_PLACE_CLIENT_CA_FILE;
    if (has_text && has_file)
        return web_config_refuse(config, ca, ret_error,
                                 "client_ca_file stands here too; keep one of them");
    if (config->tls.client_auth != WEB_CLIENT_NONE)
        return 0;
    if (has_text || has_file)
        return web_config_refuse(config, ca, ret_error,
                                 "no client is asked for a certificate; write client_auth_type: "
                                 "RequireAndVerifyClientCert beside it");
    if (config->tls.sans.n)
        return web_config_refuse(config, WEB_PLACE_SANS, ret_error,
                                 "no client is asked for a certificate; write client_auth_type: "
                                 "RequireAndVerifyClientCert beside it");
    return 0;
}

static int check_tls(struct web_config *config, struct config_error *ret_error)
{
    for (size_t i = 0; i < WEB_PLACES_TLS; i++)
        config->has_tls = config->has_tls || config->places[i].line;
    if (!config->has_tls)
        return 0;
    int r = check_one_of(config, WEB_PLACE_CERT, WEB_PLACE_CERT_FILE, "cert", ret_error);
    if (r == 0)
        r = check_one_of(config, WEB_PLACE_KEY, WEB_PLACE_KEY_FILE, "key", ret_error);
    if (r == 0)
        r = check_clients(config, ret_error);
    if (r == 0 && config->tls.min_version > config->tls.max_version)
        r = web_config_refuse(config,
                              config->places[WEB_PLACE_MIN_VERSION].line ? WEB_PLACE_MIN_VERSION
                                                                         : WEB_PLACE_MAX_VERSION,
                              ret_error, "the minimum, %s, is above the maximum, %s",
                              version_choices[config->tls.min_version],
                              version_choices[config->tls.max_version]);
    if (config->tls.client_auth == WEB_CLIENT_REQUIRE)
        config->tls.client_auth = WEB_CLIENT_REQUIRE_ANY;
    return r;
}

/* Makes a path absolute as far as the file's own is. "" is as good as none, and refused by name. */
static int settle_path(struct web_config *config, char **path, enum web_place place,
                       struct config_error *ret_error)
{
    const char *slash = strrchr(config->name, '/');
    char *joined;
    if (!*path)
        return 0;
    if (!**path)
        return web_config_refuse(config, place, ret_error, "empty; write the path of a PEM file");
    if (**path == '/' || !slash)
        return 0;
    if (asprintf(&joined, "%.*s/%s", (int)(slash - config->name), config->name, *path) < 0)
        return -ENOMEM;
    free(*path);
    *path = joined;
    return 0;
}

static int settle(struct web_config *config, struct config_error *ret_error)
{
    int r = settle_path(config, &config->tls.cert_file, WEB_PLACE_CERT_FILE, ret_error);
    if (r == 0)
        r = settle_path(config, &config->tls.key_file, WEB_PLACE_KEY_FILE, ret_error);
    if (r == 0)
        r = settle_path(config, &config->tls.client_ca_file, WEB_PLACE_CLIENT_CA_FILE, ret_error);
    return r < 0 ? r : check_tls(config, ret_error);
}

int web_config_parse(const char *name, const char *text, size_t len, struct web_config **ret_config,
                     struct config_error *ret_error)
{
    CLEANUP(cleanup_web_config_free) struct web_config *config = calloc(1, sizeof *config);
    if (!config)
        return -ENOMEM;
    config->digest = digest_add(DIGEST_INIT, text, len);
    config->name = strdup(name);
    if (!config->name)
        return -ENOMEM;
    int r = schema_set_defaults(&root_table, config);
    if (r == 0)
        r = parse_table(name, text, len, &root_table, config, ret_error);
    if (r == 0)
        r = settle(config, ret_error);
    if (r == 0)
        *ret_config = steal_ptr(&config);
    return r;
}

int web_config_load(const char *path, struct web_config **ret_config,
                    struct config_error *ret_error)
{
    CLEANUP_FREE char *text = NULL;
    size_t len;
    int r = file_read(path, true, "web.yaml", &text, &len, ret_error);
    if (r < 0)
        return r;
    r = web_config_parse(path, text, len, ret_config, ret_error);
    explicit_bzero(text, len);
    return r;
}

void web_config_free(struct web_config *config)
{
    if (!config)
        return;
    if (config->tls.key)
        explicit_bzero(config->tls.key, strlen(config->tls.key));
    schema_clear(&root_table, config);
    free(config->name);
    free(config);
}
