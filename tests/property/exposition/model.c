/* SPDX-License-Identifier: Apache-2.0 */
#include "model.h"

#include <inttypes.h>
#include <string.h>

#include "testing.h"

enum {
    RINGS = 3,
    VMS = 6,
    DESCS_MAX = 14,
    NAMES_MAX = 64,
    /* So that sums of a few vCPUs, lifted a few times, stay below 2^64. */
    COUNTER_BITS = 56,
    BUCKET_BITS = 40,
};

static uint64_t below(uint64_t n)
{
    return testing_random_below(n);
}

static bool one_in(uint64_t n)
{
    return below(n) == 0;
}

static uint64_t any_value(unsigned bits)
{
    return one_in(4) ? 0 : testing_random() >> (64 - bits + below(bits));
}

static char *hostile_text(size_t max)
{
    static const char *const parts[] = {
        "a",
        "b",
        "exits",
        "halt_wait",
        "_ns",
        "_us",
        "_ms",
        "_s",
        "_seconds",
        "_hist",
        "_total",
        "_bucket",
        "_sum",
        "_count",
        "_bytes",
        "_cycles",
        "\"",
        "\\",
        "\n",
        "{",
        "}",
        ",",
        " ",
        "=",
        "#",
        " # ",
        "\xff",
        "\xc3\xa9",
        "\xe2\x80",
        "\xf0\x9f\x90\xa7",
        "\r",
        "\t",
        "le=\"",
        "\xc0\x80",
        "\xed\xa0\x80",
        "9",
        ":",
        "-",
        "\x01",
        "\x7f",
        "\xe2\x80\xa8",
        "info",
        "vcpus",
        "_created",
    };
    char *text = calloc(1, max + 1);
    size_t n = 1 + below(4);
    for (size_t i = 0; i < n; i++) {
        const char *part = parts[below(ARRAY_LEN(parts))];
        if (strlen(text) + strlen(part) <= max)
            strcat(text, part);
    }
    if (!*text)
        strcpy(text, "x");
    return text;
}

static int16_t exponent_for(const struct kvmstats_desc *desc)
{
    if (desc->type > KVMSTATS_TYPE_LOG_HIST || desc->unit > KVMSTATS_UNIT_BOOLEAN ||
        desc->base > KVMSTATS_BASE_POW2)
        return (int16_t)((int)below(41) - 20);
    if (desc->unit == KVMSTATS_UNIT_BOOLEAN || one_in(3))
        return 0;
    if (desc->unit == KVMSTATS_UNIT_SECONDS)
        return one_in(2) ? -9 : (int16_t) - (int)below(21);
    return (int16_t)below(21);
}

static struct kvmstats_desc any_desc(char *name)
{
    struct kvmstats_desc desc = {
        .name = name,
        .type = (uint8_t)below(one_in(4) ? 16 : 5),
        .unit = (uint8_t)below(one_in(4) ? 16 : 5),
        .base = (uint8_t)below(one_in(4) ? 16 : 2),
        .size = 1,
    };
    bool histogram = desc.type == KVMSTATS_TYPE_LINEAR_HIST || desc.type == KVMSTATS_TYPE_LOG_HIST;
    if (histogram)
        desc.size = (uint16_t)(1 + below(70));
    else if (one_in(6))
        desc.size = (uint16_t)(2 + below(4));
    if (desc.type == KVMSTATS_TYPE_LINEAR_HIST)
        desc.bucket_size = (uint32_t)(1 + below(one_in(2) ? 10 : UINT32_MAX));
    desc.exponent = exponent_for(&desc);
    return desc;
}

/* Some statistics of `like` (may be NULL), perhaps changed, and some of its own. */
static const struct schema *any_schema(struct stage *stage, enum scope scope,
                                       const struct schema *like)
{
    struct kvmstats_desc descs[DESCS_MAX];
    char *names[DESCS_MAX];
    size_t n = 1 + below(DESCS_MAX);
    for (size_t i = 0; i < n; i++) {
        const struct kvmstats_desc *old =
            like && !one_in(3)
                ? kvmstats_schema_desc(like->decoded, below(kvmstats_schema_count(like->decoded)))
                : NULL;
        names[i] = old ? strdup(old->name) : hostile_text(40);
        if (old && !one_in(3)) {
            descs[i] = *old;
            descs[i].name = names[i];
            descs[i].offset = 0;
        } else {
            descs[i] = any_desc(names[i]);
        }
    }
    const struct schema *schema = stage_schema(stage, scope, descs, n);
    for (size_t i = 0; i < n; i++)
        free(names[i]);
    return schema;
}

