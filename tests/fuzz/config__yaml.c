/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a configuration: either a configuration that holds what the schema promises, or one
 * printable line that names the place.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(condition)   \
    do {                  \
        if (!(condition)) \
            abort();      \
    } while (0)

static void check_error(const struct config_error *error)
{
    static const char name[] = "fuzz.yaml:";
    size_t len = strnlen(error->message, sizeof error->message);
    MUST(len < sizeof error->message && strncmp(error->message, name, strlen(name)) == 0);
    for (size_t i = 0; i < len; i++)
        MUST(error->message[i] >= 0x20 && error->message[i] <= 0x7e);
}

static void check_interval(int64_t ns)
{
    MUST(ns >= NSEC_PER_MSEC && ns <= 3600 * NSEC_PER_SEC);
}

static void check_config(const struct config *config, const char *text)
{
    struct listen_address address;
    struct config_error error;
    check_interval(config->sampling.interval_ns);
    MUST(config->sampling.n_rules <= CONFIG_RULES_MAX);
    for (size_t i = 0; i < config->sampling.n_rules; i++) {
        if (config->sampling.rules[i].interval_ns)
            check_interval(config->sampling.rules[i].interval_ns);
    }
    MUST(config->discovery.n_sources >= 1 && config->discovery.n_sources <= CONFIG_SOURCES);
    MUST(config->bursts.n_windows <= 8);
    MUST(config->handoff.socket[0] == '/' && config->recorder.directory[0] == '/');
    MUST(config->web.listen.n > 0);
    for (size_t i = 0; i < config->web.listen.n; i++)
        MUST(config_parse_listen(config->web.listen.items[i], &address, &error) == 0);
    MUST(config->limits.max_vms > 0 && config->limits.max_vcpus_per_vm > 0);
    check_interval(config_match(config, text, "", text, "x.service").interval_ns);
    (void)config_wants_stat(config, text);
    MUST(config_equal(config, config));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config *config = NULL;
    struct config_error error = {{0}};
    int r = config_parse("fuzz.yaml", (const char *)data, size, &config, &error);
    if (r < 0) {
        MUST(r == -EINVAL && !config);
        check_error(&error);
        return 0;
    }
    char text[32] = "";
    memcpy(text, data, MIN_OF(size, sizeof text - 1));
    check_config(config, text);
    config_unref(config);
    return 0;
}
