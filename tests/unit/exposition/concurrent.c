/* SPDX-License-Identifier: Apache-2.0 */
/* Scrapers in several threads while ticks go on: what the thread sanitizer looks at. */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "stage.h"
#include "suites.h"

enum {
    SCRAPERS = 4,
    SCRAPES = 100,
    VMS = 3,
};

struct shared {
    struct stage stage;
    struct exposition *exposition;
    atomic_bool done;
};

static uint64_t sum_of(const char *text, unsigned vm)
{
    char start[64];
    uint64_t value = 0;
    (void)snprintf(start, sizeof start, "\nkvm_vcpu_exits_total{vm=\"vm%u\"} ", vm);
    const char *line = strstr(text, start);
    if (!line || sscanf(line + strlen(start), "%" SCNu64, &value) != 1)
        return UINT64_MAX;
    return value;
}

/* Returns NULL, or what went wrong. */
static void *scrape(void *ctx)
{
    struct shared *shared = ctx;
    uint64_t last[VMS] = {0};
    for (int i = 0; i < SCRAPES; i++) {
        CLEANUP_FREE char *text =
            stage_render(&shared->stage, shared->exposition, NULL, (unsigned)i % 2);
        for (unsigned vm = 0; vm < VMS; vm++) {
            uint64_t sum = sum_of(text, vm);
            if (sum == UINT64_MAX)
                return (void *)"a sum is missing";
            if (sum < last[vm])
                return (void *)"a sum fell";
            last[vm] = sum;
        }
    }
    return NULL;
}

/* Counters that rise, and now and then are cleared. */
static void next_frame(struct stage *stage)
{
    struct frame *frame = stage_tick_prepare(stage, 0);
    for (uint32_t t = 0; t < frame->layout->n_targets; t++) {
        uint64_t value;
        memcpy(&value, frame->data + frame->layout->targets[t].offset, sizeof value);
        value = testing_random_below(20) == 0 ? 0 : value + testing_random_below(1000);
        memcpy(frame->data + frame->layout->targets[t].offset, &value, sizeof value);
    }
    ring_publish(&stage->store->rings[0], frame);
}

static void *tick(void *ctx)
{
    struct shared *shared = ctx;
    while (!atomic_load(&shared->done))
        next_frame(&shared->stage);
    return NULL;
}

START_TEST(scrapers_and_ticks)
{
    struct kvmstats_desc descs[] = {STAGE_DESC("exits", CUMULATIVE, NONE, 0, 1),
                                    STAGE_DESC("depth", INSTANT, NONE, 0, 1)};
    struct shared shared = {0};
    pthread_t scrapers[SCRAPERS], ticker;
    stage_init(&shared.stage);
    shared.stage.config->metrics.vcpu = false;
    const struct schema *schema = stage_schema(&shared.stage, SCOPE_VCPU, descs, 2);
    for (unsigned vm = 0; vm < VMS; vm++) {
        char name[16];
        (void)snprintf(name, sizeof name, "vm%u", vm);
        struct vm_identity_spec spec = {.vm = name};
        stage_vm_add(&shared.stage, &spec, 0, NULL, schema, 2);
    }
    stage_layout(&shared.stage, 0);
    shared.exposition = stage_exposition(&shared.stage);

    ck_assert_int_eq(pthread_create(&ticker, NULL, tick, &shared), 0);
    for (int i = 0; i < SCRAPERS; i++)
        ck_assert_int_eq(pthread_create(&scrapers[i], NULL, scrape, &shared), 0);
    void *trouble[SCRAPERS];
    for (int i = 0; i < SCRAPERS; i++)
        ck_assert_int_eq(pthread_join(scrapers[i], &trouble[i]), 0);
    atomic_store(&shared.done, true);
    ck_assert_int_eq(pthread_join(ticker, NULL), 0);
    for (int i = 0; i < SCRAPERS; i++)
        ck_assert_msg(!trouble[i], "%s", (const char *)trouble[i]);
    exposition_free(shared.exposition);
    stage_deinit(&shared.stage);
}
END_TEST

Suite *concurrent_suite(void)
{
    Suite *suite = suite_create("concurrent");
    TCase *tc = tcase_create("concurrent");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, scrapers_and_ticks);
    suite_add_tcase(suite, tc);
    return suite;
}
