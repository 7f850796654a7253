/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Go's names of cipher suites into GnuTLS's terms. GnuTLS combines key exchanges, ciphers and MACs
 * freely, where Go lists whole suites; but which key exchange can be used is settled by the kind of
 * key that the certificate has, and what is left then combines to what was listed and nothing else.
 *
 * In Go the list is for versions up to 1.2 alone, and 1.3 has all its suites whatever is listed.
 * GnuTLS cannot tell them apart, so here 1.3 has those of its ciphers that the list has: never more
 * than was listed. A list without any cipher that 1.3 knows leaves 1.3 out.
 */
#include "tls.h"

#include <arpa/inet.h>
#include <gnutls/x509.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "buffer.h"
#include "digest.h"
#include "file.h"

enum {
    PEM_MAX_BYTES = 1 << 20, /* a bundle of every CA there is has a quarter of that */
    CHAIN_MAX = 16,          /* certificates in cert_file */
    PRIORITY_BYTES = 512,
    SAN_BYTES = 1024,
};

struct tls {
    const struct web_config *config;
    gnutls_certificate_credentials_t credentials;
    gnutls_priority_t priority;
    uint64_t digest; /* of the texts below */
};

/* --- files --- */

/* A PEM text, from its key or from its file; to be wiped. */
struct pem {
    char *text; /* owned */
    gnutls_datum_t data;
};

static void pem_free(struct pem *pem)
{
    if (pem->text)
        explicit_bzero(pem->text, pem->data.size);
    free(pem->text);
}
#define CLEANUP_PEM CLEANUP(pem_free)

static int pem_read(struct tls *tls, const char *text, const char *path, enum web_place place,
                    struct pem *ret_pem, struct config_error *ret_error)
{
    size_t len = text ? strlen(text) : 0;
    char *copy = text ? strdup(text) : NULL;
    int r = text ? (copy ? 0 : -ENOMEM) : file_slurp(path, true, PEM_MAX_BYTES, &copy, &len);
    if (r == -ENOMEM)
        return r;
    if (r < 0)
        return web_config_refuse(tls->config, place, ret_error, "%.200s cannot be read: %s", path,
                                 strerrordesc_np(-r));
    tls->digest = digest_add(digest_add(tls->digest, &len, sizeof len), copy, len);
    *ret_pem = (struct pem){.text = copy, .data = {(unsigned char *)copy, (unsigned)len}};
    return 0;
}

/* --- certificate and key --- */

struct chain {
    unsigned n;
    gnutls_x509_crt_t certificates[CHAIN_MAX];
};

static void chain_free(struct chain *chain)
{
    for (unsigned i = 0; i < chain->n; i++)
        gnutls_x509_crt_deinit(chain->certificates[i]);
}

static void cleanup_key(gnutls_x509_privkey_t *key)
{
    if (*key)
        gnutls_x509_privkey_deinit(*key);
}

static int load_chain(struct tls *tls, struct chain *ret_chain, struct config_error *ret_error)
{
    const struct web_config *config = tls->config;
    CLEANUP_PEM struct pem pem = {0};
    enum web_place place = config->tls.cert ? WEB_PLACE_CERT : WEB_PLACE_CERT_FILE;
    unsigned n = CHAIN_MAX;
    int r = pem_read(tls, config->tls.cert, config->tls.cert_file, place, &pem, ret_error);
    if (r < 0)
        return r;
    r = gnutls_x509_crt_list_import(ret_chain->certificates, &n, &pem.data, GNUTLS_X509_FMT_PEM,
                                    GNUTLS_X509_CRT_LIST_IMPORT_FAIL_IF_EXCEED);
    if (r < 0)
        return web_config_refuse(config, place, ret_error, "no certificate in PEM: %s",
                                 gnutls_strerror(r));
    ret_chain->n = n;
    return 0;
}

