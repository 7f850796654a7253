/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host made of numbers: VMs whose targets, values and troubles are random, recorded as the
 * sampler does it, with a plain list of everything that happened to hold the recorder against.
 */
#pragma once

#include "recorder.h"
#include "replay.h"

enum {
    WORLD_VMS_MAX = 8,
    WORLD_TARGETS_MAX = 6,
    WORLD_BLOCK_BYTES = 1200,
    WORLD_SCHEMAS = 4,
};

struct world_target {
    struct layout_target place;
    uint8_t status;
    int64_t read_ns;
    uint8_t block[WORLD_BLOCK_BYTES];
};

/* What a VM had in a tick. */
struct world_tick {
    int64_t time_ns; /* what recorder_tick_ns() says */
    uint32_t n;
    struct world_target targets[WORLD_TARGETS_MAX];
};

struct world_vm {
    struct vm *vm; /* NULL: there is none at this place */
    struct world_tick now;
    size_t n_ticks, capacity;
    struct world_tick *ticks; /* all there ever were, the oldest first */
};

struct world {
    struct store *store;
    struct recorder *recorder;
    const struct schema *schemas[WORLD_SCHEMAS];
    struct replay_schemas *replay_schemas;
    int64_t now_ns;
    struct world_vm vms[WORLD_VMS_MAX];
};

void world_init(struct world *world, uint64_t memory_bytes);
void world_deinit(struct world *world);
/* A VM with random targets. */
void world_vm_start(struct world *world, struct world_vm *vm);
/* Its targets become others. */
void world_vm_change(struct world *world, struct world_vm *vm);
/* What it has last is recorded; its memory stays as it is. */
void world_vm_last(struct world *world, struct world_vm *vm);
void world_vm_end(struct world *world, struct world_vm *vm);
/* Everything that can happen in a tick happens to somebody. */
void world_tick(struct world *world, struct world_vm *vm);

/* A frame that has nothing but this VM, as it was in a tick. */
struct world_frame {
    struct frame frame;
    struct layout layout;
    struct layout_vm vm;
    struct layout_target targets[WORLD_TARGETS_MAX];
    uint8_t status[WORLD_TARGETS_MAX];
    int64_t read_ns[WORLD_TARGETS_MAX];
    uint8_t data[WORLD_TARGETS_MAX * (WORLD_BLOCK_BYTES + 64)];
};
void world_frame(const struct world_tick *tick, struct world_frame *ret_frame);

/*
 * Holds a replay, which has been sought to its end, against the ticks up to `n`: those it has must
 * be the last of them, bit by bit. Returns how many it has.
 */
size_t world_compare(const struct world_vm *vm, size_t n, struct replay *replay);
