/* SPDX-License-Identifier: Apache-2.0 */
/* A build without BPF: everything says so, so that nobody else has to know. */
#include "bpf.h"

#include <stdio.h>

static int refuse(struct bpf_error *error)
{
    (void)snprintf(error->message, sizeof error->message,
                   "this kvmstatd was built without BPF (KVMSTATD_BPF=OFF)");
    return -EOPNOTSUPP;
}

int bpf_source_new(struct bpf_source **ret_source, struct bpf_error *ret_error)
{
    (void)ret_source;
    return refuse(ret_error);
}

void bpf_source_free(struct bpf_source *source)
{
    (void)source;
}

int bpf_source_list(struct bpf_source *source, struct bpf_kvm_file **ret_files, size_t *ret_n)
{
    (void)source;
    (void)ret_files;
    (void)ret_n;
    return -EOPNOTSUPP;
}

uint64_t bpf_source_block(const struct bpf_source *source, enum scope scope,
                          const struct bpf_kvm_file *file)
{
    (void)source;
    (void)scope;
    (void)file;
    return 0;
}

void bpf_source_wanted(const struct bpf_source *source, enum scope scope,
                       const struct bpf_kvm_file *file, struct bpf_wanted *ret_wanted)
{
    (void)source;
    (void)scope;
    (void)file;
    *ret_wanted = (struct bpf_wanted){0};
}

int bpf_sweep_new(uint32_t n_copies, uint32_t n_frames, uint32_t frame_elements,
                  uint32_t element_bytes, struct bpf_sweep **ret_sweep, struct bpf_error *ret_error)
{
    (void)n_copies;
    (void)n_frames;
    (void)frame_elements;
    (void)element_bytes;
    (void)ret_sweep;
    return refuse(ret_error);
}

void bpf_sweep_free(struct bpf_sweep *sweep)
{
    (void)sweep;
}

void *bpf_sweep_frame(struct bpf_sweep *sweep, uint32_t frame)
{
    (void)sweep;
    (void)frame;
    return NULL;
}

void bpf_sweep_set(struct bpf_sweep *sweep, uint32_t i, uint64_t address, uint32_t bytes,
                   uint32_t element)
{
    (void)sweep;
    (void)i;
    (void)address;
    (void)bytes;
    (void)element;
}

int bpf_sweep_run(struct bpf_sweep *sweep, uint32_t frame, uint32_t first, uint32_t n)
{
    (void)sweep;
    (void)frame;
    (void)first;
    (void)n;
    return -EOPNOTSUPP;
}

bool bpf_sweep_failed(struct bpf_sweep *sweep, uint32_t i)
{
    (void)sweep;
    (void)i;
    return false;
}

int bpf_sweep_add_files(struct bpf_sweep *sweep, struct bpf_error *ret_error)
{
    (void)sweep;
    return refuse(ret_error);
}

void bpf_sweep_forget_files(struct bpf_sweep *sweep)
{
    (void)sweep;
}

void bpf_sweep_set_wanted(struct bpf_sweep *sweep, uint32_t i, const struct bpf_wanted *wanted,
                          uint32_t bytes, uint32_t element)
{
    (void)sweep;
    (void)i;
    (void)wanted;
    (void)bytes;
    (void)element;
}

int bpf_sweep_run_files(struct bpf_sweep *sweep, uint32_t frame)
{
    (void)sweep;
    (void)frame;
    return -EOPNOTSUPP;
}

bool bpf_sweep_seen(const struct bpf_sweep *sweep, uint32_t i, int64_t *ret_read_ns)
{
    (void)sweep;
    (void)i;
    (void)ret_read_ns;
    return false;
}
