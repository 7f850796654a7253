/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store, sampler, planner and reaper over fake VMs: a VMM is a forked child that sleeps, a stats
 * fd a memfd that holds a stats file. The sampler cannot tell; reads can so be made to fail, which
 * no real stats fd does.
 */
#pragma once

#include "config.h"
#include "plan.h"
#include "planner.h"
#include "sampler.h"
#include "testing.h"
#include "view.h"

struct rig {
    struct config *config;
    struct store *store;
    struct reaper *reaper;
    struct sampler *sampler;
    struct planner *planner;
};

/* `yaml`: a configuration, "" for the defaults. */
void rig_start(struct rig *rig, const char *yaml);
/* The same without threads: rig_step() does what they would. */
void rig_prepare(struct rig *rig, const char *yaml);
void rig_step(struct rig *rig);
void rig_stop(struct rig *rig);
void rig_set_config(struct rig *rig, const char *yaml);

/* A VMM to be killed, and the planned VM that belongs to it. */
struct fake_vm {
    pid_t pid;
    struct planned_vm *planned;
    uint64_t id;
};
struct fake_vm fake_vm_start(struct rig *rig, const char *name);
void fake_vm_kill(struct fake_vm *vm);

/*
 * Adds a target over a new memfd and returns a duplicate of it for poking. Its statistics:
 * "exits" (cumulative), "blocking" (instant boolean), "wait_hist" (log, 4 buckets), "pages"
 * (instant).
 */
int fake_target(struct rig *rig, struct fake_vm *vm, int32_t vcpu);
int fake_target_from(struct rig *rig, struct fake_vm *vm, int32_t vcpu, enum target_source source);
void fake_target_set(int memfd, uint64_t exits);
/* Also makes a broken one whole again; its exits are as they were. */
void fake_target_set_pages(int memfd, uint64_t pages);
/* Reads fail from now on. */
void fake_target_break(int memfd);

/* Of the newest view: the value of "exits"; UINT64_MAX when VM or target are not there. */
uint64_t seen_exits(struct rig *rig, uint64_t vm_id, int32_t vcpu, uint8_t *ret_status);
/* Of the newest view: when the target was read; 0 when VM or target are not there. */
int64_t seen_read_ns(struct rig *rig, uint64_t vm_id, int32_t vcpu);
/* How often the VM stands in the newest view. */
unsigned seen_times(struct rig *rig, uint64_t vm_id);
/* Waits (10 s at most) until `exits` of the target is `value`. */
void wait_exits(struct rig *rig, uint64_t vm_id, int32_t vcpu, uint64_t value);

unsigned open_fds(void);
void sleep_ms(unsigned ms);
