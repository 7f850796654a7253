/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading by BPF against a bare loop of preads over the same VMs, and one pass of discovery.
 *
 * The two take turns within one run. The VMs stay because their stats fds are held, and a held
 * stats fd holds its VM. The daemon's own tick over blocks read by BPF is measured by the daemon
 * itself (kvmstatd_sweep_duration_seconds).
 */
#include <err.h>
#include <getopt.h>
#include <glob.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bpf.h"
#include "clock.h"
#include "sweep_host.h"

enum kind {
    BARE,
    SWEEP,
    KINDS
};

enum {
    WARM_UP_ROUNDS = 5,
    FRAMES = 2, /* the daemon, too, alternates */
    BLOCK_ALIGN = 64,
};

struct piece {
    int fd;
    uint32_t offset, bytes, data_offset;
};

struct bench {
    struct host host;
    uint32_t n_pieces;
    struct piece *pieces;
    uint8_t *buffers[FRAMES];
    struct bpf_source *source;
    struct bpf_sweep *sweep;
    uint32_t n_blocks;
    uint64_t turn;
    size_t n_rounds;
    int64_t *wall_ns[KINDS], *cpu_ns[KINDS], *list_wall_ns, *list_cpu_ns;
};

static void must(int r, const char *what, const struct bpf_error *error)
{
    if (r < 0)
        errx(EXIT_FAILURE, "%s: %s (%s)", what, strerror(-r), error ? error->message : "");
}

static int64_t *times(size_t n)
{
    int64_t *list = calloc(n, sizeof *list);
    if (!list)
        err(EXIT_FAILURE, "memory");
    return list;
}

