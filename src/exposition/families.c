/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything about a family that does not change from scrape to scrape is made here once: metadata
 * in all formats, sample names, and the text of every bucket bound, so that rendering a sample is
 * copying three texts and printing one number.
 *
 * Names are claimed in the order of schemas and descriptors: all that a family means in any
 * format (a counter also claims its name without _total, a histogram its _bucket, _sum and _count),
 * so that all formats have the same names.
 */
#include "families.h"

#include <search.h>
#include <stdarg.h>
#include <stdio.h>

#include "burst_families.h"
#include "help.h"
#include "own.h"
#include "pb_histogram.h"

/* A statistic of the kernel, whichever schema it comes from: what a family is looked up by. */
struct origin {
    enum scope scope;
    bool known;
    uint8_t type, unit;
    const char *name;
    struct family *family; /* NULL: left out */
    bool has_schema[SCHEMAS_MAX];
};

/* Memory that goes with the table; each piece ends in WRITER_OVERRUN readable bytes. */
struct chunk {
    struct chunk *next;
    char bytes[];
};

struct family_table {
    struct family *first[SCOPE_VCPU + 1];
    struct family **last[SCOPE_VCPU + 1];
    struct sum_plan plans[SCHEMAS_MAX];
    struct burst_families bursts;
    struct chunk *chunks;
};

struct builder {
    struct family_table *table;
    const struct config *config;
    exposition_notice_fn *notice; /* NULL: not wanted for this schema */
    void *names;                  /* tsearch() tree of texts, in chunks */
    void *origins;                /* tsearch() tree of struct origin, in chunks */
};

const struct family *family_table_first(const struct family_table *table, enum scope scope)
{
    return table->first[scope];
}

const struct burst_families *family_table_bursts(const struct family_table *table)
{
    return &table->bursts;
}

const struct sum_plan *family_table_sum_plan(const struct family_table *table,
                                             const struct schema *schema)
{
    return &table->plans[schema->index];
}

/* Zeroed memory that lives as long as the table. */
static void *keep(struct family_table *table, size_t len)
{
    struct chunk *chunk = calloc(1, sizeof *chunk + len + WRITER_OVERRUN);
    if (!chunk)
        return NULL;
    chunk->next = table->chunks;
    table->chunks = chunk;
    return chunk->bytes;
}

static PRINTF_LIKE(3, 4) int keep_text(struct family_table *table, struct snippet *ret_text,
                                       const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *bytes = len < 0 ? NULL : keep(table, (size_t)len + 1);
    if (!bytes)
        return -ENOMEM;
    va_start(args, format);
    (void)vsnprintf(bytes, (size_t)len + 1, format, args);
    va_end(args);
    *ret_text = (struct snippet){bytes, (uint32_t)len};
    return 0;
}

/* Names. */

