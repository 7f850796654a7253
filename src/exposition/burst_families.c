/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rates keep the unit inside their names (kvm_vcpu_written_bytes_peak_rate): they are per second,
 * so the unit is not that of the value, and OpenMetrics would want it last. Seconds a second have
 * no unit: they are a ratio, and the name says so. Highs and lows of a gauge have its unit, behind.
 */
#include "burst_families.h"

#include <stdio.h>

#include "help.h"

enum {
    /* A schema has some 50 statistics; what is beyond this has no families of this kind. */
    WATCHABLE_MAX = 1024,
};

void burst_families_init(struct burst_families *families)
{
    families->first = NULL;
    families->last = &families->first;
}

static void family_free(struct burst_family *family)
{
    if (!family)
        return;
    free((char *)(uintptr_t)family->own.name);
    free((char *)(uintptr_t)family->own.help);
    free(family);
}
DEFINE_CLEANUP(struct burst_family *, family_free)

void burst_families_deinit(struct burst_families *families)
{
    while (families->first) {
        struct burst_family *next = families->first->next;
        family_free(families->first);
        families->first = next;
    }
}

static bool is_seconds(const struct kvmstats_desc *desc)
{
    return desc->unit == KVMSTATS_UNIT_SECONDS;
}

static const char *suffix_of(const struct kvmstats_desc *desc, enum burst_shape shape)
{
    switch (shape) {
    case BURST_PEAK:
        return is_seconds(desc) ? "_peak_ratio" : "_peak_rate";
    case BURST_DISTRIBUTION:
        return is_seconds(desc) ? "_tick_ratio" : "_tick_rate";
    case BURST_HIGH:
        return "_peak";
    case BURST_LOW:
        return "_low";
    case BURST_SHAPES:
        break;
    }
    return "";
}

static bool is_gauge(enum burst_shape shape)
{
    return shape == BURST_HIGH || shape == BURST_LOW;
}

char *burst_family_name(enum scope scope, const struct kvmstats_desc *desc, enum burst_shape shape,
                        bool raw)
{
    CLEANUP_FREE char *family = family_name(scope, desc, raw);
    const char *unit = raw ? NULL : family_unit(desc);
    bool unit_goes = unit && (is_gauge(shape) || is_seconds(desc));
    char *name;
    if (!family)
        return NULL;
    if (unit_goes)
        family[strlen(family) - strlen(unit) - 1] = '\0';
    int r =
        asprintf(&name, "%s%s%s%s", family, suffix_of(desc, shape),
                 unit_goes && is_gauge(shape) ? "_" : "", unit_goes && is_gauge(shape) ? unit : "");
    return r < 0 ? NULL : name;
}

static char *describe(enum scope scope, const struct kvmstats_desc *desc, enum burst_shape shape)
{
    static const char *const texts[BURST_SHAPES][2] = {
        [BURST_PEAK] = {"Highest rate per second over any one tick in the sliding window",
                        "Highest share of any one tick in the sliding window (above 1 where more "
                        "was accounted in a tick than it lasted)"},
        [BURST_HIGH] = {"Highest value at any one tick in the sliding window"},
        [BURST_LOW] = {"Lowest value at any one tick in the sliding window"},
        [BURST_DISTRIBUTION] = {"Rates per second over each tick", "Shares of each tick"},
    };
    const char *known = help_find(scope, desc->name);
    const char *text = texts[shape][!is_gauge(shape) && is_seconds(desc)];
    const char *where =
        scope == SCOPE_VM ? "" : " Without the label vcpu: all vCPUs of the VM together.";
    char *help;
    int r = asprintf(&help, "%s, of: %s%s", text,
                     known ? known : "a statistic that this build has no description of.", where);
    return r < 0 ? NULL : help;
}

/* The family of the same statistic, of this schema or an earlier one. */
static struct burst_family *find(const struct burst_families *families, const struct schema *schema,
                                 const struct kvmstats_desc *desc, enum burst_shape shape)
{
    for (struct burst_family *f = families->first; f; f = f->next) {
        if (f->scope != schema->scope || f->shape != shape)
            continue;
        for (size_t i = 0; i < SCHEMAS_MAX; i++) {
            if (f->descs[i] && f->descs[i]->unit == desc->unit &&
                strcmp(f->descs[i]->name, desc->name) == 0)
                return f;
        }
    }
    return NULL;
}

static int take_name(const struct schema *schema, const struct kvmstats_desc *desc,
                     enum burst_shape shape, const struct name_claims *claims, char **ret_name,
                     bool *ret_raw)
{
    enum family_type type = shape == BURST_DISTRIBUTION ? FAMILY_HISTOGRAM : FAMILY_GAUGE;
    int r = 0;
    for (int raw = 0; raw < 2 && r == 0; raw++) {
        CLEANUP_FREE char *name = burst_family_name(schema->scope, desc, shape, raw);
        r = name ? claims->claim(claims->ctx, name, type) : -ENOMEM;
        if (r == 0 && raw)
            claims->left_out(claims->ctx, desc, name);
        if (r <= 0)
            continue;
        *ret_name = steal_ptr(&name);
        *ret_raw = raw;
    }
    return r;
}

static int add_family(struct burst_families *families, const struct schema *schema,
                      const struct kvmstats_desc *desc, enum burst_shape shape,
                      const struct name_claims *claims)
{
    struct burst_family *known = find(families, schema, desc, shape);
    if (known) {
        /* Of two equal statistics the second is left out here as it is itself. */
        if (!known->descs[schema->index])
            known->descs[schema->index] = desc;
        return 0;
    }
    char *name;
    bool raw;
    int r = take_name(schema, desc, shape, claims, &name, &raw);
    if (r <= 0)
        return r;
    CLEANUP(cleanup_family_free) struct burst_family *family = calloc(1, sizeof *family);
    if (!family) {
        free(name);
        return -ENOMEM;
    }
    family->own = (struct own_family){
        .name = name,
        .type = shape == BURST_DISTRIBUTION ? OWN_HISTOGRAM : OWN_GAUGE,
        .unit = !raw && is_gauge(shape) ? family_unit(desc) : NULL,
        .help = describe(schema->scope, desc, shape),
    };
    if (!family->own.help)
        return -ENOMEM;
    family->shape = shape;
    family->scope = schema->scope;
    family->descs[schema->index] = desc;
    *families->last = family;
    families->last = &family->next;
    family = NULL;
    return 0;
}

int burst_families_add(struct burst_families *families, const struct schema *schema,
                       const struct name_claims *claims)
{
    size_t n = kvmstats_schema_count(schema->decoded), watchable = 0;
    int r = 0;
    for (size_t i = 0; r >= 0 && i < n && watchable < WATCHABLE_MAX; i++) {
        const struct kvmstats_desc *desc = kvmstats_schema_desc(schema->decoded, i);
        bool rate = burst_has_rate(desc), gauge = burst_has_level(desc);
        watchable += rate || gauge;
        for (int shape = 0; r >= 0 && shape < BURST_SHAPES; shape++) {
            if (is_gauge((enum burst_shape)shape) ? gauge : rate)
                r = add_family(families, schema, desc, (enum burst_shape)shape, claims);
        }
    }
    return r < 0 ? r : 0;
}
