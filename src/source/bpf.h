/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KVM's statistics by BPF: every VM on the host, whoever runs it, with no change to its VMM.
 *
 * Three programs. An iterator lists the open KVM files of all processes; it wants CAP_BPF,
 * CAP_PERFMON and the kernel's BTF to be loaded. The sweep copies the blocks of one rate group into
 * its frames, all in few system calls, from VMs that somebody pins. Another iterator copies those
 * of VMs that nobody can pin, while it visits their files. Once loaded, none wants any privilege.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "bpf/shared.h"
#include "cleanup.h"
#include "schema_table.h"

/* Why BPF cannot be used: one sentence, and what would help. */
struct bpf_error {
    char message[320];
};

struct bpf_source;

/*
 * Finds KVM's structures in the kernel's BTF and loads the iterator.
 * Returns 0, -EPERM (privilege, lockdown), -EOPNOTSUPP (no BTF, kernel too old), -ENODEV (no KVM in
 * it: its module may be loaded later) or another -errno, each with *ret_error filled. THREADS:
 * discovery.
 */
MUST_USE int bpf_source_new(struct bpf_source **ret_source, struct bpf_error *ret_error);
void bpf_source_free(struct bpf_source *source);
DEFINE_CLEANUP(struct bpf_source *, bpf_source_free)

/*
 * One pass over all open files of the host. The result is the caller's to free(); it is ordered as
 * the processes and their fds are. The addresses in it are good for bpf_sweep_set() only while a
 * kvm-vm fd of the VM is held. Returns 0 or -errno. THREADS: discovery.
 */
MUST_USE int bpf_source_list(struct bpf_source *source, struct bpf_kvm_file **ret_files,
                             size_t *ret_n);

/* Where a data block is: the address of its object's statistics. */
uint64_t bpf_source_block(const struct bpf_source *source, enum scope scope,
                          const struct bpf_kvm_file *file);

/* What the pass over files must find before it copies; `index` is the sweep's to fill in. */
void bpf_source_wanted(const struct bpf_source *source, enum scope scope,
                       const struct bpf_kvm_file *file, struct bpf_wanted *ret_wanted);

/*
 * The schemas of the running kernel, from a scratch VM with one vCPU that is closed at once.
 * Creating the first VM of a host switches hardware virtualisation on, so call it only while some
 * VM exists. ret_schemas by enum scope. Returns 0 or -errno with *ret_error filled.
 */
MUST_USE int bpf_source_schemas(struct schema_table *table, const struct schema *ret_schemas[2],
                                struct bpf_error *ret_error);

/* --- the sweep of one rate group --- */

struct bpf_sweep;

/*
 * Loads a sweep with room for `n_copies` blocks, over `n_frames` frames of `frame_elements`
 * elements of `element_bytes` each (a multiple of 8; frame_elements * element_bytes a multiple of
 * the page). Returns 0 or -errno. THREADS: discovery.
 */
MUST_USE int bpf_sweep_new(uint32_t n_copies, uint32_t n_frames, uint32_t frame_elements,
                           uint32_t element_bytes, struct bpf_sweep **ret_sweep,
                           struct bpf_error *ret_error);
void bpf_sweep_free(struct bpf_sweep *sweep);
DEFINE_CLEANUP(struct bpf_sweep *, bpf_sweep_free)

/*
 * Loads the pass over files too, which takes the kernel's BTF. Returns 0 or -errno. THREADS:
 * discovery, before the sampler has the sweep.
 */
MUST_USE int bpf_sweep_add_files(struct bpf_sweep *sweep, struct bpf_error *ret_error);

/* The memory of a frame, mapped until bpf_sweep_free(); zero at the start. */
void *bpf_sweep_frame(struct bpf_sweep *sweep, uint32_t frame);

/* THREADS: sampler only, from here on. address 0: this block is not copied any more. */
void bpf_sweep_set(struct bpf_sweep *sweep, uint32_t i, uint64_t address, uint32_t bytes,
                   uint32_t element);
/*
 * Copies blocks first … first + n - 1 (n at most BPF_SWEEP_CHUNK) into `frame`. Returns the number
 * of copies that failed (bpf_sweep_failed() says which), or -errno when nothing was copied.
 */
MUST_USE int bpf_sweep_run(struct bpf_sweep *sweep, uint32_t frame, uint32_t first, uint32_t n);
/* Whether block i failed since the last call of this; clears it. */
bool bpf_sweep_failed(struct bpf_sweep *sweep, uint32_t i);

/* From now on no block is wanted by its files: before the blocks of a new layout are set. */
void bpf_sweep_forget_files(struct bpf_sweep *sweep);
/*
 * Block i is copied by bpf_sweep_run_files() and by that alone; bpf_sweep_set() with address 0 ends
 * it. Needs bpf_sweep_add_files().
 */
void bpf_sweep_set_wanted(struct bpf_sweep *sweep, uint32_t i, const struct bpf_wanted *wanted,
                          uint32_t bytes, uint32_t element);
/*
 * One pass over all open files of the host. Returns the number of blocks copied (bpf_sweep_seen()
 * says which), or -errno when it could not be made.
 */
MUST_USE int bpf_sweep_run_files(struct bpf_sweep *sweep, uint32_t frame);
/* Whether the last pass found block i, and if so, when, by CLOCK_MONOTONIC. */
bool bpf_sweep_seen(const struct bpf_sweep *sweep, uint32_t i, int64_t *ret_read_ns);