static int compare_names(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* The names a family stands for, its own first. */
static const char *const *claimed_suffixes(enum family_type type)
{
    static const char *const suffixes[][6] = {
        [FAMILY_COUNTER] = {"", "_total", "_created", NULL},
        [FAMILY_GAUGE] = {"", NULL},
        [FAMILY_HISTOGRAM] = {"", "_bucket", "_sum", "_count", "_created", NULL},
    };
    return suffixes[type];
}

/* Returns 1 when all names were free and are taken now, 0 when one was not, or -ENOMEM. */
static int claim(struct builder *b, const char *name, enum family_type type)
{
    struct snippet texts[6];
    size_t n = 0;
    for (const char *const *suffix = claimed_suffixes(type); *suffix; suffix++, n++) {
        int r = keep_text(b->table, &texts[n], "%s%s", name, *suffix);
        if (r < 0)
            return r;
        if (tfind(texts[n].bytes, &b->names, compare_names))
            return 0;
    }
    for (size_t i = 0; i < n; i++) {
        if (!tsearch(texts[i].bytes, &b->names, compare_names))
            return -ENOMEM;
    }
    return 1;
}

static int claim_own(struct builder *b, const struct own_family *families)
{
    for (const struct own_family *own = families; own->name; own++) {
        struct snippet text;
        int r = claim(b, own->name, own->type == OWN_COUNTER ? FAMILY_COUNTER : FAMILY_GAUGE);
        if (r >= 0 && own->type == OWN_INFO)
            r = keep_text(b->table, &text, "%s_info", own->name);
        if (r >= 0 && own->type == OWN_INFO && !tsearch(text.bytes, &b->names, compare_names))
            r = -ENOMEM;
        if (r < 0)
            return r;
    }
    return 0;
}

static PRINTF_LIKE(2, 3) void notice(struct builder *b, const char *format, ...)
{
    CLEANUP_FREE char *line = NULL;
    va_list args;
    if (!b->notice)
        return;
    va_start(args, format);
    if (vasprintf(&line, format, args) < 0)
        line = NULL;
    va_end(args);
    if (line)
        b->notice(line);
}

/*
 * Finds a free name. Returns 1 with the name, which is malloc'ed (*ret_raw: it is the raw one), 0
 * when there is none, or -ENOMEM.
 */
static int take_name(struct builder *b, enum scope scope, const struct kvmstats_desc *desc,
                     bool wanted, char **ret_name, bool *ret_raw)
{
    enum family_type type = family_type_of(desc);
    CLEANUP_FREE char *name = family_name(scope, desc, false);
    CLEANUP_FREE char *raw = family_name(scope, desc, true);
    if (!name || !raw)
        return -ENOMEM;
    int r = claim(b, name, type);
    if (r != 0) {
        *ret_name = steal_ptr(&name);
        *ret_raw = false;
        return r;
    }
    r = strcmp(name, raw) == 0 ? 0 : claim(b, raw, type);
    if (r < 0)
        return r;
    if (wanted && r == 0)
        notice(b, "statistic \"%s\" of the %s is left out: another one is called %s already",
               desc->name, scope == SCOPE_VM ? "VM" : "vCPU", name);
    else if (wanted)
        notice(b, "statistic \"%s\" of the %s is exported as %s: another one is called %s already",
               desc->name, scope == SCOPE_VM ? "VM" : "vCPU", raw, name);
    *ret_name = steal_ptr(&raw);
    *ret_raw = true;
    return r;
}

/* Metadata. */

/* HELP as a format has it; anything but printable ASCII (from an unknown statistic's name) is '?'.
 */
static char *escape_help(const char *text, const char *specials)
{
    char *escaped = malloc(2 * strlen(text) + 1), *to = escaped;
    if (!escaped)
        return NULL;
    for (; *text; text++) {
        if (strchr(specials, *text))
            *to++ = '\\';
        *to++ = *text >= 0x20 && *text < 0x7f ? *text : '?';
    }
    *to = '\0';
    return escaped;
}

/* What an unknown statistic can say for itself. */
static char *describe_unknown(enum scope scope, const struct kvmstats_desc *desc)
{
    const char *type = kvmstats_type_name(desc->type);
    const char *unit = kvmstats_unit_name(desc->unit);
    char *text = NULL;
    if (unit && desc->unit == KVMSTATS_UNIT_NONE)
        unit = "no unit";
    int r =
        asprintf(&text, "KVM's statistic %s of a %s (%s, %s); this build has no description of it.",
                 desc->name, scope == SCOPE_VM ? "VM" : "vCPU", type ? type : "unknown type",
                 unit ? unit : "unknown unit");
    return r < 0 ? NULL : text;
}

/* The text of HELP. `raw`: the name doesn't tell the unit, so the text does. */
static char *describe(const struct config *config, enum scope scope,
                      const struct kvmstats_desc *desc, bool raw)
{
    const char *known = help_find(scope, desc->name);
    CLEANUP_FREE char *unknown = known ? NULL : describe_unknown(scope, desc);
    const char *unit = raw ? family_unit(desc) : NULL;
    bool summed = family_is_summed(config, scope, family_type_of(desc));
    char *text = NULL;
    if (!known && !unknown)
        return NULL;
    int r = asprintf(&text, "%s%s%s%s%s", known ? known : unknown, unit ? " In " : "",
                     unit ? unit : "", unit ? "; the usual name is another statistic's." : "",
                     summed ? " Summed over the VM's vCPUs." : "");
    return r < 0 ? NULL : text;
}

static int make_heads(struct family_table *table, struct family *f, const char *name,
                      const char *unit, const char *help)
{
    static const char *const types[] = {
        [FAMILY_COUNTER] = "counter",
        [FAMILY_GAUGE] = "gauge",
        [FAMILY_HISTOGRAM] = "histogram",
    };
    const char *total = f->type == FAMILY_COUNTER ? "_total" : "";
    CLEANUP_FREE char *plain = escape_help(help, "\\");
    CLEANUP_FREE char *open = escape_help(help, "\\\"");
    CLEANUP_FREE char *unit_line = NULL;
    if (!plain || !open || asprintf(&unit_line, "# UNIT %s %s\n", name, unit ? unit : "") < 0) {
        unit_line = NULL;
        return -ENOMEM;
    }
    int r = keep_text(table, &f->head[EXPOSITION_TEXT], "# HELP %s%s %s\n# TYPE %s%s %s\n", name,
                      total, plain, name, total, types[f->type]);
    if (r < 0)
        return r;
    return keep_text(table, &f->head[EXPOSITION_OPENMETRICS], "# TYPE %s %s\n%s# HELP %s %s\n",
                     name, types[f->type], unit ? unit_line : "", name, open);
}

static int make_pb_head(struct family_table *table, struct family *f, const char *name,
                        const char *unit, const char *help)
{
    static const int types[] = {
        [FAMILY_COUNTER] = PB_TYPE_COUNTER,
        [FAMILY_GAUGE] = PB_TYPE_GAUGE,
        [FAMILY_HISTOGRAM] = PB_TYPE_HISTOGRAM,
    };
    CLEANUP_FREE char *plain = escape_help(help, "");
    const struct pb_head head = {
        .name = name,
        .suffix = f->type == FAMILY_COUNTER ? "_total" : "",
        .help = plain,
        .unit = unit,
        .type = types[f->type],
    };
    size_t len = plain ? pb_head_bytes(&head) : 0;
    char *bytes = plain ? keep(table, len) : NULL;
    if (!bytes)
        return -ENOMEM;
    (void)pb_put_head(bytes, &head);
    f->head[EXPOSITION_PROTOBUF] = (struct snippet){bytes, (uint32_t)len};
    return 0;
}

static int make_sample_names(struct family_table *table, struct family *f, const char *name)
{
    int r;
    if (f->type != FAMILY_HISTOGRAM)
        return keep_text(table, &f->sample, "%s%s", name,
                         f->type == FAMILY_COUNTER ? "_total" : "");
    if ((r = keep_text(table, &f->bucket, "%s_bucket", name)) < 0 ||
        (r = keep_text(table, &f->sum, "%s_sum", name)) < 0)
        return r;
    return keep_text(table, &f->count, "%s_count", name);
}

/* Makes the family of a statistic met for the first time; *ret_family is NULL where it has none. */
static int family_new(struct builder *b, enum scope scope, const struct kvmstats_desc *desc,
                      struct family **ret_family)
{
    struct family_table *table = b->table;
    bool wanted = config_wants_stat(b->config, desc->name) &&
                  (family_type_of(desc) != FAMILY_HISTOGRAM ||
                   b->config->metrics.histograms != CONFIG_HISTOGRAMS_OFF);
    CLEANUP_FREE char *name = NULL;
    bool raw = false;
    int r = take_name(b, scope, desc, wanted, &name, &raw);
    if (r < 0)
        return r;
    *ret_family = NULL;
    if (r == 0 || !wanted)
        return 0;

    CLEANUP_FREE char *help = describe(b->config, scope, desc, raw);
    struct family *f = keep(table, sizeof *f);
    if (!f || !help)
        return -ENOMEM;
    f->type = family_type_of(desc);
    if ((r = make_sample_names(table, f, name)) < 0 ||
        (r = make_heads(table, f, name, raw ? NULL : family_unit(desc), help)) < 0 ||
        (r = make_pb_head(table, f, name, raw ? NULL : family_unit(desc), help)) < 0)
        return r;
    *table->last[scope] = f;
    table->last[scope] = &f->next;
    *ret_family = f;
    return 0;
}

/* Members. */

static int make_bounds(struct family_table *table, struct family_member *m)
{
    uint64_t bound;
    m->bounds = keep(table, (m->desc->size + (size_t)1) * sizeof *m->bounds);
    m->bound_values = keep(table, (m->desc->size + (size_t)1) * sizeof *m->bound_values);
    if (!m->bounds || !m->bound_values)
        return -ENOMEM;
    m->native_shift = native_shift(m->desc->base, m->desc->exponent);
    m->zero_threshold = native_zero_threshold(m->native_shift);
    while (kvmstats_bucket_bound(m->desc, m->n_bounds, &bound)) {
        char le[KVMSTATS_DECIMAL_BYTES];
        size_t len = kvmstats_format_scaled(le, bound, m->desc->base, m->desc->exponent);
        /* OpenMetrics wants a float; the same text in both formats keeps the series the same. */
        const char *fraction = memchr(le, '.', len) ? "" : ".0";
        int r = keep_text(table, &m->bounds[m->n_bounds], ",le=\"%s%s\"} ", le, fraction);
        if (r < 0)
            return r;
        m->bound_values[m->n_bounds++] = pb_scaled(bound, m->desc->base, m->desc->exponent);
    }
    return keep_text(table, &m->bounds[m->n_bounds], ",le=\"+Inf\"} ");
}

static int add_member(struct family_table *table, struct family *f, const struct schema *schema,
                      const struct kvmstats_desc *desc)
{
    struct family_member *m = keep(table, sizeof *m);
    if (!m)
        return -ENOMEM;
    m->desc = desc;
    m->form = family_number_form(desc);
    if (f->type == FAMILY_HISTOGRAM) {
        int r = make_bounds(table, m);
        if (r < 0)
            return r;
        m->sum = family_sum_sibling(schema->decoded, desc);
        m->sum_form = m->sum ? family_number_form(m->sum) : NUMBER_PLAIN;
    }
    f->members[schema->index] = m;
    return 0;
}

static int compare_origins(const void *a, const void *b)
{
    const struct origin *x = a, *y = b;
    if (x->scope != y->scope)
        return x->scope < y->scope ? -1 : 1;
    if (x->known != y->known)
        return x->known ? 1 : -1;
    if (x->type != y->type)
        return x->type < y->type ? -1 : 1;
    if (x->unit != y->unit)
        return x->unit < y->unit ? -1 : 1;
    return strcmp(x->name, y->name);
}

/*
 * The family of a statistic: the one it has from an earlier schema, or a new one. Of two equal
 * descriptors in one schema the second is a new one, whose name then clashes.
 */
static int add_statistic(struct builder *b, const struct schema *schema,
                         const struct kvmstats_desc *desc)
{
    struct origin *origin = keep(b->table, sizeof *origin);
    if (!origin)
        return -ENOMEM;
    *origin = (struct origin){
        .scope = schema->scope,
        .known = desc->known,
        .type = desc->type,
        .unit = desc->unit,
        .name = desc->name,
    };
    void *node = tsearch(origin, &b->origins, compare_origins);
    if (!node)
        return -ENOMEM;
    struct origin *found = *(struct origin **)node;
    int r = 0;
    if (found == origin || found->has_schema[schema->index]) {
        r = family_new(b, schema->scope, desc, &origin->family);
        if (r < 0)
            return r;
    } else {
        origin = found;
    }
    origin->has_schema[schema->index] = true;
    return origin->family ? add_member(b->table, origin->family, schema, desc) : 0;
}

static enum sum_kind sum_kind_of(const struct kvmstats_desc *desc)
{
    switch (family_type_of(desc)) {
    case FAMILY_COUNTER:
    case FAMILY_HISTOGRAM:
        return SUM_COUNTER;
    case FAMILY_GAUGE:
        break;
    }
    return family_number_form(desc) == NUMBER_BOOL ? SUM_BOOL : SUM_INSTANT;
}

/* Statistics side by side that add up alike become one run. */
static int make_plan(struct family_table *table, const struct schema *schema)
{
    size_t n = kvmstats_schema_count(schema->decoded);
    struct sum_plan *plan = &table->plans[schema->index];
    plan->runs = keep(table, n * sizeof *plan->runs);
    if (!plan->runs)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        const struct kvmstats_desc *desc = kvmstats_schema_desc(schema->decoded, i);
        struct sum_run *last = plan->n ? &plan->runs[plan->n - 1] : NULL;
        enum sum_kind kind = sum_kind_of(desc);
        if (last && last->kind == kind && last->offset + last->n * sizeof(uint64_t) == desc->offset)
            last->n += desc->size;
        else
            plan->runs[plan->n++] = (struct sum_run){desc->offset, desc->size, kind};
    }
    return 0;
}

