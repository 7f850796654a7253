/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store whose frames are put together by hand, without a sampler: VMs, vCPUs, schemas and values
 * are what the test says. Everything aborts on failure. Link stage.c where it is used.
 */
#pragma once

#include <stdio.h>

#include "exposition.h"
#include "view.h"

enum {
    STAGE_VMS_MAX = 4096,
    STAGE_LAYOUTS_MAX = 64,
};

struct stage_vm {
    struct vm *vm;
    struct vm_identity *identity;
    const struct schema *vm_schema; /* NULL: no target of that scope */
    const struct schema *vcpu_schema;
    uint32_t n_vcpus; /* targets; ids are 0, 1, … */
    unsigned ring;
    bool gone; /* not in the next layout */
};

struct stage {
    struct store *store;
    struct config *config;
    struct stage_vm *vms;
    size_t n_vms;
    struct layout *layouts[STAGE_LAYOUTS_MAX];
    size_t n_layouts;
    int64_t now_ns;
};

void stage_init(struct stage *stage);
void stage_deinit(struct stage *stage);

/* A descriptor; `offset` is set by stage_schema() where it is 0: one after another. */
#define STAGE_DESC(name_, type_, unit_, exponent_, size_)                              \
    {                                                                                  \
        .name = (name_), .type = KVMSTATS_TYPE_##type_, .unit = KVMSTATS_UNIT_##unit_, \
        .exponent = (exponent_), .size = (size_),                                      \
        .bucket_size = KVMSTATS_TYPE_##type_ == KVMSTATS_TYPE_LINEAR_HIST ? 10 : 0,    \
    }
/* Encodes the descriptors into a stats file, decodes that, and interns it. */
const struct schema *stage_schema(struct stage *stage, enum scope scope,
                                  const struct kvmstats_desc *descs, size_t n);
/* The statistics of Linux 6.18 on x86: 16 of a VM or 47 of a vCPU, laid out as there. */
const struct schema *stage_x86_schema(struct stage *stage, enum scope scope);

/* Returns the VM's index. */
size_t stage_vm_add(struct stage *stage, const struct vm_identity_spec *spec, unsigned ring,
                    const struct schema *vm_schema, const struct schema *vcpu_schema,
                    uint32_t n_vcpus);
/* Publishes a frame with a new layout of the ring's VMs: all values 0 and read. */
struct layout *stage_layout(struct stage *stage, unsigned ring);
/* A copy of the ring's newest frame, 100 ms later; the caller publishes it with ring_publish(). */
struct frame *stage_tick_prepare(struct stage *stage, unsigned ring);
/* The same, published. */
void stage_tick(struct stage *stage, unsigned ring);

/* In the newest frame; vcpu -1 is the VM scope. */
struct frame *stage_frame(struct stage *stage, unsigned ring);
uint8_t *stage_status(struct stage *stage, size_t vm, int vcpu);
uint64_t *stage_cell(struct stage *stage, size_t vm, int vcpu, const char *stat, size_t k);

/* The exposition of what is newest, NUL-terminated text; the caller frees it. */
char *stage_render(struct stage *stage, struct exposition *exposition, const struct roster *roster,
                   enum exposition_format format);
/* The same where NULs may be in it. */
char *stage_render_bytes(struct stage *stage, struct exposition *exposition,
                         const struct roster *roster, enum exposition_format format,
                         size_t *ret_len);
/* The same of a view taken before. */
char *stage_render_view(const struct view *view, struct exposition *exposition,
                        const struct roster *roster, enum exposition_format format);
struct exposition *stage_exposition(struct stage *stage);
