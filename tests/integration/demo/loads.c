/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guests really run: KVM's own statistics say what the loads promise, and say it to the number.
 */
#include <stdio.h>
#include <unistd.h>

#include "kvmtest.h"
#include "testing.h"

Suite *suite_loads(void);

#define ROUNDS 300

struct load_case {
    const char *load;
    unsigned io, mmio, halt; /* per round */
};

static const struct load_case cases[] = {
    {"idle", 0, 0, 0}, {"halt", 0, 0, 1}, {"io", 1, 0, 0}, {"mmio", 0, 1, 0}, {"mix", 1, 1, 1},
};

/* What an architecture's KVM calls what the guest does. */
struct words {
    const char *exits;
    const char *halts;
    const char *mmio;
    bool mmio_has_io;  /* there are no ports: the guest writes to a device's register instead */
    bool last_counts;  /* the halt that does not end is counted among the halts */
    bool every_counts; /* a halt that is over before it begins is counted, and no halt twice */
    bool blocks;       /* the kernel says "blocking", and how long and often it waited */
};

#if defined(__aarch64__) || defined(__riscv)
static const struct words words = {
    .exits = "exits",
    .halts = "wfi_exit_stat",
    .mmio = "mmio_exit_user",
    .mmio_has_io = true,
    .last_counts = true,
    .blocks = true,
};
#elif defined(__powerpc64__)
/* HV counts all MMIO as loads, H_CEDE not at all, but that it was ended. */
static const struct words words = {
    .exits = "sum_exits",
    .halts = "halt_wakeup",
    .mmio = "ld",
    .mmio_has_io = true,
};
#else
static const struct words words = {
    .exits = "exits",
    .halts = "halt_exits",
    .mmio = "mmio_exits",
    .last_counts = true,
    .every_counts = true,
    .blocks = true,
};
#endif

/*
 * A vCPU that has made its rounds halts for good, and nothing moves any more. In this order: its
 * last halt is one more than its rounds made, and then it blocks.
 */
static bool is_done(int vcpu_stats, const struct kvmtest_count *count, uint64_t halts)
{
    uint64_t seen = kvmtest_value(vcpu_stats, words.halts, 0);
    if (words.every_counts && seen != halts + 1)
        return false;
    if (words.blocks && kvmtest_value(vcpu_stats, "blocking", 0) != 1)
        return false;
    return count->halt == halts;
}

/* Waits for all `n` vCPUs; stats[vcpu]. */
static void wait_done(struct kvmtest_vms *vms, const int *stats, size_t n, unsigned rounds,
                      unsigned actions, struct kvmtest_count *ret_counts)
{
    for (int i = 0; i < KVMTEST_TIMEOUT_MS; i++) {
        size_t done = 0;
        kvmtest_counts(vms, ret_counts, n);
        for (size_t vcpu = 0; vcpu < n; vcpu++) {
            const struct kvmtest_count *count = &ret_counts[vcpu];
            uint64_t made = count->io - 1 + count->mmio + count->halt;
            done += made == (uint64_t)actions * rounds && is_done(stats[vcpu], count, count->halt);
        }
        if (done == n)
            return;
        (void)usleep(1000);
    }
    ck_abort_msg("%s: %llu, and the guest counted %llu", words.halts,
                 (unsigned long long)kvmtest_value(stats[0], words.halts, 0),
                 (unsigned long long)ret_counts[0].halt);
}

static void check_halts(int stats, const struct load_case *c, uint64_t halts)
{
    uint64_t seen = kvmtest_value(stats, words.halts, 0);
    if (words.every_counts) {
        ck_assert_uint_eq(seen, halts + 1); /* 1: the last one */
    } else {
        /* Between two exits to user space the timer may have been faster than the guest. */
        ck_assert_uint_ge(seen, words.last_counts + (c->io ? halts > 0 : halts / 2));
        ck_assert(halts > 0 || seen <= 1);
    }
    if (!words.blocks)
        return;

    /* Each halt ends in exactly one of these; the last one hasn't ended. */
    uint64_t polled = kvmtest_sum(stats, "halt_poll_success_hist");
    uint64_t waited = kvmtest_sum(stats, "halt_wait_hist");
    ck_assert_uint_lt(polled + waited, seen);
    uint64_t ns =
        kvmtest_value(stats, "halt_wait_ns", 0) + kvmtest_value(stats, "halt_poll_success_ns", 0);
    ck_assert_int_eq(polled + waited > 0, halts > 0);
    ck_assert_int_eq(ns > 0, halts > 0);
}

static void check_vcpu(int stats, const struct load_case *c, const struct kvmtest_count *count)
{
    uint64_t io = 1 + (uint64_t)c->io * ROUNDS; /* 1: "I have started" */
    uint64_t mmio = (uint64_t)c->mmio * ROUNDS;
    uint64_t halts = (uint64_t)c->halt * ROUNDS;
    ck_assert_uint_eq(count->io, io);
    ck_assert_uint_eq(count->mmio, mmio);
    ck_assert_uint_eq(count->halt, halts);

    ck_assert_uint_eq(kvmtest_value(stats, words.mmio, 0), mmio + (words.mmio_has_io ? io : 0));
    check_halts(stats, c, halts);
    uint64_t exits = io + mmio + (words.every_counts ? halts + 1 : 0);
    ck_assert_uint_ge(kvmtest_value(stats, words.exits, 0), exits);
    if (kvmtest_has(stats, "irq_injections")) {
        /* An injection that another exit cancels is made, and counted, once more. */
        uint64_t injections = kvmtest_value(stats, "irq_injections", 0);
        ck_assert_uint_ge(injections, halts);
        ck_assert(halts > 0 || injections == 0);
    }
    if (!words.mmio_has_io) {
        /* A KVM that runs protected mode by its emulator does not count port exits as such. */
        uint64_t io_exits = kvmtest_value(stats, "io_exits", 0);
        ck_assert_msg(io_exits == io || io_exits == 0, "io_exits: %llu",
                      (unsigned long long)io_exits);
    }
}