static int load_key(struct tls *tls, gnutls_x509_privkey_t *ret_key, struct config_error *ret_error)
{
    const struct web_config *config = tls->config;
    CLEANUP_PEM struct pem pem = {0};
    enum web_place place = config->tls.key ? WEB_PLACE_KEY : WEB_PLACE_KEY_FILE;
    int r = pem_read(tls, config->tls.key, config->tls.key_file, place, &pem, ret_error);
    if (r < 0)
        return r;
    if (gnutls_x509_privkey_init(ret_key) < 0)
        return -ENOMEM;
    r = gnutls_x509_privkey_import2(*ret_key, &pem.data, GNUTLS_X509_FMT_PEM, NULL, 0);
    if (r < 0)
        return web_config_refuse(
            config, place, ret_error, "no private key in PEM: %s%s", gnutls_strerror(r),
            r == GNUTLS_E_DECRYPTION_FAILED ? " (keys with a passphrase are not taken)" : "");
    return 0;
}

static int load_pair(struct tls *tls, bool *ret_is_rsa, struct config_error *ret_error)
{
    const struct web_config *config = tls->config;
    CLEANUP(chain_free) struct chain chain = {0};
    CLEANUP(cleanup_key) gnutls_x509_privkey_t key = NULL;
    int r = load_chain(tls, &chain, ret_error);
    if (r == 0)
        r = load_key(tls, &key, ret_error);
    if (r < 0)
        return r;
    r = gnutls_certificate_set_x509_key(tls->credentials, chain.certificates, (int)chain.n, key);
    if (r < 0)
        return web_config_refuse(
            config, config->tls.key ? WEB_PLACE_KEY : WEB_PLACE_KEY_FILE, ret_error,
            "the key is not that of the certificate, or cannot be used with it: %s",
            gnutls_strerror(r));
    int kind = gnutls_x509_privkey_get_pk_algorithm(key);
    *ret_is_rsa = kind == GNUTLS_PK_RSA || kind == GNUTLS_PK_RSA_PSS;
    return 0;
}

static bool verifies(const struct web_config *config)
{
    return config->tls.client_auth == WEB_CLIENT_VERIFY_IF_GIVEN ||
           config->tls.client_auth == WEB_CLIENT_REQUIRE_AND_VERIFY;
}

static int load_client_ca(struct tls *tls, struct config_error *ret_error)
{
    const struct web_config *config = tls->config;
    CLEANUP_PEM struct pem pem = {0};
    enum web_place place = config->tls.client_ca ? WEB_PLACE_CLIENT_CA : WEB_PLACE_CLIENT_CA_FILE;
    if (!config->places[place].line) {
        /* As in the toolkit: without a CA of its own, those of the system. */
        int n = verifies(config) ? gnutls_certificate_set_x509_system_trust(tls->credentials) : 0;
        if (n < 0)
            return web_config_refuse(config, WEB_PLACE_CLIENT_AUTH, ret_error,
                                     "the system has no certificates of CAs, and there is no "
                                     "client_ca_file");
        return 0;
    }
    int r =
        pem_read(tls, config->tls.client_ca, config->tls.client_ca_file, place, &pem, ret_error);
    if (r < 0)
        return r;
    r = gnutls_certificate_set_x509_trust_mem(tls->credentials, &pem.data, GNUTLS_X509_FMT_PEM);
    if (r <= 0)
        return web_config_refuse(config, place, ret_error, "no certificate in PEM: %s",
                                 r < 0 ? gnutls_strerror(r) : "empty");
    return 0;
}

/* --- versions, ciphers, curves --- */

struct suite {
    const char *cipher; /* as in a priority string */
    bool is_rsa, is_aead;
};