static void fill_block(uint8_t *block, const struct schema *schema, bool again)
{
    for (size_t i = 0; i < kvmstats_schema_count(schema->decoded); i++) {
        const struct kvmstats_desc *desc = kvmstats_schema_desc(schema->decoded, i);
        bool bucket = kvmstats_is_histogram(desc);
        bool counter = bucket || (desc->known && desc->type == KVMSTATS_TYPE_CUMULATIVE);
        unsigned bits = bucket ? BUCKET_BITS : counter ? COUNTER_BITS : 64;
        for (size_t k = 0; k < desc->size; k++) {
            uint64_t value = any_value(bits);
            if (again && counter && !one_in(10))
                value = kvmstats_value(desc, block, k) + any_value(bits - 8);
            memcpy(block + desc->offset + 8 * k, &value, sizeof value);
        }
    }
}

/* Values and status of a frame that nobody has seen yet. */
static void fill_frame(struct frame *frame, bool again)
{
    for (uint32_t t = 0; t < frame->layout->n_targets; t++) {
        const struct layout_target *target = &frame->layout->targets[t];
        bool was_absent = again && frame->status[t] == TARGET_ABSENT;
        if (one_in(8)) {
            frame->status[t] = !again || was_absent ? TARGET_ABSENT : TARGET_HELD;
            continue;
        }
        frame->status[t] = TARGET_READ;
        fill_block(frame->data + target->offset, target->schema, again && !was_absent);
    }
}

static void retire_some(struct layout *layout)
{
    for (uint32_t i = 0; i < layout->n_vms; i++) {
        struct layout_vm *vm = &layout->vms[i];
        const struct layout_target *last = &layout->targets[vm->first_target + vm->n_targets - 1];
        if (vm->n_targets == 0 || last->vcpu < 0 || one_in(2))
            continue;
        vm->retired = calloc(1, last->schema->data_bytes + 8);
        vm->retired_schema = last->schema;
        fill_block((uint8_t *)vm->retired, last->schema, false);
    }
}

static void any_config(struct config *config)
{
    config->metrics.vcpu = !one_in(3);
    config->metrics.histograms = (enum config_histograms)below(3);
    if (one_in(4)) {
        config->metrics.exclude.items = calloc(1, sizeof(char *));
        config->metrics.exclude.items[0] = strdup(one_in(2) ? "*_ns" : "a*");
        config->metrics.exclude.n = 1;
    }
}

static void add_vms(struct model *model)
{
    const struct schema *vm[2], *vcpu[3];
    vm[0] = any_schema(&model->stage, SCOPE_VM, NULL);
    vcpu[0] = any_schema(&model->stage, SCOPE_VCPU, NULL);
    vcpu[1] = any_schema(&model->stage, SCOPE_VCPU, vcpu[0]);
    vm[1] = any_schema(&model->stage, SCOPE_VM, vm[0]);
    vcpu[2] = any_schema(&model->stage, SCOPE_VCPU, vcpu[1]);
    model->names = calloc(VMS, sizeof *model->names);
    for (size_t i = 0; i < VMS; i++) {
        CLEANUP_FREE char *text = hostile_text(80);
        CLEANUP_FREE char *other = hostile_text(80);
        if (asprintf(&model->names[i], "%zu%s", i, text) < 0)
            abort();
        struct vm_identity_spec spec = {
            .vm = model->names[i],
            .uuid = other,
            .machine = text,
            .unit = other,
            .vmm = "qemu",
            .source = "statsfd",
            .pid = (pid_t)(1 + below(100000)),
            .start_wall_ns = one_in(4) ? 0 : (int64_t)(testing_random() >> 2),
        };
        stage_vm_add(&model->stage, &spec, (unsigned)below(RINGS),
                     one_in(4) ? NULL : vm[below(ARRAY_LEN(vm))],
                     one_in(8) ? NULL : vcpu[below(ARRAY_LEN(vcpu))], (uint32_t)below(4));
    }
}

void model_init(struct model *model)
{
    *model = (struct model){.roster = {.kernel_vms = -1}};
    stage_init(&model->stage);
    any_config(model->stage.config);
    add_vms(model);
    for (unsigned ring = 0; ring < RINGS; ring++) {
        retire_some(stage_layout(&model->stage, ring));
        fill_frame(stage_frame(&model->stage, ring), false);
    }
    model->exposition = stage_exposition(&model->stage);
}

void model_deinit(struct model *model)
{
    for (size_t i = 0; i < VMS; i++)
        free(model->names[i]);
    free(model->names);
    exposition_free(model->exposition);
    stage_deinit(&model->stage);
}

void model_tick(struct model *model)
{
    for (unsigned ring = 0; ring < RINGS; ring++) {
        stage_tick(&model->stage, ring);
        fill_frame(stage_frame(&model->stage, ring), true);
    }
}