START_TEST(test_load_counts_exactly)
{
    const struct load_case *c = &cases[_i];
    char rounds[16];
    kvmtest_require_kvm();
    (void)snprintf(rounds, sizeof rounds, "%d", ROUNDS);
    struct kvmtest_vms *vms =
        kvmtest_start("--load", c->load, "--vcpus", "2", "--rounds", rounds, "--name", "n", NULL);
    struct kvmtest_stats *stats;
    struct kvmtest_count counts[2];
    size_t n = kvmtest_borrow_stats(vms->vms[0].pid, &stats);
    ck_assert_uint_eq(n, 3);
    wait_done(vms, (int[]){stats[1].fd, stats[2].fd}, 2, ROUNDS, c->io + c->mmio + c->halt, counts);
    for (int vcpu = 0; vcpu < 2; vcpu++) {
        ck_assert_int_eq(stats[1 + vcpu].vcpu, vcpu);
        ck_assert_uint_eq(counts[vcpu].vcpu, (unsigned)vcpu);
        ck_assert_str_eq(counts[vcpu].name, "n");
        check_vcpu(stats[1 + vcpu].fd, c, &counts[vcpu]);
    }
    kvmtest_close_stats(stats, n);
    ck_assert_int_eq(kvmtest_stop(vms), 0);
}
END_TEST

/* While it runs, what the VMM has counted lies between two looks at the kernel's number. */
START_TEST(test_running_count_lies_between)
{
    kvmtest_require_kvm();
    struct kvmtest_vms *vms = kvmtest_start("--load", "mmio", "--rate", "0", NULL);
    int stats = kvmtest_borrow_one(vms->vms[0].pid, 0);
    uint64_t first = kvmtest_value(stats, words.mmio, 0);
    uint64_t started = words.mmio_has_io ? 1 : 0;
    for (int i = 0; i < 50; i++) {
        struct kvmtest_count count;
        uint64_t before = kvmtest_value(stats, words.mmio, 0) - started;
        kvmtest_counts(vms, &count, 1);
        uint64_t after = kvmtest_value(stats, words.mmio, 0) - started;
        /* KVM counts an exit before the VMM sees it. */
        ck_assert_uint_ge(count.mmio + 1, before);
        ck_assert_uint_le(count.mmio, after);
        ck_assert_str_eq(count.name, "-");
    }
    while (kvmtest_value(stats, words.mmio, 0) == first)
        (void)usleep(1000); /* libcheck's timeout ends what never moves */
    (void)close(stats);
    ck_assert_int_eq(kvmtest_stop(vms), 0);
}
END_TEST

/* Without a rate each vCPU interrupts itself: halts end, though no timer ticks. */
START_TEST(test_halts_without_timer)
{
    kvmtest_require_kvm();
    struct kvmtest_vms *vms =
        kvmtest_start("--load", "mix", "--rate", "0", "--rounds", "5000", NULL);
    struct kvmtest_count count;
    int stats = kvmtest_borrow_one(vms->vms[0].pid, 0);
    wait_done(vms, &stats, 1, 5000, 3, &count);
    ck_assert_uint_eq(count.halt, 5000);
    ck_assert_uint_eq(count.mmio, 5000);
    ck_assert_uint_eq(count.io, 5001);
    (void)close(stats);
    ck_assert_int_eq(kvmtest_stop(vms), 0);
}
END_TEST

/* What is idle stays so: a halt that nothing ends, and no exits. */
START_TEST(test_idle_is_quiet)
{
    kvmtest_require_kvm();
    struct kvmtest_vms *vms = kvmtest_start("--load", "idle", "--vcpus", "3", NULL);
    int stats[3];
    struct kvmtest_count counts[3];
    for (int vcpu = 0; vcpu < 3; vcpu++)
        stats[vcpu] = kvmtest_borrow_one(vms->vms[0].pid, vcpu);
    wait_done(vms, stats, 3, 0, 0, counts);
    if (!words.blocks)
        (void)usleep(500000); /* and nothing tells whether they have come to their halt */
    for (int vcpu = 0; vcpu < 3; vcpu++) {
        uint64_t exits = kvmtest_value(stats[vcpu], words.exits, 0);
        (void)usleep(50000);
        ck_assert_uint_eq(kvmtest_value(stats[vcpu], words.exits, 0), exits);
        if (words.blocks)
            ck_assert_uint_eq(kvmtest_value(stats[vcpu], "blocking", 0), 1);
        (void)close(stats[vcpu]);
    }
    ck_assert_int_eq(kvmtest_stop(vms), 0);
}
END_TEST

Suite *suite_loads(void)
{
    Suite *suite = suite_create("loads");
    TCase *tcase = tcase_create("loads");
    tcase_set_timeout(tcase, 100);
    tcase_add_loop_test(tcase, test_load_counts_exactly, 0, sizeof cases / sizeof cases[0]);
    tcase_add_test(tcase, test_running_count_lies_between);
    tcase_add_test(tcase, test_halts_without_timer);
    tcase_add_test(tcase, test_idle_is_quiet);
    suite_add_tcase(suite, tcase);
    return suite;
}