static const struct suite suites[WEB_CIPHERS] = {
    [WEB_CIPHER_13_AES_128_GCM] = {"AES-128-GCM", .is_aead = true},
    [WEB_CIPHER_13_AES_256_GCM] = {"AES-256-GCM", .is_aead = true},
    [WEB_CIPHER_13_CHACHA20] = {"CHACHA20-POLY1305", .is_aead = true},
    [WEB_CIPHER_RSA_AES_128_CBC] = {"AES-128-CBC", .is_rsa = true},
    [WEB_CIPHER_RSA_AES_256_CBC] = {"AES-256-CBC", .is_rsa = true},
    [WEB_CIPHER_RSA_AES_128_GCM] = {"AES-128-GCM", .is_rsa = true, .is_aead = true},
    [WEB_CIPHER_RSA_AES_256_GCM] = {"AES-256-GCM", .is_rsa = true, .is_aead = true},
    [WEB_CIPHER_RSA_CHACHA20] = {"CHACHA20-POLY1305", .is_rsa = true, .is_aead = true},
    [WEB_CIPHER_ECDSA_AES_128_CBC] = {"AES-128-CBC", .is_rsa = false},
    [WEB_CIPHER_ECDSA_AES_256_CBC] = {"AES-256-CBC", .is_rsa = false},
    [WEB_CIPHER_ECDSA_AES_128_GCM] = {"AES-128-GCM", .is_aead = true},
    [WEB_CIPHER_ECDSA_AES_256_GCM] = {"AES-256-GCM", .is_aead = true},
    [WEB_CIPHER_ECDSA_CHACHA20] = {"CHACHA20-POLY1305", .is_aead = true},
};
static const char *const versions[WEB_TLS_VERSIONS] = {"VERS-TLS1.0", "VERS-TLS1.1", "VERS-TLS1.2",
                                                       "VERS-TLS1.3"};
static const char *const groups[WEB_CURVES] = {"GROUP-SECP256R1", "GROUP-SECP384R1",
                                               "GROUP-SECP521R1", "GROUP-X25519"};

struct choice {
    enum web_tls_version min, max;
    size_t n;
    const char *ciphers[WEB_CIPHERS];
    bool has_aead, has_cbc;
};

static void choose_cipher(struct choice *choice, enum web_cipher cipher)
{
    choice->ciphers[choice->n++] = suites[cipher].cipher;
    if (suites[cipher].is_aead)
        choice->has_aead = true;
    else
        choice->has_cbc = true;
}

/* Go's order of what is not listed. */
static void choose_defaults(struct choice *choice)
{
    static const enum web_cipher all[] = {WEB_CIPHER_13_AES_128_GCM, WEB_CIPHER_13_AES_256_GCM,
                                          WEB_CIPHER_13_CHACHA20, WEB_CIPHER_RSA_AES_128_CBC,
                                          WEB_CIPHER_RSA_AES_256_CBC};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        choose_cipher(choice, all[i]);
}

static void choose_listed(struct choice *choice, const struct web_config *config, bool is_rsa)
{
    bool some_12 = false;
    for (size_t i = 0; i < config->tls.n_ciphers; i++) {
        enum web_cipher cipher = config->tls.ciphers[i];
        some_12 = some_12 || cipher >= WEB_CIPHERS_13;
        if (cipher >= WEB_CIPHERS_13 && suites[cipher].is_rsa == is_rsa)
            choose_cipher(choice, cipher);
    }
    if (choice->n ==
        0) { /* nothing for 1.2 and below: then 1.3 has what is listed for it, or all */
        choice->min = WEB_TLS13;
        for (size_t i = 0; i < config->tls.n_ciphers; i++) {
            if (config->tls.ciphers[i] < WEB_CIPHERS_13)
                choose_cipher(choice, config->tls.ciphers[i]);
        }
        if (choice->n == 0 && some_12)
            choose_defaults(choice);
    } else if (!choice->has_aead) {
        choice->max = MIN_OF(choice->max, WEB_TLS12);
    }
    if (!choice->has_cbc)
        choice->min = MAX_OF(choice->min, WEB_TLS12);
}

