/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a web configuration: either one that holds what web.h promises, or one printable
 * line that names the place.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "web.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(condition)   \
    do {                  \
        if (!(condition)) \
            abort();      \
    } while (0)

static void check_error(const struct config_error *error)
{
    static const char name[] = "/etc/web.yaml:";
    size_t len = strnlen(error->message, sizeof error->message);
    MUST(len < sizeof error->message && strncmp(error->message, name, strlen(name)) == 0);
    for (size_t i = 0; i < len; i++)
        MUST(error->message[i] >= 0x20 && error->message[i] <= 0x7e);
}

static void check_tls(const struct web_config *config)
{
    MUST(!config->tls.cert != !config->tls.cert_file && !config->tls.key != !config->tls.key_file);
    MUST(!config->tls.cert_file || config->tls.cert_file[0] == '/');
    MUST(!config->tls.key_file || config->tls.key_file[0] == '/');
    MUST(!config->tls.client_ca_file || config->tls.client_ca_file[0] == '/');
    MUST(config->tls.min_version <= config->tls.max_version);
    MUST(config->tls.client_auth <= WEB_CLIENT_REQUIRE_AND_VERIFY);
    MUST(config->tls.client_auth != WEB_CLIENT_NONE ||
         (!config->tls.sans.n && !config->tls.client_ca && !config->tls.client_ca_file));
    MUST(config->tls.n_ciphers <= WEB_CIPHERS && config->tls.n_curves <= WEB_CURVES);
}

static void check_config(const struct web_config *config)
{
    if (config->has_tls)
        check_tls(config);
    for (size_t i = 0; i < config->n_users; i++) {
        unsigned cost = web_user_cost(&config->users[i]);
        MUST(strlen(config->users[i].hash) == WEB_HASH_BYTES && config->users[i].name[0]);
        MUST(cost >= WEB_COST_MIN && cost <= WEB_COST_MAX && !strchr(config->users[i].name, ':'));
    }
    for (int i = 0; i < WEB_HEADERS; i++) /* nothing that could end a header's line */
        MUST(!config->headers[i] || !strpbrk(config->headers[i], "\r\n"));
    MUST(config->rate.interval_ns >= 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct web_config *config = NULL;
    struct config_error error = {{0}};
    int r = web_config_parse("/etc/web.yaml", (const char *)data, size, &config, &error);
    if (r < 0) {
        MUST(r == -EINVAL && !config);
        check_error(&error);
        return 0;
    }
    check_config(config);
    web_config_free(config);
    return 0;
}
