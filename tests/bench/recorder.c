/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is kept between two scrapes: bytes a vCPU and tick of guests that are at work, how long the
 * recorder's memory lasts, and what windows, distributions and recorder cost beside the sweep.
 * Hardly any machine can run 1,000 busy VMs to measure that with, so it is done in several runs:
 * one records a few busy VMs and keeps what their values did (--keep FILE), the others play that
 * for many (--as FILE): beside as many idle VMs, tick by tick in turns (the default), or until the
 * memory is full (--fill).
 */
#include <err.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "played.h"
#include "recorder.h"

enum {
    MEMORY_BYTES = 64 << 20,
    INTERVAL_MS = 100,
    WARM_UP_ROUNDS = 5,
    FILL_PERCENT = 125, /* of the memory is written, so that the oldest have gone everywhere */
};

/* Whatever is derived from a tick by default; the recorder comes beside it. */
static const char everything[] = "recorder: {memory: 0}\n";

enum mode {
    MODE_BUSY,
    MODE_IDLE,
    MODE_PLAYED,
    MODE_FILL,
    MODES,
};

struct options {
    struct host_options host;
    enum mode mode;
    unsigned rounds;
    const char *keep, *as;
};

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

static void wait_until(int64_t deadline_ns)
{
    const struct timespec at = {deadline_ns / NSEC_PER_SEC, deadline_ns % NSEC_PER_SEC};
    (void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
}

/* One turn of the sampler's loop in which a tick was due. Returns the CPU time of it. */
static int64_t tick(const struct host *host)
{
    for (;;) {
        uint64_t ticks = atomic_load(&host->store->self.ticks);
        int64_t begin_ns = clock_read_ns(CLOCK_THREAD_CPUTIME_ID);
        sampler_run_once(host->sampler);
        int64_t took_ns = clock_read_ns(CLOCK_THREAD_CPUTIME_ID) - begin_ns;
        if (atomic_load(&host->store->self.ticks) == ticks + 1)
            return took_ns;
    }
}

static struct recorder *record(const struct host *host)
{
    struct recorder *recorder;
    host_must(recorder_new(MEMORY_BYTES, &host->store->self, &recorder), "a recorder");
    sampler_set_recorder(host->sampler, recorder);
    return recorder;
}

/* All that has been recorded since the start, what is gone included. */
static uint64_t recorded_bytes(const struct host *host, uint32_t *ret_vcpus)
{
    struct frame *frame = ring_pin(&host->store->rings[0]);
    uint64_t bytes = 0;
    *ret_vcpus = 0;
    for (uint32_t i = 0; i < frame->layout->n_vms; i++) {
        bytes += atomic_load(&frame->layout->vms[i].vm->recording.end);
        *ret_vcpus += frame->layout->vms[i].n_targets - 1;
    }
    frame_unpin(frame);
    return bytes;
}

/* --- a few busy VMs --- */

static uint64_t sum_of(const struct frame *frame, const char *stat)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < frame->layout->n_targets; i++) {
        const struct layout_target *target = &frame->layout->targets[i];
        const struct kvmstats_desc *desc = kvmstats_schema_find(target->schema->decoded, stat);
        if (target->vcpu >= 0 && desc)
            sum += kvmstats_value(desc, frame_block(frame, target), 0);
    }
    return sum;
}

