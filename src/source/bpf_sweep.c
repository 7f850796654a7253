/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The frames of a group that is read by BPF live in a map that is mapped into our memory, so what
 * the program writes is where readers find it. Array maps have a fixed size: a group that outgrows
 * its sweep gets a new one, as it would get new frames.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "bpf.h"
#include "bpf_files.h"
#include "sweep.skel.h"

struct bpf_sweep {
    struct sweep_bpf *skeleton;
    struct bpf_files *files; /* owned; NULL: all VMs are pinned */
    int program_fd;          /* borrowed from the skeleton */
    uint32_t n_copies;
    uint32_t frame_elements, element_bytes;
    size_t frame_bytes;
    struct bpf_copy *copies; /* mapped */
    size_t copies_bytes;
    char *frames; /* mapped */
    size_t frames_bytes;
};

static size_t round_to_page(size_t n)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (n + page - 1) / page * page;
}

static int map_memory(const struct bpf_map *map, size_t bytes, void **ret_memory)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(map), 0);
    if (memory == MAP_FAILED)
        return -errno;
    *ret_memory = memory;
    return 0;
}

static int load(struct bpf_sweep *sweep, uint32_t n_copies, uint32_t n_elements,
                uint32_t element_bytes)
{
    sweep->skeleton = sweep_bpf__open();
    if (!sweep->skeleton)
        return -errno;
    sweep->skeleton->rodata->element_bytes = element_bytes;
    int r = bpf_map__set_max_entries(sweep->skeleton->maps.copies, n_copies);
    if (r == 0)
        r = bpf_map__set_max_entries(sweep->skeleton->maps.frames, n_elements);
    if (r == 0)
        r = bpf_map__set_value_size(sweep->skeleton->maps.frames, element_bytes);
    if (r == 0)
        r = sweep_bpf__load(sweep->skeleton);
    return r;
}

int bpf_sweep_new(uint32_t n_copies, uint32_t n_frames, uint32_t frame_elements,
                  uint32_t element_bytes, struct bpf_sweep **ret_sweep, struct bpf_error *ret_error)
{
    CLEANUP(cleanup_bpf_sweep_free) struct bpf_sweep *sweep = calloc(1, sizeof *sweep);
    uint32_t n_elements;
    int r = sweep ? 0 : -ENOMEM;
    if (r == 0 && __builtin_mul_overflow(n_frames, frame_elements, &n_elements))
        r = -EOVERFLOW;
    if (r == 0)
        r = load(sweep, MAX_OF(n_copies, 1u), n_elements, element_bytes);
    if (r == 0) {
        sweep->program_fd = bpf_program__fd(sweep->skeleton->progs.kvmstatd_sweep);
        sweep->n_copies = n_copies;
        sweep->frame_elements = frame_elements;
        sweep->element_bytes = element_bytes;
        sweep->frame_bytes = (size_t)frame_elements * element_bytes;
        sweep->copies_bytes = round_to_page((size_t)MAX_OF(n_copies, 1u) * sizeof *sweep->copies);
        r = map_memory(sweep->skeleton->maps.copies, sweep->copies_bytes, (void **)&sweep->copies);
    }
    if (r == 0) {
        sweep->frames_bytes = round_to_page((size_t)n_elements * element_bytes);
        r = map_memory(sweep->skeleton->maps.frames, sweep->frames_bytes, (void **)&sweep->frames);
    }
    if (r < 0) {
        (void)snprintf(ret_error->message, sizeof ret_error->message,
                       "cannot load the sweep over %u blocks: %s", n_copies, strerror(-r));
        return r;
    }
    *ret_sweep = steal_ptr(&sweep);
    return 0;
}

int bpf_sweep_add_files(struct bpf_sweep *sweep, struct bpf_error *ret_error)
{
    int r = bpf_files_new(sweep->skeleton->maps.copies, sweep->skeleton->maps.frames,
                          sweep->n_copies, sweep->element_bytes, &sweep->files);
    if (r < 0)
        (void)snprintf(ret_error->message, sizeof ret_error->message,
                       "cannot load the pass over files: %s", strerror(-r));
    return r;
}

void bpf_sweep_free(struct bpf_sweep *sweep)
{
    if (!sweep)
        return;
    if (sweep->copies)
        (void)munmap(sweep->copies, sweep->copies_bytes);
    if (sweep->frames)
        (void)munmap(sweep->frames, sweep->frames_bytes);
    bpf_files_free(sweep->files);
    sweep_bpf__destroy(sweep->skeleton);
    free(sweep);
}

void *bpf_sweep_frame(struct bpf_sweep *sweep, uint32_t frame)
{
    return sweep->frames + frame * sweep->frame_bytes;
}

void bpf_sweep_set(struct bpf_sweep *sweep, uint32_t i, uint64_t address, uint32_t bytes,
                   uint32_t element)
{
    sweep->copies[i] = (struct bpf_copy){
        .address = address,
        .bytes = bytes,
        .element = element,
    };
}

int bpf_sweep_run(struct bpf_sweep *sweep, uint32_t frame, uint32_t first, uint32_t n)
{
    struct bpf_sweep_args args = {
        .first = first,
        .n = n,
        .base = frame * sweep->frame_elements,
    };
    LIBBPF_OPTS(bpf_test_run_opts, run, .ctx_in = &args, .ctx_size_in = sizeof args);
    int r = bpf_prog_test_run_opts(sweep->program_fd, &run);
    return r < 0 ? r : (int)args.failed;
}

bool bpf_sweep_failed(struct bpf_sweep *sweep, uint32_t i)
{
    bool failed = sweep->copies[i].failed;
    sweep->copies[i].failed = 0;
    return failed;
}

void bpf_sweep_forget_files(struct bpf_sweep *sweep)
{
    if (sweep->files)
        bpf_files_forget(sweep->files);
}

void bpf_sweep_set_wanted(struct bpf_sweep *sweep, uint32_t i, const struct bpf_wanted *wanted,
                          uint32_t bytes, uint32_t element)
{
    /* Without an address: the sweep over pinned blocks has nothing to do with it. */
    bpf_sweep_set(sweep, i, 0, bytes, element);
    bpf_files_want(sweep->files, wanted, i);
}

int bpf_sweep_run_files(struct bpf_sweep *sweep, uint32_t frame)
{
    return bpf_files_run(sweep->files, frame * sweep->frame_elements);
}

bool bpf_sweep_seen(const struct bpf_sweep *sweep, uint32_t i, int64_t *ret_read_ns)
{
    if (sweep->copies[i].seen != bpf_files_mark(sweep->files))
        return false;
    *ret_read_ns = (int64_t)sweep->copies[i].seen_ns;
    return true;
}