static int write_priority(const struct choice *choice, const struct web_config *config,
                          struct buffer *to)
{
    buffer_puts(to, "NORMAL:-VERS-ALL:-KX-ALL:-CIPHER-ALL:-MAC-ALL:-GROUP-ALL"
                    ":+ECDHE-RSA:+ECDHE-ECDSA:+AEAD:+SHA1");
    for (int i = (int)choice->max; i >= (int)choice->min; i--)
        buffer_printf(to, ":+%s", versions[i]);
    for (size_t i = 0; i < choice->n; i++)
        buffer_printf(to, ":+%s", choice->ciphers[i]);
    for (size_t i = 0; i < config->tls.n_curves; i++)
        buffer_printf(to, ":+%s", groups[config->tls.curves[i]]);
    if (config->tls.n_curves == 0)
        buffer_puts(to, ":+GROUP-X25519:+GROUP-SECP256R1:+GROUP-SECP384R1:+GROUP-SECP521R1");
    if (config->tls.prefer_server)
        buffer_puts(to, ":%SERVER_PRECEDENCE");
    buffer_put(to, "", 1);
    return to->error;
}

static int load_priority(struct tls *tls, bool is_rsa, struct config_error *ret_error)
{
    const struct web_config *config = tls->config;
    struct choice choice = {.min = config->tls.min_version, .max = config->tls.max_version};
    CLEANUP_BUFFER struct buffer text = BUFFER_INIT;
    if (config->tls.n_ciphers)
        choose_listed(&choice, config, is_rsa);
    else
        choose_defaults(&choice);
    if (choice.min > choice.max || choice.min > config->tls.max_version)
        return web_config_refuse(config, WEB_PLACE_CIPHERS, ret_error,
                                 "nothing listed can be used with a key of this kind (%s) and the "
                                 "versions allowed",
                                 is_rsa ? "RSA" : "ECDSA");
    int r = write_priority(&choice, config, &text);
    if (r < 0)
        return r;
    r = gnutls_priority_init(&tls->priority, text.data, NULL);
    if (r < 0)
        return web_config_refuse(config, WEB_PLACE_TLS, ret_error,
                                 "GnuTLS on this machine does not allow this: %s",
                                 gnutls_strerror(r));
    return 0;
}

int tls_new(const struct web_config *config, struct tls **ret_tls, struct config_error *ret_error)
{
    bool is_rsa = false;
    CLEANUP(cleanup_tls_free) struct tls *tls = calloc(1, sizeof *tls);
    if (!tls)
        return -ENOMEM;
    tls->config = config;
    tls->digest = DIGEST_INIT;
    if (gnutls_certificate_allocate_credentials(&tls->credentials) < 0)
        return -ENOMEM;
    int r = load_pair(tls, &is_rsa, ret_error);
    if (r == 0)
        r = load_client_ca(tls, ret_error);
    if (r == 0)
        r = load_priority(tls, is_rsa, ret_error);
    if (r == 0)
        *ret_tls = steal_ptr(&tls);
    return r;
}

uint64_t tls_digest(const struct tls *tls)
{
    return tls->digest;
}

void tls_free(struct tls *tls)
{
    if (!tls)
        return;
    if (tls->priority)
        gnutls_priority_deinit(tls->priority);
    if (tls->credentials)
        gnutls_certificate_free_credentials(tls->credentials);
    free(tls);
}

/* --- sessions --- */

int tls_prepare(const struct tls *tls, gnutls_session_t session)
{
    if (gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, tls->credentials) < 0 ||
        gnutls_priority_set(session, tls->priority) < 0)
        return -EIO;
    /* Never GNUTLS_CERT_REQUIRE: it ends the handshake without a word. tls_verify() says why. */
    gnutls_certificate_server_set_request(session, tls->config->tls.client_auth == WEB_CLIENT_NONE
                                                       ? GNUTLS_CERT_IGNORE
                                                       : GNUTLS_CERT_REQUEST);
    return 0;
}