static void run_busy(const struct host *host, const struct options *options)
{
    struct frame *frame = ring_pin(&host->store->rings[0]);
    uint32_t n = frame->layout->n_targets, n_vms = frame->layout->n_vms, vcpus;
    uint64_t *before = host_memory((size_t)n * KEPT_BLOCK_BYTES), exits = 0;
    struct kept kept;
    kept_init(&kept, n_vms, n / n_vms);
    frame_unpin(frame);

    (void)record(host);
    (void)tick(host);
    frame = ring_pin(&host->store->rings[0]);
    kept_blocks(frame, before);
    uint64_t first_exits = sum_of(frame, "exits"), bytes = recorded_bytes(host, &vcpus);
    frame_unpin(frame);
    int64_t begin_ns = clock_now_ns();
    for (unsigned i = 1; i <= options->rounds; i++) {
        wait_until(begin_ns + i * INTERVAL_MS * NSEC_PER_MSEC);
        (void)tick(host);
        frame = ring_pin(&host->store->rings[0]);
        kept_add(&kept, frame, before);
        exits = sum_of(frame, "exits");
        frame_unpin(frame);
    }
    bytes = recorded_bytes(host, &vcpus) - bytes;
    double seconds = (double)(clock_now_ns() - begin_ns) / NSEC_PER_SEC;
    printf("vcpus %" PRIu32 "\nticks %u\nseconds %.3f\n", vcpus, options->rounds, seconds);
    printf("exits_per_second_and_vcpu %.0f\n", (double)(exits - first_exits) / seconds / vcpus);
    /* Each chunk has a head besides. */
    printf("bytes_per_vcpu_tick %.2f\n",
           (double)bytes / vcpus / options->rounds * (1 + (double)64 / CHUNK_BYTES));
    if (options->keep)
        kept_write(&kept, options->keep);
}

/* --- many: what a tick takes --- */

enum {
    KINDS_MAX = 3,
};

struct race {
    unsigned n;
    const char *names[KINDS_MAX];
    struct host hosts[KINDS_MAX];
    struct played *played; /* NULL: nothing moves */
    int64_t *times[KINDS_MAX];
};

static struct host *enter(struct race *race, const char *name)
{
    race->names[race->n] = name;
    return &race->hosts[race->n++];
}

/* Each comes first and last equally often. */
static void run_rounds(struct race *race, unsigned rounds, int64_t pause_ns)
{
    for (unsigned i = 0; i < rounds; i++) {
        if (race->played)
            played_step(race->played);
        for (unsigned k = 0; k < race->n; k++) {
            unsigned kind = (i + k) % race->n;
            if (pause_ns)
                wait_until(clock_now_ns() + pause_ns);
            race->times[kind][i] = tick(&race->hosts[kind]);
        }
    }
}

static void print_times(const struct race *race, unsigned rounds, uint32_t n, const char *pace)
{
    for (unsigned k = 0; k < race->n; k++)
        printf("%s%s %.1f\n", race->names[k], pace, median_of(race->times[k], rounds) / n);
}

/* CPU time in nanoseconds a target, back to back and at the pace of 10 Hz. */
static void run_race(struct race *race, const struct options *options)
{
    uint32_t n = options->host.vms * (options->host.vcpus + 1);
    unsigned rounds = options->rounds, paced = rounds / 4 + 1;
    for (unsigned k = 0; k < race->n; k++)
        race->times[k] = host_memory((rounds + WARM_UP_ROUNDS) * sizeof *race->times[k]);
    printf("targets %" PRIu32 "\n", n);
    run_rounds(race, WARM_UP_ROUNDS, 0);
    run_rounds(race, rounds, 0);
    print_times(race, rounds, n, "");
    run_rounds(race, paced, INTERVAL_MS * NSEC_PER_MSEC);
    print_times(race, paced, n, "_paced");
}

static void run_idle(const struct host *host, const struct options *options)
{
    struct race race = {0};
    *enter(&race, "plain") = *host;
    struct host *all = enter(&race, "all");
    host_again(host, everything, all);
    (void)record(all);
    run_race(&race, options);
}

static void run_played(const struct host *host, const struct options *options,
                       const struct kept *kept)
{
    struct played played;
    struct race race = {.played = &played};
    *enter(&race, "idle") = *host;
    played_open(&played, kept, host, options->host.vms);
    played_host(&played, NULL, false, enter(&race, "plain"));
    struct host *all = enter(&race, "all");
    played_host(&played, everything, true, all);
    (void)record(all);
    run_race(&race, options);
}

/* --- many: how long the memory lasts --- */

/* The ticks of a VM that are there. */
static uint64_t count_records(const struct recorder *recorder, const struct vm *vm)
{
    CLEANUP_EXCERPT struct excerpt excerpt = {0};
    struct codec_record record;
    uint64_t n = 0;
    host_must(recorder_copy(recorder, vm, INT64_MIN, &excerpt), "copying a recording");
    const uint8_t *at = excerpt.bytes + excerpt.first, *end = excerpt.bytes + excerpt.len;
    for (; at < end; n++)
        host_must(codec_next(&at, end, &record), "a record");
    return n;
}

