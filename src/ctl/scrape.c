/* SPDX-License-Identifier: Apache-2.0 */
/* Only lines of seven families are looked at more closely; they come by family, VM after VM. */
#include "scrape.h"

#include <math.h>
#include <string.h>

static const struct family {
    const char *name;
    enum scrape_value value;
} families[] = {
    {"kvm_vm_vcpus", SCRAPE_VCPUS},
    {"kvm_vm_last_sample_timestamp_seconds", SCRAPE_TIME},
    {"kvm_vcpu_exits_total", SCRAPE_EXITS},
    {"kvm_vcpu_exits_peak_rate", SCRAPE_PEAK},
    {"kvm_vcpu_halt_wait_seconds_total", SCRAPE_HALT},
    {"kvm_vcpu_cpu_seconds_total", SCRAPE_CPU},
    {"kvm_vcpu_runqueue_wait_seconds_total", SCRAPE_WAIT},
};

void scrape_free(struct scrape *scrape)
{
    for (size_t i = 0; i < scrape->n_vms; i++)
        free(scrape->vms[i].name);
    free(scrape->vms);
    *scrape = (struct scrape){0};
}

struct scrape_vm *scrape_find(const struct scrape *scrape, const char *name, size_t hint)
{
    for (size_t i = hint; i < MIN_OF(hint + 2, scrape->n_vms); i++) {
        if (strcmp(scrape->vms[i].name, name) == 0)
            return &scrape->vms[i];
    }
    for (size_t i = 0; i < scrape->n_vms; i++) {
        if (strcmp(scrape->vms[i].name, name) == 0)
            return &scrape->vms[i];
    }
    return NULL;
}

static struct scrape_vm *add(struct scrape *scrape, const char *name)
{
    if (scrape->n_vms == scrape->capacity) {
        size_t capacity = scrape->capacity ? scrape->capacity * 2 : 64;
        struct scrape_vm *more = realloc(scrape->vms, capacity * sizeof *more);
        if (!more)
            return NULL;
        scrape->vms = more;
        scrape->capacity = capacity;
    }
    struct scrape_vm *vm = &scrape->vms[scrape->n_vms];
    vm->name = strdup(name);
    for (size_t i = 0; i < SCRAPE_VALUES; i++)
        vm->values[i] = NAN;
    if (!vm->name)
        return NULL;
    scrape->n_vms++;
    return vm;
}

static const struct family *find_family(const char *line, size_t len)
{
    for (size_t i = 0; i < ARRAY_LEN(families); i++) {
        size_t name_len = strlen(families[i].name);
        if (name_len < len && line[name_len] == '{' &&
            memcmp(line, families[i].name, name_len) == 0)
            return &families[i];
    }
    return NULL;
}

/* The end of a label's value that begins here: its quote. */
static char *value_end(char *p)
{
    while (*p && *p != '"')
        p += p[0] == '\\' && p[1] ? 2 : 1;
    return *p ? p : NULL;
}

/* A label's value from what stands between its quotes, in place. */
static void unescape(char *text)
{
    char *to = text;
    for (const char *p = text; *p; p++) {
        if (*p == '\\' && p[1])
            *to++ = *++p == 'n' ? '\n' : *p;
        else
            *to++ = *p;
    }
    *to = '\0';
}

/* The } that ends the labels; the values of those between may hold anything. */
static char *labels_end(char *p)
{
    while (p && *p && *p != '}') {
        if (*p == '"')
            p = value_end(p + 1);
        p = p ? p + 1 : NULL;
    }
    return p && *p ? p : NULL;
}

/* `line`, behind its {, is taken apart in place. `*at` is the place of the VM of the line before.
 */
static int parse_line(struct scrape *scrape, enum scrape_value which, char *line, size_t *at)
{
    char *end = strncmp(line, "vm=\"", 4) == 0 ? value_end(line + 4) : NULL; /* it comes first */
    char *name = line + 4, *number = end ? labels_end(end + 1) : NULL;
    if (!number || number[1] != ' ')
        return -EBADMSG;
    *end = '\0';
    double value = strtod(number + 2, &end);
    if (end == number + 2)
        return -EBADMSG;
    unescape(name);
    struct scrape_vm *vm = scrape_find(scrape, name, *at);
    if (!vm && !(vm = add(scrape, name)))
        return -ENOMEM;
    *at = (size_t)(vm - scrape->vms);
    double *to = &vm->values[which];
    if (isnan(*to))
        *to = value;
    else if (which == SCRAPE_PEAK) /* of several windows or vCPUs */
        *to = MAX_OF(*to, value);
    else
        *to += value;
    return 0;
}

int scrape_parse(struct scrape *scrape, const char *text, size_t len)
{
    size_t at = 0;
    const struct family *before = NULL;
    char line[4096];
    if (len < 2 || memcmp(text, "# ", 2) != 0)
        return -EBADMSG;
    for (size_t i = 0; i < len;) {
        const char *newline = memchr(text + i, '\n', len - i);
        size_t line_len = newline ? (size_t)(newline - text) - i : len - i;
        const struct family *family = find_family(text + i, line_len);
        if (family) {
            size_t name_len = strlen(family->name) + 1;
            if (line_len - name_len >= sizeof line)
                return -EBADMSG;
            memcpy(line, text + i + name_len, line_len - name_len);
            line[line_len - name_len] = '\0';
            at = family == before ? at : 0;
            before = family;
            int r = parse_line(scrape, family->value, line, &at);
            if (r < 0)
                return r;
        }
        i += line_len + 1;
    }
    return 0;
}