/* JSON. */

static void print_hex(FILE *to, const char *key, const char *text)
{
    fprintf(to, "\"%s\":\"", key);
    for (; *text; text++)
        fprintf(to, "%02x", (unsigned char)*text);
    fprintf(to, "\"");
}

static void print_schemas(const struct schema_table *table, FILE *to)
{
    fprintf(to, "\"schemas\":[");
    for (unsigned s = 0; s < table->count; s++) {
        const struct schema *schema = &table->entries[s];
        fprintf(to, "%s{\"scope\":\"%s\",\"stats\":[", s ? "," : "",
                schema->scope == SCOPE_VM ? "vm" : "vcpu");
        for (size_t i = 0; i < kvmstats_schema_count(schema->decoded); i++) {
            const struct kvmstats_desc *d = kvmstats_schema_desc(schema->decoded, i);
            fprintf(to,
                    "%s{\"type\":%d,\"unit\":%d,\"base\":%d,\"exponent\":%d,\"size\":%d,"
                    "\"bucket_size\":%" PRIu32 ",",
                    i ? "," : "", d->type, d->unit, d->base, d->exponent, d->size, d->bucket_size);
            print_hex(to, "name", d->name);
            fprintf(to, "}");
        }
        fprintf(to, "]}");
    }
    fprintf(to, "]");
}

static void print_block(const uint8_t *block, const struct schema *schema, FILE *to)
{
    fprintf(to, "{\"schema\":%u,\"values\":[", schema->index);
    for (size_t i = 0; i < kvmstats_schema_count(schema->decoded); i++) {
        const struct kvmstats_desc *d = kvmstats_schema_desc(schema->decoded, i);
        fprintf(to, "%s[", i ? "," : "");
        for (size_t k = 0; k < d->size; k++)
            fprintf(to, "%s%" PRIu64, k ? "," : "", kvmstats_value(d, block, k));
        fprintf(to, "]");
    }
    fprintf(to, "]}");
}

static void print_vm(const struct stage_vm *svm, const char *name, const struct frame *frame,
                     const struct layout_vm *vm, FILE *to)
{
    fprintf(to, "{");
    print_hex(to, "vm", name);
    fprintf(to, ",");
    print_hex(to, "uuid", svm->identity->uuid);
    fprintf(to, ",");
    print_hex(to, "machine", svm->identity->machine);
    fprintf(to, ",");
    print_hex(to, "unit", svm->identity->unit);
    fprintf(to, ",\"pid\":%d,\"start_ns\":%" PRId64 ",\"n_vcpus\":%" PRIu32 ",\"retired\":",
            (int)svm->identity->pid, svm->identity->start_wall_ns, vm->n_vcpus);
    if (vm->retired)
        print_block((const uint8_t *)vm->retired, vm->retired_schema, to);
    else
        fprintf(to, "null");
    fprintf(to, ",\"targets\":[");
    for (uint32_t t = 0; t < vm->n_targets; t++) {
        const struct layout_target *target = &frame->layout->targets[vm->first_target + t];
        static const char *const status[] = {"absent", "read", "held"};
        fprintf(to, "%s{\"vcpu\":%d,\"status\":\"%s\",\"block\":", t ? "," : "", target->vcpu,
                status[frame->status[vm->first_target + t]]);
        print_block(frame_block(frame, target), target->schema, to);
        fprintf(to, "}");
    }
    fprintf(to, "]}");
}

void model_print(struct model *model, FILE *to)
{
    static const char *const histograms[] = {"vcpu", "vm", "off"};
    const struct config *config = model->stage.config;
    const char *exclude = config->metrics.exclude.n ? config->metrics.exclude.items[0] : "";
    fprintf(to, "{\"vcpu\":%s,\"histograms\":\"%s\",\"exclude\":\"%s\",",
            config->metrics.vcpu ? "true" : "false", histograms[config->metrics.histograms],
            exclude);
    print_schemas(&model->stage.store->schemas, to);
    fprintf(to, ",\"vms\":[");
    bool first = true;
    for (size_t i = 0; i < model->stage.n_vms; i++) {
        const struct stage_vm *svm = &model->stage.vms[i];
        const struct frame *frame = stage_frame(&model->stage, svm->ring);
        for (uint32_t v = 0; v < frame->layout->n_vms; v++) {
            if (frame->layout->vms[v].vm != svm->vm)
                continue;
            fprintf(to, "%s", first ? "" : ",");
            print_vm(svm, model->names[i], frame, &frame->layout->vms[v], to);
            first = false;
        }
    }
    fprintf(to, "]}\n");
}
