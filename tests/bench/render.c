/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What rendering costs: 1,000 VMs of 4 vCPUs, all statistics of Linux 6.18 on x86, histograms of
 * each vCPU; one thread. In the same run: copying the same bytes, which is as fast as it could ever
 * be, and printing the same samples by snprintf(), which is what it replaces.
 *
 *     build/tests/bench-render [VMS [VCPUS [ROUNDS]]]
 */
#include <inttypes.h>
#include <string.h>

#include "clock.h"
#include "stage.h"

static uint64_t state = 88172645463325252;

static uint64_t next_random(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

/* Counters of all magnitudes, as in a VM that has run for hours; a third of all values is 0. */
static void fill(struct frame *frame)
{
    for (size_t i = 0; i < frame->layout->data_bytes; i += sizeof(uint64_t)) {
        uint64_t value = next_random() % 3 ? next_random() >> (24 + next_random() % 40) : 0;
        memcpy(frame->data + i, &value, sizeof value);
    }
}

static int discard(void *ctx, const char *bytes, size_t len)
{
    (void)bytes;
    *(size_t *)ctx += len;
    return 0;
}

static size_t count_samples(const char *text)
{
    size_t n = 0;
    for (const char *line = text; *line; line = strchr(line, '\n') + 1)
        n += *line != '#';
    return n;
}

/*
 * The thread's CPU time: what others do on the machine meanwhile is not ours, but for the caches.
 * Rendering never waits, so this is what the wall clock would show on a machine of its own.
 */
static int64_t cpu_now_ns(void)
{
    return clock_read_ns(CLOCK_THREAD_CPUTIME_ID);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

enum {
    ROUNDS_MAX = 1000,
};

struct timings {
    double ns[ROUNDS_MAX]; /* a sample */
    size_t n;
};

static void add_timing(struct timings *t, int64_t begin_ns, size_t n_samples)
{
    if (t->n < ROUNDS_MAX)
        t->ns[t->n++] = (double)(cpu_now_ns() - begin_ns) / (double)n_samples;
}

static void report(const char *what, struct timings *t)
{
    qsort(t->ns, t->n, sizeof *t->ns, by_value);
    printf("%-44s %7.2f ns a sample (fastest %.2f, slowest %.2f)\n", what, t->ns[t->n / 2],
           t->ns[0], t->ns[t->n - 1]);
}

static void bench_render(struct stage *stage, struct exposition *exposition,
                         enum exposition_format format, size_t n_samples, struct timings *t)
{
    size_t bytes = 0;
    const struct exposition_sink sink = {discard, &bytes};
    CLEANUP_VIEW struct view view;
    int64_t begin_ns = cpu_now_ns();
    if (view_take(stage->store, &view) < 0 ||
        exposition_render(exposition, &view, NULL, format, &sink) < 0)
        abort();
    add_timing(t, begin_ns, n_samples);
}

/* The same bytes, a piece at a time into one place, as the renderer hands them out. */
static void bench_copy(const char *text, size_t len, size_t n_samples, struct timings *t)
{
    static char piece[256 * 1024];
    int64_t begin_ns = cpu_now_ns();
    for (size_t at = 0; at < len; at += sizeof piece) {
        memcpy(piece, text + at, MIN_OF(sizeof piece, len - at));
        __asm__ volatile("" ::"r"(piece) : "memory");
    }
    add_timing(t, begin_ns, n_samples);
}

static void bench_printf(size_t n_samples, struct timings *t)
{
    char line[256];
    size_t bytes = 0;
    int64_t begin_ns = cpu_now_ns();
    for (size_t i = 0; i < n_samples; i++) {
        uint64_t value = next_random() % 3 ? next_random() >> (24 + next_random() % 40) : 0;
        bytes +=
            (size_t)snprintf(line, sizeof line, "%s{vm=\"%s\",vcpu=\"%u\",le=\"%s\"} %" PRIu64 "\n",
                             "kvm_vcpu_halt_wait_hist_seconds_bucket", "instance-00000001",
                             (unsigned)i & 3, "0.000001023", value);
        __asm__ volatile("" ::"r"(line) : "memory");
    }
    add_timing(t, begin_ns, n_samples);
    if (bytes == 0)
        abort();
}

static void add_vms(struct stage *stage, unsigned n_vms, unsigned n_vcpus)
{
    const struct schema *vm_schema = stage_x86_schema(stage, SCOPE_VM);
    const struct schema *vcpu_schema = stage_x86_schema(stage, SCOPE_VCPU);
    for (unsigned i = 0; i < n_vms; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "instance-%08x", i);
        struct vm_identity_spec spec = {.vm = name, .vmm = "qemu", .source = "statsfd", .pid = 1};
        stage_vm_add(stage, &spec, 0, vm_schema, vcpu_schema, n_vcpus);
    }
    stage_layout(stage, 0);
    fill(stage_frame(stage, 0));
}

/* One configuration's content in OpenMetrics and in protobuf, by turns. */
struct rivals {
    struct exposition *exposition;
    size_t n_samples; /* of OpenMetrics, which both are divided by */
    size_t open_bytes, pb_bytes;
    struct timings open, pb;
};

static void rivals_init(struct rivals *r, struct stage *stage)
{
    r->exposition = stage_exposition(stage);
    CLEANUP_FREE char *open =
        stage_render_bytes(stage, r->exposition, NULL, EXPOSITION_OPENMETRICS, &r->open_bytes);
    free(stage_render_bytes(stage, r->exposition, NULL, EXPOSITION_PROTOBUF, &r->pb_bytes));
    r->n_samples = count_samples(open);
}

static void rivals_round(struct rivals *r, struct stage *stage)
{
    bench_render(stage, r->exposition, EXPOSITION_OPENMETRICS, r->n_samples, &r->open);
    bench_render(stage, r->exposition, EXPOSITION_PROTOBUF, r->n_samples, &r->pb);
}

/* After report(), which sorts. */
static void rivals_compare(const char *what, const struct rivals *r)
{
    printf("protobuf / OpenMetrics, %s: bytes %.3f (%zu / %zu), time %.3f\n", what,
           (double)r->pb_bytes / (double)r->open_bytes, r->pb_bytes, r->open_bytes,
           r->pb.ns[r->pb.n / 2] / r->open.ns[r->open.n / 2]);
}

int main(int argc, char **argv)
{
    unsigned n_vms = argc > 1 ? (unsigned)atoi(argv[1]) : 1000;
    unsigned n_vcpus = argc > 2 ? (unsigned)atoi(argv[2]) : 4;
    unsigned rounds = argc > 3 ? (unsigned)atoi(argv[3]) : 15;
    static struct rivals by_vm, by_vcpu;
    static struct timings text, copy, print;
    struct stage stage;
    stage_init(&stage);
    add_vms(&stage, n_vms, n_vcpus);

    rivals_init(&by_vm, &stage);
    for (unsigned i = 0; i < rounds; i++)
        rivals_round(&by_vm, &stage);

    stage.config->metrics.histograms = CONFIG_HISTOGRAMS_VCPU;
    rivals_init(&by_vcpu, &stage);
    CLEANUP_FREE char *all = stage_render(&stage, by_vcpu.exposition, NULL, EXPOSITION_OPENMETRICS);
    CLEANUP_FREE char *all_text = stage_render(&stage, by_vcpu.exposition, NULL, EXPOSITION_TEXT);
    size_t len = by_vcpu.open_bytes, n_text = count_samples(all_text);
    printf("%u VMs of %u vCPUs: %zu samples, %zu bytes\n", n_vms, n_vcpus, by_vcpu.n_samples, len);
    for (unsigned i = 0; i < rounds; i++) {
        rivals_round(&by_vcpu, &stage);
        bench_render(&stage, by_vcpu.exposition, EXPOSITION_TEXT, n_text, &text);
        bench_copy(all, len, by_vcpu.n_samples, &copy);
        bench_printf(by_vcpu.n_samples, &print);
    }
    report("OpenMetrics 1.0.0", &by_vcpu.open);
    report("text 0.0.4", &text);
    report("protobuf of the same", &by_vcpu.pb);
    report("OpenMetrics, histograms summed by VM", &by_vm.open);
    report("protobuf of the same, summed by VM", &by_vm.pb);
    report("memcpy() of the same bytes", &copy);
    report("snprintf() of a line", &print);
    rivals_compare("histograms of each vCPU", &by_vcpu);
    rivals_compare("histograms summed by VM", &by_vm);

    exposition_free(by_vm.exposition);
    exposition_free(by_vcpu.exposition);
    stage_deinit(&stage);
    return 0;
}
