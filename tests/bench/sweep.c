/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a tick of the daemon costs beside the least it could cost: a loop of pread() over the same
 * fds in the same order into memory of the same shape. Both run by turns within one process, so
 * that whatever else the machine does falls on both; medians are compared.
 *
 * The daemon's frames alternate between two buffers. The bare loop is timed both ways: with one
 * buffer, which is the bar, and with two, which tells how much of a difference is the cache's.
 *
 * A second daemon over the same files derives from each tick what the default configuration keeps
 * between scrapes: the difference is what that costs.
 */
#include <err.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "clock.h"
#include "group.h"
#include "sweep_host.h"

enum {
    WARM_UP_ROUNDS = 20,
    BUFFERS = 3, /* one and two: no kind finds its memory warmed by another */
};

enum kind {
    BARE_ONE,
    BARE_TWO,
    TICK,
    TICK_BURSTS,
    KINDS,
};

/* The bare loop's own list, as lean as the daemon's. */
struct piece {
    int fd;
    uint32_t offset, bytes, data_offset;
};

struct bench {
    struct host host, bursts;
    uint32_t n_pieces;
    struct piece *pieces;
    size_t buffer_bytes;
    uint8_t *buffers[BUFFERS];
    uint64_t turn;
    size_t n_rounds;
    int64_t pause_ns;        /* before each turn: what was cached is then no longer */
    int64_t *wall_ns[KINDS]; /* n_rounds each */
    int64_t *cpu_ns[KINDS];
};

