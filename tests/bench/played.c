/* SPDX-License-Identifier: Apache-2.0 */
#include "played.h"

#include <err.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "statsfd.h"

/* --- keeping --- */

static size_t step_cells(const struct kept *kept)
{
    return (size_t)kept->vms * kept->targets * KEPT_BLOCK_CELLS;
}

void kept_init(struct kept *kept, uint32_t vms, uint32_t targets)
{
    *kept = (struct kept){.vms = vms, .targets = targets};
    kept->steps = host_memory(KEPT_TICKS_MAX * step_cells(kept) * sizeof *kept->steps);
}

void kept_blocks(const struct frame *frame, uint64_t *to)
{
    for (uint32_t i = 0; i < frame->layout->n_targets; i++, to += KEPT_BLOCK_CELLS) {
        size_t bytes = frame->layout->targets[i].schema->data_bytes;
        if (bytes > KEPT_BLOCK_BYTES)
            errx(EXIT_FAILURE, "blocks of %zu bytes", bytes);
        memcpy(to, frame_block(frame, &frame->layout->targets[i]), bytes);
    }
}

void kept_add(struct kept *kept, const struct frame *frame, uint64_t *before)
{
    size_t n = step_cells(kept);
    uint64_t *step = kept->steps + kept->at * n;
    kept_blocks(frame, step);
    for (size_t i = 0; i < n; i++) {
        uint64_t now = step[i];
        step[i] -= before[i];
        before[i] = now;
    }
    kept->at = (kept->at + 1) % KEPT_TICKS_MAX;
    kept->ticks = MIN_OF(kept->ticks + 1, (uint32_t)KEPT_TICKS_MAX);
}

void kept_write(const struct kept *kept, const char *path)
{
    FILE *f = fopen(path, "wb");
    size_t n = kept->ticks * step_cells(kept);
    if (!f || fwrite(kept, sizeof *kept, 1, f) != 1 ||
        fwrite(kept->steps, sizeof *kept->steps, n, f) != n || fclose(f) != 0)
        err(EXIT_FAILURE, "%s", path);
}

void kept_read(struct kept *kept, const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f || fread(kept, sizeof *kept, 1, f) != 1 || kept->ticks == 0)
        err(EXIT_FAILURE, "%s", path);
    size_t n = kept->ticks * step_cells(kept);
    kept->steps = host_memory(n * sizeof *kept->steps);
    if (fread(kept->steps, sizeof *kept->steps, n, f) != n)
        err(EXIT_FAILURE, "%s", path);
    (void)fclose(f);
}

/* --- playing --- */

/* A file that begins like `from` and has zeros for data. */
static int open_like(int from, const struct schema *schema, uint8_t **ret_content)
{
    size_t bytes = (size_t)schema->data_offset + KEPT_BLOCK_BYTES;
    int fd = memfd_create("stats", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0)
        err(EXIT_FAILURE, "memfd_create");
    uint8_t *content = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (content == MAP_FAILED)
        err(EXIT_FAILURE, "mmap");
    if (pread(from, content, schema->data_offset, 0) != (ssize_t)schema->data_offset)
        errx(EXIT_FAILURE, "the head of a statistics file");
    *ret_content = content;
    return fd;
}

void played_open(struct played *played, const struct kept *kept, const struct host *model,
                 uint32_t vms)
{
    struct frame *frame = ring_pin(&model->store->rings[0]);
    const struct layout_vm *vm = &frame->layout->vms[0];
    const struct planned_vm *planned = planner_vm_by_id(model->planner, vm->vm->id);
    size_t n = (size_t)vms * vm->n_targets;
    if (vm->n_targets != kept->targets)
        errx(EXIT_FAILURE, "%" PRIu32 " targets a VM were kept, not %" PRIu32, kept->targets,
             vm->n_targets);
    *played = (struct played){
        .kept = kept,
        .vms = vms,
        .targets = vm->n_targets,
        .places = &frame->layout->targets[vm->first_target],
        .fds = host_memory(n * sizeof *played->fds),
        .content = host_memory(n * sizeof *played->content),
    };
    for (size_t i = 0; i < n; i++) {
        const struct layout_target *place = &played->places[i % played->targets];
        played->fds[i] =
            open_like(planner_target_fd(planned, place->vcpu), place->schema, &played->content[i]);
    }
    /* `frame` stays pinned: `places` are its layout's. */
}

static void play_vm(struct played *played, uint32_t vm, bool last, struct host *host)
{
    struct planned_vm *planned;
    const struct planned_vm_spec spec = {
        .name = "", .uuid = "", .vmm = "", .machine = "", .unit = "", .pid = getpid()};
    int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
    host_must(planner_vm_add(host->planner, &spec, self, &planned), "planning a VM");
    for (uint32_t i = 0; i < played->targets; i++) {
        const struct layout_target *place = &played->places[i];
        int fd = played->fds[(size_t)vm * played->targets + i];
        const struct schema *schema;
        struct statsfd_error error;
        if (!last)
            fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        if (statsfd_open(fd, place->schema->scope, &host->store->schemas, &schema, NULL, 0,
                         &error) < 0)
            errx(EXIT_FAILURE, "%s", error.message);
        host_must(planner_target_add(host->planner, planned, place->vcpu, schema,
                                     TARGET_SOURCE_STATSFD, fd),
                  "planning a target");
    }
}

void played_host(struct played *played, const char *config, bool last, struct host *ret_host)
{
    host_parts(config, ret_host);
    for (uint32_t i = 0; i < played->vms; i++)
        play_vm(played, i, last, ret_host);
    host_begin(ret_host);
}

static void move_block(uint8_t *block, const uint64_t *step)
{
    for (size_t i = 0; i < KEPT_BLOCK_CELLS; i++) {
        uint64_t cell;
        memcpy(&cell, block + i * sizeof cell, sizeof cell);
        cell += step[i];
        memcpy(block + i * sizeof cell, &cell, sizeof cell);
    }
}

/* VMs that play the same one are at different places of it. */
void played_step(struct played *played)
{
    const struct kept *kept = played->kept;
    size_t vm_cells = (size_t)kept->targets * KEPT_BLOCK_CELLS;
    for (uint32_t vm = 0; vm < played->vms; vm++) {
        size_t tick = (played->turn + vm / kept->vms) % kept->ticks;
        const uint64_t *step = kept->steps + (tick * kept->vms + vm % kept->vms) * vm_cells;
        for (uint32_t i = 0; i < kept->targets; i++)
            move_block(played->content[(size_t)vm * kept->targets + i] +
                           played->places[i].schema->data_offset,
                       step + (size_t)i * KEPT_BLOCK_CELLS);
    }
    played->turn++;
}
