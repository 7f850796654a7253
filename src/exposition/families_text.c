/* SPDX-License-Identifier: Apache-2.0 */
/* What a descriptor makes of a name: the rules of "Metrics" in README.md, and nothing else. */
#include "families.h"

enum {
    SUFFIX_ROOM = sizeof "kvm_vcpu_" + sizeof "_seconds",
};

enum family_type family_type_of(const struct kvmstats_desc *desc)
{
    if (kvmstats_is_histogram(desc))
        return FAMILY_HISTOGRAM;
    if (desc->known && desc->type == KVMSTATS_TYPE_CUMULATIVE &&
        desc->unit != KVMSTATS_UNIT_BOOLEAN)
        return FAMILY_COUNTER;
    return FAMILY_GAUGE;
}

bool family_is_summed(const struct config *config, enum scope scope, enum family_type type)
{
    if (scope == SCOPE_VM)
        return false;
    return !config->metrics.vcpu ||
           (type == FAMILY_HISTOGRAM && config->metrics.histograms != CONFIG_HISTOGRAMS_VCPU);
}

const char *family_unit(const struct kvmstats_desc *desc)
{
    static const char *const units[] = {
        [KVMSTATS_UNIT_NONE] = NULL,         [KVMSTATS_UNIT_BYTES] = "bytes",
        [KVMSTATS_UNIT_SECONDS] = "seconds", [KVMSTATS_UNIT_CYCLES] = "cycles",
        [KVMSTATS_UNIT_BOOLEAN] = NULL,
    };
    return desc->known && desc->unit < ARRAY_LEN(units) ? units[desc->unit] : NULL;
}

enum number_form family_number_form(const struct kvmstats_desc *desc)
{
    if (!desc->known)
        return NUMBER_PLAIN;
    if (desc->unit == KVMSTATS_UNIT_BOOLEAN)
        return NUMBER_BOOL;
    if (desc->exponent == 0)
        return NUMBER_PLAIN;
    return desc->base == KVMSTATS_BASE_POW10 && desc->exponent == -9 ? NUMBER_NANO : NUMBER_SCALED;
}

static bool has_suffix(const char *text, size_t len, const char *suffix)
{
    size_t n = strlen(suffix);
    return len >= n && memcmp(text + len - n, suffix, n) == 0;
}

static size_t without_suffixes(const char *text, size_t len, const char *const *suffixes)
{
    for (; *suffixes; suffixes++) {
        if (has_suffix(text, len, *suffixes))
            return len - strlen(*suffixes);
    }
    return len;
}

/* A colon is allowed in a name but kept for the names of recording rules. */
static char allowed(char c)
{
    bool ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    return ok ? c : '_';
}

char *family_name(enum scope scope, const struct kvmstats_desc *desc, bool raw)
{
    static const char *const seconds[] = {"_ns", "_us", "_ms", "_s", NULL};
    static const char *const total[] = {"_total", NULL};
    size_t name_len = strlen(desc->name);
    const char *unit = family_unit(desc);
    char *text = malloc(name_len + SUFFIX_ROOM);
    if (!text)
        return NULL;

    char *stem = stpcpy(text, scope == SCOPE_VM ? "kvm_vm_" : "kvm_vcpu_");
    for (size_t i = 0; i < name_len; i++)
        stem[i] = allowed(desc->name[i]);
    if (family_type_of(desc) == FAMILY_COUNTER)
        name_len = without_suffixes(stem, name_len, total);
    size_t len = (size_t)(stem - text) + name_len;
    if (unit && !raw) {
        char suffix[16] = "_";
        strcat(suffix, unit);
        if (desc->unit == KVMSTATS_UNIT_SECONDS)
            len = without_suffixes(text, len, seconds);
        if (!has_suffix(text, len, suffix))
            len = (size_t)(stpcpy(text + len, suffix) - text);
    }
    text[len] = '\0';
    return text;
}

const struct kvmstats_desc *family_sum_sibling(const struct kvmstats_schema *schema,
                                               const struct kvmstats_desc *desc)
{
    static const char hist[] = "_hist";
    static const char *const suffixes[] = {"_ns",      "_us",    "_ms",    "_s",
                                           "_seconds", "_bytes", "_cycles"};
    size_t len = strlen(desc->name);
    if (!family_unit(desc) || !has_suffix(desc->name, len, hist))
        return NULL;
    len -= sizeof hist - 1;
    for (size_t i = 0; i < kvmstats_schema_count(schema); i++) {
        const struct kvmstats_desc *other = kvmstats_schema_desc(schema, i);
        if (!other->known || other->type != KVMSTATS_TYPE_CUMULATIVE || other->size != 1 ||
            other->unit != desc->unit || strncmp(other->name, desc->name, len) != 0)
            continue;
        for (size_t s = 0; s < ARRAY_LEN(suffixes); s++) {
            if (strcmp(other->name + len, suffixes[s]) == 0)
                return other;
        }
    }
    return NULL;
}