/* Times are told in a byte or two less than at 10 Hz, in each VM's record. */
static void run_fill(const struct host *model, const struct options *options,
                     const struct kept *kept)
{
    struct played played;
    struct host host;
    uint64_t least = UINT64_MAX, bytes = 0, ticks = 0;
    uint32_t vcpus;
    played_open(&played, kept, model, options->host.vms);
    played_host(&played, everything, true, &host);
    struct recorder *recorder = record(&host);
    while (bytes < (uint64_t)MEMORY_BYTES / 100 * FILL_PERCENT) {
        played_step(&played);
        (void)tick(&host);
        ticks++;
        if (ticks % 64 == 0)
            bytes = recorded_bytes(&host, &vcpus);
    }
    struct frame *frame = ring_pin(&host.store->rings[0]);
    for (uint32_t i = 0; i < frame->layout->n_vms; i++)
        least = MIN_OF(least, count_records(recorder, frame->layout->vms[i].vm));
    frame_unpin(frame);
    printf("vcpus %" PRIu32 "\nticks_recorded %" PRIu64 "\n", vcpus, ticks);
    printf("ticks_held_at_least %" PRIu64 "\n", least);
}

static struct options parse_options(int argc, char **argv)
{
    static const struct option long_options[] = {
        {"vms", required_argument, NULL, 'v'},
        {"vcpus", required_argument, NULL, 'c'},
        {"rate", required_argument, NULL, 'r'},
        {"rounds", required_argument, NULL, 'n'},
        {"keep", required_argument, NULL, 'k'},
        {"as", required_argument, NULL, 'a'},
        {0},
    };
    static const char *const words[] = {
        [MODE_BUSY] = "busy", [MODE_IDLE] = "idle", [MODE_PLAYED] = "played", [MODE_FILL] = "fill"};
    struct options options = {.host = {.vms = 10, .vcpus = 4}, .rounds = 100, .mode = MODES};
    int c;
    while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if (c == 'v')
            options.host.vms = (unsigned)strtoul(optarg, NULL, 10);
        else if (c == 'c')
            options.host.vcpus = (unsigned)strtoul(optarg, NULL, 10);
        else if (c == 'r')
            options.host.rate = optarg;
        else if (c == 'n')
            options.rounds = (unsigned)strtoul(optarg, NULL, 10);
        else if (c == 'k')
            options.keep = optarg;
        else if (c == 'a')
            options.as = optarg;
        else
            exit(EXIT_FAILURE);
    }
    for (unsigned i = 0; optind < argc && i < MODES; i++) {
        if (strcmp(argv[optind], words[i]) == 0)
            options.mode = (enum mode)i;
    }
    if (options.mode == MODES || (options.mode >= MODE_PLAYED && !options.as))
        errx(2, "usage: bench-recorder busy|idle [OPTION]... | played|fill --as FILE [OPTION]...");
    return options;
}

/* Only those VMs are busy that are recorded: others must not take the machine from what is timed.
 */
static void start(const struct options *options, struct host *ret_host)
{
    struct host_options vms = options->host;
    vms.load = options->mode == MODE_BUSY ? "mix" : "idle";
    if (options->mode == MODE_FILL)
        vms.vms = 1; /* whose files the played ones are like */
    vms.more_fds = options->host.vms * (options->host.vcpus + 2);
    host_start(&vms, ret_host);
}

int main(int argc, char **argv)
{
    const struct options options = parse_options(argc, argv);
    struct kept kept;
    struct host host;
    if (options.as)
        kept_read(&kept, options.as);
    start(&options, &host);
    switch (options.mode) {
    case MODE_BUSY:
        run_busy(&host, &options);
        break;
    case MODE_IDLE:
        run_idle(&host, &options);
        break;
    case MODE_PLAYED:
        run_played(&host, &options, &kept);
        break;
    case MODE_FILL:
        run_fill(&host, &options, &kept);
        break;
    case MODES:
        break;
    }
    host_stop(&host);
    return EXIT_SUCCESS;
}