static int claim_for_bursts(void *ctx, const char *name, enum family_type type)
{
    return claim(ctx, name, type);
}

static void burst_left_out(void *ctx, const struct kvmstats_desc *desc, const char *name)
{
    struct builder *b = ctx;
    if (config_wants_peak(b->config, desc->name) ||
        config_wants_distribution(b->config, desc->name))
        notice(b, "%s is left out: a statistic is called so", name);
}

static int add_schema(struct builder *b, const struct schema *schema)
{
    const struct name_claims claims = {b, claim_for_bursts, burst_left_out};
    int r = make_plan(b->table, schema);
    for (size_t i = 0; r >= 0 && i < kvmstats_schema_count(schema->decoded); i++)
        r = add_statistic(b, schema, kvmstats_schema_desc(schema->decoded, i));
    return r < 0 ? r : burst_families_add(&b->table->bursts, schema, &claims);
}

static void free_nothing(void *node)
{
    (void)node; /* what the trees point to is in chunks */
}

int family_table_new(const struct schema *schemas, unsigned n, const struct config *config,
                     exposition_notice_fn *notice_fn, unsigned first_new,
                     struct family_table **ret_table)
{
    CLEANUP(cleanup_family_table_free) struct family_table *table = calloc(1, sizeof *table);
    if (!table)
        return -ENOMEM;
    burst_families_init(&table->bursts);
    for (size_t i = 0; i < ARRAY_LEN(table->first); i++)
        table->last[i] = &table->first[i];

    struct builder b = {.table = table, .config = config};
    int r = claim_own(&b, own_vm_families);
    if (r >= 0)
        r = claim_own(&b, own_vcpu_families);
    for (unsigned i = 0; r >= 0 && i < n; i++) {
        b.notice = i < first_new ? NULL : notice_fn;
        r = add_schema(&b, &schemas[i]);
    }
    tdestroy(b.names, free_nothing);
    tdestroy(b.origins, free_nothing);
    if (r < 0)
        return r;
    *ret_table = steal_ptr(&table);
    return 0;
}

void family_table_free(struct family_table *table)
{
    if (!table)
        return;
    burst_families_deinit(&table->bursts);
    for (struct chunk *chunk = table->chunks, *next; chunk; chunk = next) {
        next = chunk->next;
        free(chunk);
    }
    free(table);
}
