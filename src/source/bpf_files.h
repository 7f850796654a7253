/* SPDX-License-Identifier: Apache-2.0 */
/* The pass over files of a sweep: see bpf_sweep_run_files() in bpf.h, whose rules hold. */
#pragma once

#include "bpf.h"

struct bpf_map;
struct bpf_files;

/* Copies from and to the sweep's maps, which are borrowed. Returns 0 or -errno. */
MUST_USE int bpf_files_new(struct bpf_map *copies, struct bpf_map *frames, uint32_t n_copies,
                           uint32_t element_bytes, struct bpf_files **ret_files);
void bpf_files_free(struct bpf_files *files);
DEFINE_CLEANUP(struct bpf_files *, bpf_files_free)

void bpf_files_forget(struct bpf_files *files);
void bpf_files_want(struct bpf_files *files, const struct bpf_wanted *wanted, uint32_t index);
/* Into the frame that starts at element `base`. Returns the number of blocks copied, or -errno. */
MUST_USE int bpf_files_run(struct bpf_files *files, uint32_t base);
/* What a copy that the last pass made has in `seen`; never 0. */
uint32_t bpf_files_mark(const struct bpf_files *files);
