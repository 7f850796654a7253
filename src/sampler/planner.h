/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The planner: what discovery wants sampled, turned into layouts that the sampler adopts. It
 * decides which rate group a VM belongs to, where its blocks stand in the frames, and what label it
 * gets.
 *
 * Everything here allocates; the sampler does not. THREADS: discovery only, all of it.
 */
#pragma once

#include "bpf.h"
#include "config.h"
#include "sampler.h"
#include "store.h"

struct planner;
struct planned_vm;

/* What is known of a VM when it is added. Strings may hold any bytes and are copied. */
struct planned_vm_spec {
    const char *name, *uuid, *vmm, *machine, *unit; /* "" when unknown */
    pid_t pid;
    int64_t start_wall_ns;
    int64_t created_ns; /* when the kernel announced it; 0: not known */
    uint32_t n_vcpus;
    void *owner; /* the caller's; see planned_vm_owner() */
};

/* `store`, `sampler` and `reaper` are borrowed. */
MUST_USE int planner_new(struct store *store, struct sampler *sampler, struct config *config,
                         struct planner **ret_planner);
/* Lets go of everything still planned: call after sampler_free() and reaper_stop(). */
void planner_free(struct planner *planner);
DEFINE_CLEANUP(struct planner *, planner_free)

/*
 * Adds a VM whose VMM is `pidfd` (consumed in every case). Nothing is sampled before
 * planner_commit(). Returns 0, -ENOMEM, or -ENOSPC (limits.max_vms).
 */
MUST_USE int planner_vm_add(struct planner *planner, const struct planned_vm_spec *spec, int pidfd,
                            struct planned_vm **ret_vm);
/*
 * Adds a target read from `stats_fd` (consumed in every case). `vcpu` is the kernel's vcpu_id, -1
 * for the VM scope; one target an id. Where the target is there from another source, this takes its
 * place without a gap. Returns 0, -ENOMEM, -EEXIST (there from this source), or -ENOSPC
 * (limits.max_vcpus_per_vm).
 */
MUST_USE int planner_target_add(struct planner *planner, struct planned_vm *vm, int32_t vcpu,
                                const struct schema *schema, enum target_source source,
                                int stats_fd);
/*
 * The same for a target that BPF reads at `address`, which is valid while the VM is pinned.
 * -EINVAL: it is not. With `wanted` (copied) it need not be: then the block is read when a file of
 * the object is visited, which is slower. One of the two ways takes the place of the other.
 */
MUST_USE int planner_target_add_bpf(struct planner *planner, struct planned_vm *vm, int32_t vcpu,
                                    const struct schema *schema, uint64_t address,
                                    const struct bpf_wanted *wanted);
/* Keeps a borrowed kvm-vm fd (consumed in every case) until the VM ends; a second one is closed. */
void planner_vm_pin(struct planned_vm *vm, int kvm_vm_fd);
bool planner_vm_is_pinned(const struct planned_vm *vm);
/* The target's fd is closed and a vCPU's last values are kept in the VM's sums. */
void planner_target_remove(struct planner *planner, struct planned_vm *vm, int32_t vcpu);
/* The borrowed fd of a target while it is planned (for comparing files), or -1. */
int planner_target_fd(const struct planned_vm *vm, int32_t vcpu);
void planner_vm_set_vcpus(struct planner *planner, struct planned_vm *vm, uint32_t n_vcpus);
/*
 * Ends a VM, whether or not its VMM lives; all its fds are closed by the reaper. `vm` is invalid
 * afterwards. Also to be called for a VM of which a SAMPLER_EVENT_VM_EXITED came.
 */
void planner_vm_remove(struct planner *planner, struct planned_vm *vm);

/* The label the VM has been given and its interval: valid after a commit, until the next. */
const char *planner_vm_label(const struct planned_vm *vm);
int64_t planner_vm_interval_ns(const struct planned_vm *vm);
/* The VM that a sampler event is about, NULL when it has been removed meanwhile; and its owner. */
struct planned_vm *planner_vm_by_id(const struct planner *planner, uint64_t vm_id);
void *planned_vm_owner(const struct planned_vm *vm);
/* struct vm.id of a VM. */
uint64_t planned_vm_id(const struct planned_vm *vm);

/*
 * Takes a new configuration (a reference): intervals and limits count from the next commit. What
 * the rules disable is discovery's to remove.
 */
void planner_set_config(struct planner *planner, struct config *config);

/*
 * Hands the changes since the last commit to the sampler. Returns 0 (also when nothing changed), or
 * -ENOMEM: then what was sampled before goes on, and the next commit tries again.
 */
MUST_USE int planner_commit(struct planner *planner);
