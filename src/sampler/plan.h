/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between planner and sampler: what a plan says, and the objects that both refer to. Each field
 * says whose it is; nothing here is locked.
 */
#pragma once

#include <stdbool.h>

#include "bpf_frames.h"
#include "sampler.h"

struct group;

/* What an epoll event is about: the first member of whatever is watched. */
struct watch {
    enum watch_kind {
        WATCH_INBOX,
        WATCH_TIMER,
        WATCH_VMM,
    } kind;
};

/*
 * The last values of a vCPU that has left, by which its VM's sums go on counting it. KVM keeps a
 * vCPU as long as its VM, so the same one may come back: then it counts by itself again.
 */
struct retired_vcpu {
    struct retired_vcpu *next;
    int32_t vcpu;
    const struct schema *schema;
    uint8_t block[];
};

/* A data block that is read in every tick. Made by the planner, closed and freed by the reaper. */
struct sampled_target {
    struct reapable close_item; /* closes fd */
    struct reapable free_item;  /* closes fd if nobody has, frees the target */
    /* immutable */
    struct sampled_vm *vm;
    const struct schema *schema;
    enum target_source source;
    int32_t vcpu;
    int fd;                   /* owned, closed by the reaper only; -1: read by BPF */
    uint64_t address;         /* of its block, for BPF; valid while the VM is pinned … */
    struct bpf_wanted wanted; /* … or while a file of it is visited; object 0: it is pinned */
    /* THREADS: discovery only */
    bool submitted;
    struct sampled_target *next_leaving; /* of its VM, until the plan that drops it */
    /* THREADS: reaper only */
    bool closed;
    /* THREADS: sampler only, once submitted */
    struct sampled_target
        *predecessor;             /* the same target read another way: its values carry over */
    bool superseded;              /* leaves because it has a successor */
    struct sampler_event *failed; /* posted at the first failure, then NULL */
    struct group *group;          /* where it is read now: layout->targets[index] … */
    uint32_t index;
    uint32_t seat; /* … by readings[seat], or copies[seat] where it has an address */
    bool closing;  /* its fd is the reaper's */
    struct sampled_target *next_closing;
    struct retired_vcpu *retirement; /* owned; room, made by the planner before a vCPU leaves */
};

/* A VM that is sampled. Made by the planner, freed by the reaper after the plan that drops it. */
struct sampled_vm {
    struct watch watch;         /* of the pidfd */
    struct reapable close_item; /* closes `closing` and the pidfd */
    struct reapable free_item;
    /* immutable */
    struct vm *vm; /* a reference */
    int pidfd;     /* owned; closed by the reaper only */
    /*
     * A borrowed kvm-vm fd that keeps the kernel's objects valid for BPF. -1: none; PIN_CLOSED: the
     * reaper has let go and none is to come. THREADS: discovery and reaper, by compare and swap.
     */
    _Atomic int pin_fd;
    struct selfhist *release_hist;
    /* THREADS: reaper only */
    bool closed;
    /* THREADS: sampler only, until close_item is posted */
    struct group *group; /* where it stands now: vms[index] */
    uint32_t index;
    struct sampler_event *exited; /* posted when the VMM exits, then NULL */
    bool let_go;                  /* close_item has been posted */
    int64_t exited_ns;            /* when the VMM's exit was seen; 0: it was removed alive */
    struct sampled_target *closing;
    struct retired_vcpu *retired; /* owned; each vcpu once */
};

/* What a target had when it was read well last. */
struct last_reading {
    const uint8_t *block; /* NULL: it never was */
    int64_t read_ns;
};

/* What the tick needs of a target with a stats fd, packed. fd -1: not to be read any more. */
struct reading {
    int fd;
    uint32_t target; /* index in the layout */
    uint32_t offset; /* in frame->data */
    uint32_t bytes;
    uint32_t data_offset; /* in the stats file */
};

/* The same of a target that BPF reads. address 0: not to be read any more. */
struct block_copy {
    uint64_t address;
    uint32_t target;
    uint32_t offset; /* in frame->data, a whole number of elements from the frame's start */
    uint32_t bytes;
    bool by_files; /* its VM is not pinned */
};

/* A layout with all that reading it takes. Adopted whole. */
struct group_plan {
    unsigned slot;                 /* store->rings[slot] */
    int64_t interval_ns;           /* > 0 */
    struct layout *layout;         /* no VMs: the group ends */
    uint32_t n_readings, n_copies; /* together layout->n_targets */
    uint32_t n_by_files;           /* of n_copies */
    struct reading *readings;
    struct block_copy *copies;
    struct bpf_frames *sweep;        /* a reference; NULL where there is nothing to copy */
    struct sampled_target **targets; /* layout->n_targets */
    struct sampled_vm **vms;         /* layout->n_vms */
    /*
     * layout->n_targets; filled by the sampler on adoption: each target's last reading in the frame
     * that was newest then. Valid until the first sweep is published.
     */
    struct last_reading *carried;
    /* New memory for its frames; NULL: what is there does. */
    struct frame_memory *memory[FRAMES_MAX];
    bool at_once; /* VMs move here from another group: read now, so that no scrape misses them */
    bool news;    /* there are targets that were never read */
    /* THREADS: the reaper, after the sampler has exchanged it for its successor */
    struct reapable reapable;
};

enum {
    PIN_NONE = -1,
    PIN_CLOSED = -2,
};

struct plan {
    struct letter letter; /* first member */
    struct reapable reapable;
    unsigned n_groups;
    struct group_plan *groups[RINGS_MAX]; /* owned until adopted, then NULL */
    size_t n_joining;
    struct sampled_vm **joining; /* to be watched from now on */
    size_t n_leaving_vms;
    struct sampled_vm **leaving_vms; /* in none of the layouts any more: to be let go and freed */
    size_t n_leaving_targets;
    struct sampled_target **leaving_targets; /* likewise, of VMs that stay */
};

/* THREADS: discovery. The sampler owns `plan` from here on. */
void sampler_submit(struct sampler *sampler, struct plan *plan);

/* Releases what a plan holds but not the VMs and targets it names. */
void plan_free(struct plan *plan);
void group_plan_free(struct group_plan *group_plan);
void sampled_target_free(struct sampled_target *target);
void sampled_vm_free(struct sampled_vm *vm);
DEFINE_CLEANUP(struct plan *, plan_free)
DEFINE_CLEANUP(struct group_plan *, group_plan_free)
DEFINE_CLEANUP(struct sampled_target *, sampled_target_free)
DEFINE_CLEANUP(struct sampled_vm *, sampled_vm_free)
