/* SPDX-License-Identifier: Apache-2.0 */
#include "stage.h"

#include <string.h>

#define MUST(condition)                                                                   \
    do {                                                                                  \
        if (!(condition)) {                                                               \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition); \
            abort();                                                                      \
        }                                                                                 \
    } while (0)

enum {
    FIRST_NS = 1000000000,
    TICK_NS = 100000000,
};

void stage_init(struct stage *stage)
{
    *stage = (struct stage){.now_ns = FIRST_NS};
    MUST(store_new(&stage->store) == 0);
    MUST(config_defaults(&stage->config) == 0);
    stage->vms = calloc(STAGE_VMS_MAX, sizeof *stage->vms);
    MUST(stage->vms);
}

void stage_deinit(struct stage *stage)
{
    for (size_t i = 0; i < stage->n_vms; i++) {
        vm_unref(stage->vms[i].vm);
        vm_identity_unref(stage->vms[i].identity);
    }
    for (size_t i = 0; i < stage->n_layouts; i++)
        layout_free(stage->layouts[i]);
    free(stage->vms);
    store_free(stage->store);
    config_unref(stage->config);
}

const struct schema *stage_schema(struct stage *stage, enum scope scope,
                                  const struct kvmstats_desc *descs, size_t n)
{
    uint32_t name_size = 48, end = 0;
    CLEANUP_FREE struct kvmstats_desc *laid_out = calloc(n ? n : 1, sizeof *laid_out);
    for (size_t i = 0; i < n; i++) {
        laid_out[i] = descs[i];
        laid_out[i].flags =
            descs[i].type | (uint32_t)descs[i].unit << 4 | (uint32_t)descs[i].base << 8;
        if (laid_out[i].offset == 0)
            laid_out[i].offset = end;
        end = MAX_OF(end, laid_out[i].offset + laid_out[i].size * 8u);
        name_size = MAX_OF(name_size, ((uint32_t)strlen(descs[i].name) + 8) & ~7u);
    }
    uint32_t data_offset = (uint32_t)(24 + name_size + n * (16 + name_size));
    CLEANUP_FREE uint8_t *data = calloc(1, end ? end : 1);
    size_t capacity = data_offset + end;
    CLEANUP_FREE uint8_t *file = calloc(1, capacity);
    const struct kvmstats_model model = {
        .name_size = name_size,
        .id_offset = 24,
        .desc_offset = 24 + name_size,
        .data_offset = data_offset,
        .id = "kvm-1",
        .descs = laid_out,
        .num_desc = (uint32_t)n,
        .data = data,
        .data_bytes = end,
    };
    size_t len = kvmstats_encode(&model, file, capacity);
    MUST(len > 0);
    struct kvmstats_error error = {0};
    struct kvmstats_schema *decoded;
    int r = kvmstats_schema_decode(file, len, &decoded, &error);
    if (r < 0)
        fprintf(stderr, "stage: %s\n", error.message);
    MUST(r == 0);
    const struct schema *schema;
    MUST(schema_table_intern(&stage->store->schemas, scope, decoded, &schema) == 0);
    return schema;
}

#define COUNTER(name)  STAGE_DESC(name, CUMULATIVE, NONE, 0, 1)
#define INSTANT(name)  STAGE_DESC(name, INSTANT, NONE, 0, 1)
#define SECONDS(name)  STAGE_DESC(name, CUMULATIVE, SECONDS, -9, 1)
#define LOG_HIST(name) STAGE_DESC(name, LOG_HIST, SECONDS, -9, 32)
#define BOOLEAN(name)  STAGE_DESC(name, INSTANT, BOOLEAN, 0, 1)
#define PEAK(name)     STAGE_DESC(name, PEAK, NONE, 0, 1)