/* Where each target stands in the daemon's frames, with the fd it is read from. */
static void list_pieces(struct bench *bench)
{
    struct frame *frame = ring_pin(&bench->host.store->rings[0]);
    if (!frame)
        errx(EXIT_FAILURE, "nothing was read");
    const struct layout *layout = frame->layout;
    bench->n_pieces = layout->n_targets;
    bench->buffer_bytes = layout->data_bytes;
    bench->pieces = calloc(layout->n_targets, sizeof *bench->pieces);
    if (!bench->pieces)
        err(EXIT_FAILURE, "memory");
    for (uint32_t i = 0; i < layout->n_vms; i++) {
        const struct layout_vm *vm = &layout->vms[i];
        const struct planned_vm *planned = planner_vm_by_id(bench->host.planner, vm->vm->id);
        for (uint32_t j = vm->first_target; j < vm->first_target + vm->n_targets; j++) {
            const struct layout_target *target = &layout->targets[j];
            if (frame->status[j] != TARGET_READ)
                errx(EXIT_FAILURE, "target %" PRIu32 " was not read", j);
            bench->pieces[j] = (struct piece){
                .fd = planner_target_fd(planned, target->vcpu),
                .offset = target->offset,
                .bytes = (uint32_t)target->schema->data_bytes,
                .data_offset = (uint32_t)target->schema->data_offset,
            };
        }
    }
    frame_unpin(frame);
    for (size_t i = 0; i < BUFFERS; i++) {
        bench->buffers[i] = mmap(NULL, bench->buffer_bytes, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (bench->buffers[i] == MAP_FAILED)
            err(EXIT_FAILURE, "mmap");
    }
}

static unsigned __attribute__((noinline))
read_bare(const struct piece *pieces, uint32_t n, uint8_t *buffer)
{
    unsigned wrong = 0;
    for (uint32_t i = 0; i < n; i++) {
        const struct piece *p = &pieces[i];
        ssize_t got = pread(p->fd, buffer + p->offset, p->bytes, p->data_offset);
        wrong += got != (ssize_t)p->bytes;
    }
    return wrong;
}

struct moment {
    int64_t wall_ns, cpu_ns;
};

static struct moment moment_now(void)
{
    return (struct moment){clock_now_ns(), clock_read_ns(CLOCK_THREAD_CPUTIME_ID)};
}

static struct moment moment_since(struct moment begin)
{
    int64_t cpu_ns = clock_read_ns(CLOCK_THREAD_CPUTIME_ID) - begin.cpu_ns;
    return (struct moment){clock_now_ns() - begin.wall_ns, cpu_ns};
}

static struct moment time_bare(struct bench *bench, uint8_t *buffer)
{
    struct moment begin = moment_now();
    unsigned wrong = read_bare(bench->pieces, bench->n_pieces, buffer);
    struct moment took = moment_since(begin);
    if (wrong)
        errx(EXIT_FAILURE, "%u reads failed", wrong);
    return took;
}

/* One turn of the daemon's loop in which a tick was due: epoll, timer, sweep, publication. */
static struct moment time_tick(const struct host *host)
{
    struct selfstats *self = &host->store->self;
    for (;;) {
        uint64_t ticks = atomic_load(&self->ticks);
        struct moment begin = moment_now();
        sampler_run_once(host->sampler);
        struct moment took = moment_since(begin);
        if (atomic_load(&self->ticks) == ticks + 1)
            return took;
    }
}

static struct moment time_one(struct bench *bench, enum kind kind)
{
    switch (kind) {
    case BARE_ONE:
        return time_bare(bench, bench->buffers[0]);
    case BARE_TWO:
        return time_bare(bench, bench->buffers[1 + bench->turn++ % 2]);
    case TICK:
        return time_tick(&bench->host);
    case TICK_BURSTS:
        return time_tick(&bench->bursts);
    case KINDS:
        break;
    }
    abort();
}

static void pause_for(int64_t ns)
{
    const struct timespec time = {.tv_sec = ns / NSEC_PER_SEC, .tv_nsec = ns % NSEC_PER_SEC};
    if (ns)
        (void)nanosleep(&time, NULL);
}

/* Each kind comes first, second and third equally often. */
static void run_rounds(struct bench *bench)
{
    for (size_t i = 0; i < WARM_UP_ROUNDS; i++) {
        for (unsigned k = 0; k < KINDS; k++)
            (void)time_one(bench, (enum kind)k);
    }
    for (size_t i = 0; i < bench->n_rounds; i++) {
        for (unsigned k = 0; k < KINDS; k++) {
            enum kind kind = (enum kind)((i + k) % KINDS);
            pause_for(bench->pause_ns);
            struct moment took = time_one(bench, kind);
            bench->wall_ns[kind][i] = took.wall_ns;
            bench->cpu_ns[kind][i] = took.cpu_ns;
        }
    }
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static double median_of(int64_t *times, size_t n)
{
    qsort(times, n, sizeof *times, by_value);
    return (double)times[n / 2];
}

static void print_results(struct bench *bench)
{
    static const char *const names[KINDS] = {"bare_one_buffer", "bare_two_buffers", "tick",
                                             "tick_bursts"};
    double wall[KINDS], cpu[KINDS];
    uint64_t errors = 0;
    for (unsigned i = 0; i < READ_ERRORS; i++)
        errors += atomic_load(&bench->host.store->self.read_errors[i]);
    if (errors)
        errx(EXIT_FAILURE, "%" PRIu64 " reads of the daemon's failed", errors);
    printf("targets %" PRIu32 "\n", bench->n_pieces);
    printf("frame_bytes %zu\n", bench->buffer_bytes);
    printf("rounds %zu\n", bench->n_rounds);
    for (unsigned k = 0; k < KINDS; k++) {
        wall[k] = median_of(bench->wall_ns[k], bench->n_rounds);
        cpu[k] = median_of(bench->cpu_ns[k], bench->n_rounds);
        printf("%s_wall_ns %.0f\n", names[k], wall[k]);
        printf("%s_cpu_ns %.0f\n", names[k], cpu[k]);
        printf("%s_cpu_ns_per_target %.1f\n", names[k], cpu[k] / bench->n_pieces);
    }
    printf("ratio_wall %.3f\n", wall[TICK] / wall[BARE_ONE]);
    printf("ratio_cpu %.3f\n", cpu[TICK] / cpu[BARE_ONE]);
    printf("ratio_cpu_two_buffers %.3f\n", cpu[TICK] / cpu[BARE_TWO]);
    printf("bursts_on_top_cpu %.3f\n", cpu[TICK_BURSTS] / cpu[TICK] - 1);
    printf("bursts_on_top_wall %.3f\n", wall[TICK_BURSTS] / wall[TICK] - 1);
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
    static const struct option long_options[] = {
        {"vms", required_argument, NULL, 'v'},      {"vcpus", required_argument, NULL, 'c'},
        {"fds", required_argument, NULL, 'f'},      {"rounds", required_argument, NULL, 'r'},
        {"pause-ms", required_argument, NULL, 'p'}, {0},
    };
    struct host_options options = {.vms = 1000, .vcpus = 4, .fds = 100};
    struct bench bench = {.n_rounds = 200};
    int option;
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) >= 0) {
        switch (option) {
        case 'v':
            options.vms = number(optarg);
            break;
        case 'c':
            options.vcpus = number(optarg);
            break;
        case 'f':
            options.fds = number(optarg);
            break;
        case 'r':
            bench.n_rounds = number(optarg);
            break;
        case 'p':
            bench.pause_ns = number(optarg) * NSEC_PER_MSEC;
            break;
        default:
            errx(2, "usage: bench-sweep [--vms N] [--vcpus N] [--fds N] [--rounds N] "
                    "[--pause-ms N]");
        }
    }
    for (unsigned k = 0; k < KINDS; k++) {
        bench.wall_ns[k] = calloc(bench.n_rounds, sizeof *bench.wall_ns[k]);
        bench.cpu_ns[k] = calloc(bench.n_rounds, sizeof *bench.cpu_ns[k]);
        if (!bench.wall_ns[k] || !bench.cpu_ns[k])
            err(EXIT_FAILURE, "memory");
    }
    host_start(&options, &bench.host);
    host_again(&bench.host, "recorder: {memory: 0}\n", &bench.bursts);
    list_pieces(&bench);
    run_rounds(&bench);
    print_results(&bench);
    host_stop(&bench.host);
    return EXIT_SUCCESS;
}
