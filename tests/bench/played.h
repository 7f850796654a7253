/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many busy VMs on a machine that cannot run them: what the statistics of a few did from tick to
 * tick is kept, and played in files in memory that look like statistics files, which the daemon's
 * parts read as they read the kernel's. What such a read costs is not what the kernel's costs; what
 * is made of it afterwards cannot tell the difference.
 */
#pragma once

#include "sweep_host.h"

enum {
    KEPT_TICKS_MAX = 64,
    KEPT_BLOCK_BYTES = 2048, /* room for a block of any architecture */
    KEPT_BLOCK_CELLS = KEPT_BLOCK_BYTES / 8,
};

/* What the targets of some VMs did from tick to tick: blocks of differences. */
struct kept {
    uint32_t vms, targets; /* all VMs have the same number of targets */
    uint32_t ticks;
    uint32_t at;     /* while it is filled: the tick that the next step overwrites */
    uint64_t *steps; /* [KEPT_TICKS_MAX][vms * targets][KEPT_BLOCK_CELLS] */
};

void kept_init(struct kept *kept, uint32_t vms, uint32_t targets);
/*
 * Adds what moved between `before` ([vms * targets] blocks, which become those of `frame`) and
 * `frame`, all of whose VMs are busy. The oldest go when there are too many.
 */
void kept_add(struct kept *kept, const struct frame *frame, uint64_t *before);
/* The blocks of a frame, in the layout's order, each in KEPT_BLOCK_BYTES. */
void kept_blocks(const struct frame *frame, uint64_t *to);
void kept_write(const struct kept *kept, const char *path);
void kept_read(struct kept *kept, const char *path);

struct played {
    const struct kept *kept;
    uint32_t vms;
    uint32_t targets;                   /* of each VM */
    const struct layout_target *places; /* of a VM: schemas and ids; belong to the model's layout */
    uint64_t turn;
    int *fds;          /* [vms * targets], until the last host has them */
    uint8_t **content; /* the files, mapped */
};

/*
 * `vms` VMs whose files begin with what those of the first VM of `model` do. As many targets as a
 * VM of `kept` has.
 */
void played_open(struct played *played, const struct kept *kept, const struct host *model,
                 uint32_t vms);
/* A daemon's parts over them. There may be several; the last one takes the fds, which are many. */
void played_host(struct played *played, const char *config, bool last, struct host *ret_host);
/* Each of the VMs goes on by a tick of one of those that were kept. */
void played_step(struct played *played);