/* clang-format off */
static const struct kvmstats_desc x86_vm[] = {
    COUNTER("remote_tlb_flush"), COUNTER("remote_tlb_flush_requests"),
    COUNTER("mmu_shadow_zapped"), COUNTER("mmu_pte_write"), COUNTER("mmu_pde_zapped"),
    COUNTER("mmu_flooded"), COUNTER("mmu_recycled"), COUNTER("mmu_cache_miss"),
    INSTANT("mmu_unsync"), INSTANT("pages_4k"), INSTANT("pages_2m"), INSTANT("pages_1g"),
    INSTANT("nx_lpage_splits"), PEAK("max_mmu_rmap_size"), PEAK("max_mmu_page_hash_collisions"),
    COUNTER("pf_parked"),
};
static const struct kvmstats_desc x86_vcpu[] = {
    COUNTER("halt_successful_poll"), COUNTER("halt_attempted_poll"), COUNTER("halt_poll_invalid"),
    COUNTER("halt_wakeup"), SECONDS("halt_poll_success_ns"), SECONDS("halt_poll_fail_ns"),
    SECONDS("halt_wait_ns"), LOG_HIST("halt_poll_success_hist"), LOG_HIST("halt_poll_fail_hist"),
    LOG_HIST("halt_wait_hist"), BOOLEAN("blocking"),
    COUNTER("pf_taken"), COUNTER("pf_fixed"), COUNTER("pf_emulate"), COUNTER("pf_spurious"),
    COUNTER("pf_fast"), COUNTER("pf_mmio_spte_created"), COUNTER("pf_guest"), COUNTER("tlb_flush"),
    COUNTER("invlpg"), COUNTER("exits"), COUNTER("io_exits"), COUNTER("mmio_exits"),
    COUNTER("signal_exits"), COUNTER("irq_window_exits"), COUNTER("nmi_window_exits"),
    COUNTER("l1d_flush"), COUNTER("halt_exits"), COUNTER("request_irq_exits"), COUNTER("irq_exits"),
    COUNTER("host_state_reload"), COUNTER("fpu_reload"), COUNTER("insn_emulation"),
    COUNTER("insn_emulation_fail"), COUNTER("hypercalls"), COUNTER("irq_injections"),
    COUNTER("nmi_injections"), COUNTER("req_event"), COUNTER("nested_run"),
    COUNTER("directed_yield_attempted"), COUNTER("directed_yield_successful"),
    COUNTER("preemption_reported"), COUNTER("preemption_other"), BOOLEAN("guest_mode"),
    COUNTER("notify_window_exits"), COUNTER("pf_park_timeouts"), COUNTER("pf_parks"),
};
/* clang-format on */

const struct schema *stage_x86_schema(struct stage *stage, enum scope scope)
{
    return scope == SCOPE_VM ? stage_schema(stage, scope, x86_vm, ARRAY_LEN(x86_vm))
                             : stage_schema(stage, scope, x86_vcpu, ARRAY_LEN(x86_vcpu));
}

size_t stage_vm_add(struct stage *stage, const struct vm_identity_spec *spec, unsigned ring,
                    const struct schema *vm_schema, const struct schema *vcpu_schema,
                    uint32_t n_vcpus)
{
    MUST(stage->n_vms < STAGE_VMS_MAX);
    struct stage_vm *vm = &stage->vms[stage->n_vms];
    *vm = (struct stage_vm){
        .vm_schema = vm_schema,
        .vcpu_schema = vcpu_schema,
        .n_vcpus = vcpu_schema ? n_vcpus : 0,
        .ring = ring,
    };
    MUST(vm_new(&vm->vm) == 0);
    MUST(vm_identity_new(spec, &vm->identity) == 0);
    return stage->n_vms++;
}

static void add_target(struct layout *layout, const struct schema *schema, int vcpu,
                       const struct vm_identity *identity, size_t *labels_len)
{
    struct layout_target *target = &layout->targets[layout->n_targets++];
    *target = (struct layout_target){
        .schema = schema,
        .offset = (uint32_t)layout->data_bytes,
        .vcpu = vcpu,
    };
    layout->data_bytes += (schema->data_bytes + 7) & ~7u;
    if (vcpu < 0)
        return;
    target->labels_offset = (uint32_t)*labels_len;
    layout->labels = realloc(layout->labels, *labels_len + identity->labels_len + 32);
    target->labels_len = (uint32_t)sprintf(layout->labels + *labels_len, "%.*s,vcpu=\"%d\"",
                                           (int)identity->labels_len, identity->labels, vcpu);
    *labels_len += target->labels_len;
}

static struct layout *make_layout(struct stage *stage, unsigned ring)
{
    size_t labels_len = 0, n_targets = 0;
    for (size_t i = 0; i < stage->n_vms; i++)
        n_targets += 1 + stage->vms[i].n_vcpus;
    struct layout *layout = calloc(1, sizeof *layout);
    layout->vms = calloc(stage->n_vms + 1, sizeof *layout->vms);
    layout->targets = calloc(n_targets + 1, sizeof *layout->targets);
    for (size_t i = 0; i < stage->n_vms; i++) {
        const struct stage_vm *vm = &stage->vms[i];
        if (vm->ring != ring || vm->gone)
            continue;
        struct layout_vm *lvm = &layout->vms[layout->n_vms++];
        *lvm = (struct layout_vm){
            .vm = vm_ref(vm->vm),
            .identity = vm_identity_ref(vm->identity),
            .first_target = layout->n_targets,
            .n_vcpus = vm->n_vcpus,
        };
        if (vm->vm_schema)
            add_target(layout, vm->vm_schema, -1, vm->identity, &labels_len);
        for (uint32_t c = 0; c < vm->n_vcpus; c++)
            add_target(layout, vm->vcpu_schema, (int)c, vm->identity, &labels_len);
        lvm->n_targets = layout->n_targets - lvm->first_target;
    }
    layout->head_bytes = (layout_head_bytes(layout->n_targets) + 64) & ~(size_t)63;
    MUST(stage->n_layouts < STAGE_LAYOUTS_MAX);
    return stage->layouts[stage->n_layouts++] = layout;
}