/* The fds that the daemon borrowed, and where their blocks stand in a buffer. */
static void list_pieces(struct bench *bench)
{
    struct frame *frame = ring_pin(&bench->host.store->rings[0]);
    if (!frame)
        errx(EXIT_FAILURE, "nothing was read");
    const struct layout *layout = frame->layout;
    bench->n_pieces = layout->n_targets;
    bench->pieces = calloc(layout->n_targets, sizeof *bench->pieces);
    if (!bench->pieces)
        err(EXIT_FAILURE, "memory");
    for (uint32_t i = 0; i < layout->n_vms; i++) {
        const struct layout_vm *vm = &layout->vms[i];
        const struct planned_vm *planned = planner_vm_by_id(bench->host.planner, vm->vm->id);
        for (uint32_t j = vm->first_target; j < vm->first_target + vm->n_targets; j++) {
            const struct layout_target *target = &layout->targets[j];
            bench->pieces[j] = (struct piece){
                .fd = planner_target_fd(planned, target->vcpu),
                .offset = target->offset,
                .bytes = (uint32_t)target->schema->data_bytes,
                .data_offset = (uint32_t)target->schema->data_offset,
            };
        }
    }
    for (size_t i = 0; i < FRAMES; i++) {
        bench->buffers[i] = mmap(NULL, layout->data_bytes, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (bench->buffers[i] == MAP_FAILED)
            err(EXIT_FAILURE, "mmap");
    }
    frame_unpin(frame);
}

/* The iterator shows the processes of our PID namespace, by their numbers in the first one. */
static bool is_ours(const struct bench *bench, uint32_t tgid)
{
    if (getpid() == 1)
        return true; /* a namespace of our own: there is nobody else in it */
    for (uint32_t i = 0; i < bench->host.n_pids; i++) {
        if ((uint32_t)bench->host.pids[i] == tgid)
            return true;
    }
    return false;
}

static void prepare_sweep(struct bench *bench)
{
    struct bpf_error error;
    const struct schema *schemas[2];
    struct bpf_kvm_file *files;
    size_t n;
    must(bpf_source_new(&bench->source, &error), "BPF", &error);
    must(bpf_source_schemas(&bench->host.store->schemas, schemas, &error), "schemas", &error);
    must(bpf_source_list(bench->source, &files, &n), "discovery", NULL);
    size_t largest = MAX_OF(schemas[0]->data_bytes, schemas[1]->data_bytes);
    uint32_t element = (uint32_t)((largest + BLOCK_ALIGN - 1) / BLOCK_ALIGN * BLOCK_ALIGN);
    uint32_t page = (uint32_t)sysconf(_SC_PAGESIZE);
    uint32_t elements = (bench->n_pieces + page - 1) / page * page;
    must(bpf_sweep_new(bench->n_pieces, FRAMES, elements, element, &bench->sweep, &error), "sweep",
         &error);
    for (size_t i = 0; i < n && bench->n_blocks < bench->n_pieces; i++) {
        if (!is_ours(bench, files[i].tgid))
            continue;
        enum scope scope = files[i].vcpu ? SCOPE_VCPU : SCOPE_VM;
        bpf_sweep_set(bench->sweep, bench->n_blocks,
                      bpf_source_block(bench->source, scope, &files[i]),
                      (uint32_t)schemas[scope]->data_bytes, bench->n_blocks);
        bench->n_blocks++;
    }
    free(files);
    if (bench->n_blocks != bench->n_pieces)
        errx(EXIT_FAILURE, "%" PRIu32 " blocks by BPF, %" PRIu32 " by stats fds", bench->n_blocks,
             bench->n_pieces);
}

static void read_bare(const struct bench *bench, uint8_t *buffer)
{
    unsigned wrong = 0;
    for (uint32_t i = 0; i < bench->n_pieces; i++) {
        const struct piece *p = &bench->pieces[i];
        ssize_t got = pread(p->fd, buffer + p->offset, p->bytes, p->data_offset);
        wrong += got != (ssize_t)p->bytes;
    }
    if (wrong)
        errx(EXIT_FAILURE, "%u reads failed", wrong);
}

static void sweep(struct bench *bench, uint32_t frame)
{
    for (uint32_t i = 0; i < bench->n_blocks; i += BPF_SWEEP_CHUNK) {
        uint32_t n = MIN_OF((uint32_t)BPF_SWEEP_CHUNK, bench->n_blocks - i);
        if (bpf_sweep_run(bench->sweep, frame, i, n) != 0)
            errx(EXIT_FAILURE, "copies failed");
    }
}

static void time_one(struct bench *bench, enum kind kind, int64_t *ret_wall, int64_t *ret_cpu)
{
    uint32_t frame = (uint32_t)(bench->turn++ / KINDS % FRAMES);
    int64_t wall = clock_now_ns(), cpu = clock_read_ns(CLOCK_THREAD_CPUTIME_ID);
    if (kind == BARE)
        read_bare(bench, bench->buffers[frame]);
    else
        sweep(bench, frame);
    *ret_cpu = clock_read_ns(CLOCK_THREAD_CPUTIME_ID) - cpu;
    *ret_wall = clock_now_ns() - wall;
}

static void time_list(struct bench *bench, size_t *ret_n, int64_t *ret_wall, int64_t *ret_cpu)
{
    struct bpf_kvm_file *files;
    int64_t wall = clock_now_ns(), cpu = clock_read_ns(CLOCK_THREAD_CPUTIME_ID);
    must(bpf_source_list(bench->source, &files, ret_n), "discovery", NULL);
    *ret_cpu = clock_read_ns(CLOCK_THREAD_CPUTIME_ID) - cpu;
    *ret_wall = clock_now_ns() - wall;
    free(files);
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static double median_of(int64_t *list, size_t n)
{
    qsort(list, n, sizeof *list, by_value);
    return (double)list[n / 2];
}

/* All open files that a pass looks at: the host's, or those of our PID namespace. */
static size_t count_open_files(void)
{
    glob_t found;
    if (glob("/proc/[0-9]*/fd/*", GLOB_NOSORT, NULL, &found) != 0)
        return 0;
    size_t n = found.gl_pathc;
    globfree(&found);
    return n;
}

static void run_rounds(struct bench *bench)
{
    size_t n_files = 0;
    size_t before = count_open_files();
    for (size_t i = 0; i < WARM_UP_ROUNDS + bench->n_rounds; i++) {
        size_t at = i < WARM_UP_ROUNDS ? 0 : i - WARM_UP_ROUNDS;
        for (unsigned k = 0; k < KINDS; k++) {
            enum kind kind = (enum kind)((i + k) % KINDS);
            time_one(bench, kind, &bench->wall_ns[kind][at], &bench->cpu_ns[kind][at]);
        }
        time_list(bench, &n_files, &bench->list_wall_ns[at], &bench->list_cpu_ns[at]);
    }
    printf("kvm_files %zu\nopen_files %zu\n", n_files, (before + count_open_files()) / 2);
}

static void print_results(struct bench *bench)
{
    static const char *const names[KINDS] = {"bare", "sweep"};
    double wall[KINDS], cpu[KINDS];
    printf("blocks %" PRIu32 "\n", bench->n_blocks);
    for (unsigned k = 0; k < KINDS; k++) {
        wall[k] = median_of(bench->wall_ns[k], bench->n_rounds);
        cpu[k] = median_of(bench->cpu_ns[k], bench->n_rounds);
        printf("%s_wall_ns %.0f\n", names[k], wall[k]);
        printf("%s_cpu_ns %.0f\n", names[k], cpu[k]);
        printf("%s_cpu_ns_per_block %.1f\n", names[k], cpu[k] / bench->n_blocks);
    }
    printf("ratio_wall %.3f\nratio_cpu %.3f\n", wall[SWEEP] / wall[BARE], cpu[SWEEP] / cpu[BARE]);
    printf("list_wall_ns %.0f\n", median_of(bench->list_wall_ns, bench->n_rounds));
    printf("list_cpu_ns %.0f\n", median_of(bench->list_cpu_ns, bench->n_rounds));
}

static unsigned number(const char *text)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    if (end == text || *end || value < 1 || value > 1000000)
        errx(2, "\"%s\" is not a number from 1 to 1000000", text);
    return (unsigned)value;
}

int main(int argc, char **argv)
{
    static const struct option long_options[] = {{"vms", required_argument, NULL, 'v'},
                                                 {"vcpus", required_argument, NULL, 'c'},
                                                 {"fds", required_argument, NULL, 'f'},
                                                 {"rounds", required_argument, NULL, 'r'},
                                                 {0}};
    struct host_options options = {.vms = 1000, .vcpus = 4, .fds = 100};
    struct bench bench = {.n_rounds = 100};
    int option;
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) >= 0) {
        unsigned *const to[] = {['v'] = &options.vms, ['c'] = &options.vcpus, ['f'] = &options.fds};
        if (option == 'r')
            bench.n_rounds = number(optarg);
        else if (option == '?')
            errx(2, "usage: bench-bpf [--vms N] [--vcpus N] [--fds N] [--rounds N]");
        else
            *to[option] = number(optarg);
    }
    for (unsigned k = 0; k < KINDS; k++) {
        bench.wall_ns[k] = times(bench.n_rounds);
        bench.cpu_ns[k] = times(bench.n_rounds);
    }
    bench.list_wall_ns = times(bench.n_rounds);
    bench.list_cpu_ns = times(bench.n_rounds);
    host_start(&options, &bench.host);
    list_pieces(&bench);
    prepare_sweep(&bench);
    run_rounds(&bench);
    print_results(&bench);
    bpf_sweep_free(bench.sweep);
    bpf_source_free(bench.source);
    host_stop(&bench.host);
    return EXIT_SUCCESS;
}