/* Whether an IP address in a certificate is the one that was written down. */
static bool is_address(const char *text, const char *bytes, size_t len)
{
    unsigned char address[sizeof(struct in6_addr)];
    size_t expected = len == sizeof(struct in_addr) ? len : sizeof(struct in6_addr);
    return inet_pton(expected == sizeof(struct in_addr) ? AF_INET : AF_INET6, text, address) == 1 &&
           len == expected && memcmp(address, bytes, len) == 0;
}

static bool is_allowed(const struct string_list *sans, int kind, const char *name, size_t len)
{
    for (size_t i = 0; i < sans->n; i++) {
        const char *allowed = sans->items[i];
        if (kind == GNUTLS_SAN_IPADDRESS
                ? is_address(allowed, name, len)
                : strlen(allowed) == len && memcmp(allowed, name, len) == 0)
            return true;
    }
    return false;
}

static bool has_allowed_san(const struct string_list *sans, const gnutls_datum_t *certificate)
{
    gnutls_x509_crt_t leaf;
    bool found = false;
    if (gnutls_x509_crt_init(&leaf) < 0)
        return false;
    int r = gnutls_x509_crt_import(leaf, certificate, GNUTLS_X509_FMT_DER);
    for (unsigned i = 0; r >= 0 && !found; i++) {
        char name[SAN_BYTES];
        size_t len = sizeof name;
        int kind = gnutls_x509_crt_get_subject_alt_name(leaf, i, name, &len, NULL);
        if (kind == GNUTLS_E_SHORT_MEMORY_BUFFER)
            continue; /* longer than any that would be written down */
        if (kind < 0)
            break;
        if (kind == GNUTLS_SAN_DNSNAME || kind == GNUTLS_SAN_RFC822NAME || kind == GNUTLS_SAN_URI ||
            kind == GNUTLS_SAN_IPADDRESS)
            found = is_allowed(sans, kind, name, len);
    }
    gnutls_x509_crt_deinit(leaf);
    return found;
}

static bool may_enter(const struct tls *tls, gnutls_session_t session, bool *ret_given)
{
    const struct web_config *config = tls->config;
    const enum web_client_auth wanted = config->tls.client_auth;
    unsigned n = 0, status = 0;
    const gnutls_datum_t *peers = gnutls_certificate_get_peers(session, &n);
    *ret_given = peers && n > 0;
    if (!*ret_given)
        return wanted != WEB_CLIENT_REQUIRE_ANY && wanted != WEB_CLIENT_REQUIRE_AND_VERIFY;
    if (verifies(config)) {
        gnutls_typed_vdata_st purpose = {.type = GNUTLS_DT_KEY_PURPOSE_OID,
                                         .data =
                                             (unsigned char *)(uintptr_t)GNUTLS_KP_TLS_WWW_CLIENT};
        if (gnutls_certificate_verify_peers(session, &purpose, 1, &status) < 0 || status != 0)
            return false;
    }
    return wanted == WEB_CLIENT_NONE || config->tls.sans.n == 0 ||
           has_allowed_san(&config->tls.sans, &peers[0]);
}

int tls_verify(const struct tls *tls, gnutls_session_t session)
{
    bool given = false;
    if (may_enter(tls, session, &given))
        return 0;
    /* certificate_required is new in 1.3; before, servers say handshake_failure. */
    gnutls_alert_description_t alert = given ? GNUTLS_A_BAD_CERTIFICATE
                                       : gnutls_protocol_get_version(session) == GNUTLS_TLS1_3
                                           ? GNUTLS_A_CERTIFICATE_REQUIRED
                                           : GNUTLS_A_HANDSHAKE_FAILURE;
    (void)gnutls_alert_send(session, GNUTLS_AL_FATAL, alert);
    return -EACCES;
}

int tls_verify_again(const struct tls *tls, const struct tls *former, gnutls_session_t session)
{
    int r = gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, tls->credentials) < 0
                ? -EACCES
                : tls_verify(tls, session);
    /* It may refer to what is in them: a certificate of ours. */
    (void)gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, former->credentials);
    return r;
}