/* A free frame with fresh memory for the layout; its publication is the caller's. */
static struct frame *new_frame(struct stage *stage, unsigned ring, struct layout *layout)
{
    struct frame *frame = ring_free_frame(&stage->store->rings[ring]);
    MUST(frame);
    frame_memory_free(frame->memory);
    MUST(frame_memory_new(layout->head_bytes + layout->data_bytes + 1, &frame->memory) == 0);
    frame->layout = layout;
    frame_lay_out(frame);
    stage->now_ns += TICK_NS;
    frame->begin_ns = frame->end_ns = stage->now_ns;
    for (uint32_t i = 0; i < layout->n_targets; i++)
        frame->read_ns[i] = stage->now_ns;
    return frame;
}

struct layout *stage_layout(struct stage *stage, unsigned ring)
{
    struct layout *layout = make_layout(stage, ring);
    struct frame *frame = new_frame(stage, ring, layout);
    memset(frame->status, TARGET_READ, layout->n_targets);
    ring_publish(&stage->store->rings[ring], frame);
    return layout;
}

struct frame *stage_frame(struct stage *stage, unsigned ring)
{
    return atomic_load(&stage->store->rings[ring].newest);
}

struct frame *stage_tick_prepare(struct stage *stage, unsigned ring)
{
    const struct frame *old = stage_frame(stage, ring);
    struct frame *frame = new_frame(stage, ring, old->layout);
    memcpy(frame->status, old->status, old->layout->n_targets);
    memcpy(frame->data, old->data, old->layout->data_bytes);
    return frame;
}

void stage_tick(struct stage *stage, unsigned ring)
{
    struct frame *frame = stage_tick_prepare(stage, ring);
    ring_publish(&stage->store->rings[ring], frame);
}

static uint32_t find_target(struct stage *stage, size_t vm, int vcpu)
{
    const struct layout *layout = stage_frame(stage, stage->vms[vm].ring)->layout;
    for (uint32_t i = 0; i < layout->n_vms; i++) {
        const struct layout_vm *lvm = &layout->vms[i];
        for (uint32_t t = 0; lvm->vm == stage->vms[vm].vm && t < lvm->n_targets; t++) {
            if (layout->targets[lvm->first_target + t].vcpu == vcpu)
                return lvm->first_target + t;
        }
    }
    MUST(!"there is no such target");
    return 0;
}

uint8_t *stage_status(struct stage *stage, size_t vm, int vcpu)
{
    return &stage_frame(stage, stage->vms[vm].ring)->status[find_target(stage, vm, vcpu)];
}

uint64_t *stage_cell(struct stage *stage, size_t vm, int vcpu, const char *stat, size_t k)
{
    const struct frame *frame = stage_frame(stage, stage->vms[vm].ring);
    const struct layout_target *target = &frame->layout->targets[find_target(stage, vm, vcpu)];
    const struct kvmstats_desc *desc = kvmstats_schema_find(target->schema->decoded, stat);
    MUST(desc && k < desc->size);
    return (uint64_t *)(void *)(frame->data + target->offset + desc->offset) + k;
}

static int keep_piece(void *ctx, const char *bytes, size_t len)
{
    buffer_put(ctx, bytes, len);
    return 0;
}

static char *render_bytes(const struct view *view, struct exposition *exposition,
                          const struct roster *roster, enum exposition_format format,
                          size_t *ret_len)
{
    CLEANUP_BUFFER struct buffer out = BUFFER_INIT;
    const struct exposition_sink sink = {keep_piece, &out};
    MUST(exposition_render(exposition, view, roster, format, &sink) == 0);
    MUST(out.error == 0);
    buffer_put(&out, "", 1);
    char *bytes = malloc(out.len);
    MUST(bytes);
    *ret_len = out.len - 1;
    return memcpy(bytes, out.data, out.len);
}

char *stage_render_view(const struct view *view, struct exposition *exposition,
                        const struct roster *roster, enum exposition_format format)
{
    size_t len;
    char *text = render_bytes(view, exposition, roster, format, &len);
    MUST(strlen(text) == len);
    return text;
}

char *stage_render_bytes(struct stage *stage, struct exposition *exposition,
                         const struct roster *roster, enum exposition_format format,
                         size_t *ret_len)
{
    CLEANUP_VIEW struct view view;
    MUST(view_take(stage->store, &view) == 0);
    return render_bytes(&view, exposition, roster, format, ret_len);
}

char *stage_render(struct stage *stage, struct exposition *exposition, const struct roster *roster,
                   enum exposition_format format)
{
    CLEANUP_VIEW struct view view;
    MUST(view_take(stage->store, &view) == 0);
    return stage_render_view(&view, exposition, roster, format);
}

struct exposition *stage_exposition(struct stage *stage)
{
    const struct exposition_process process = {"1.2.3", "abc"};
    struct exposition *exposition;
    MUST(exposition_new(stage->config, &process, &exposition) == 0);
    return exposition;
}
