/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where nobody may borrow a VM's fd, the walk over the host's open files itself reads the blocks.
 * It takes as long as the host has open files, so it is made only for rate groups that need it.
 */
#include "bpf_files.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <string.h>
#include <sys/mman.h>

#include "copy.skel.h"

struct bpf_files {
    struct copy_bpf *skeleton;
    struct bpf_link *link;
    uint32_t n_places; /* a power of two */
    size_t wanted_bytes;
    struct bpf_wanted *wanted; /* mapped */
};

/* Four places an object. */
static uint32_t places_for(uint32_t n_copies)
{
    uint32_t n = BPF_WANTED_PROBES;
    while (n / 4 < n_copies && n < 1u << 30)
        n *= 2;
    return n;
}

static int load(struct bpf_files *files, struct bpf_map *copies, struct bpf_map *frames,
                uint32_t element_bytes)
{
    files->skeleton = copy_bpf__open();
    if (!files->skeleton)
        return -errno;
    files->skeleton->rodata->element_bytes = element_bytes;
    files->skeleton->rodata->wanted_mask = files->n_places - 1;
    int r = bpf_map__reuse_fd(files->skeleton->maps.copies, bpf_map__fd(copies));
    if (r == 0)
        r = bpf_map__reuse_fd(files->skeleton->maps.frames, bpf_map__fd(frames));
    if (r == 0)
        r = bpf_map__set_max_entries(files->skeleton->maps.wanted, files->n_places);
    if (r == 0)
        r = copy_bpf__load(files->skeleton);
    if (r < 0)
        return r;
    files->link = bpf_program__attach_iter(files->skeleton->progs.kvmstatd_copy, NULL);
    return files->link ? 0 : -errno;
}

int bpf_files_new(struct bpf_map *copies, struct bpf_map *frames, uint32_t n_copies,
                  uint32_t element_bytes, struct bpf_files **ret_files)
{
    CLEANUP(cleanup_bpf_files_free) struct bpf_files *files = calloc(1, sizeof *files);
    if (!files)
        return -ENOMEM;
    files->n_places = places_for(n_copies);
    int r = load(files, copies, frames, element_bytes);
    if (r < 0)
        return r;
    size_t bytes = files->n_places * sizeof *files->wanted;
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
                        bpf_map__fd(files->skeleton->maps.wanted), 0);
    if (memory == MAP_FAILED)
        return -errno;
    files->wanted = memory;
    files->wanted_bytes = bytes;
    *ret_files = steal_ptr(&files);
    return 0;
}

void bpf_files_free(struct bpf_files *files)
{
    if (!files)
        return;
    if (files->wanted)
        (void)munmap(files->wanted, files->wanted_bytes);
    bpf_link__destroy(files->link);
    copy_bpf__destroy(files->skeleton);
    free(files);
}

void bpf_files_forget(struct bpf_files *files)
{
    memset(files->wanted, 0, files->wanted_bytes);
}

void bpf_files_want(struct bpf_files *files, const struct bpf_wanted *wanted, uint32_t index)
{
    uint32_t slot = bpf_wanted_hash(wanted->object);
    for (uint32_t i = 0; i < BPF_WANTED_PROBES; i++, slot++) {
        struct bpf_wanted *place = &files->wanted[slot & (files->n_places - 1)];
        if (place->object && place->object != wanted->object)
            continue;
        *place = *wanted;
        place->index = index;
        return;
    }
    /* In a table three quarters empty that does not happen; it would be a block never seen. */
}

int bpf_files_run(struct bpf_files *files, uint32_t base)
{
    struct copy_bpf__bss *pass = files->skeleton->bss;
    char nothing[8]; /* the program writes none */
    CLEANUP_FD int fd = bpf_iter_create(bpf_link__fd(files->link));
    if (fd < 0)
        return -errno;
    if (++pass->pass_mark == 0)
        pass->pass_mark = 1;
    pass->pass_base = base;
    pass->pass_copied = 0;
    for (;;) {
        ssize_t n = read(fd, nothing, sizeof nothing);
        /* EAGAIN: the kernel pauses after a million files. */
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return -errno;
        if (n == 0)
            return (int)pass->pass_copied;
    }
}

uint32_t bpf_files_mark(const struct bpf_files *files)
{
    return files->skeleton->bss->pass_mark;
}
