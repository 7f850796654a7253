/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libcheck forks each test (unless CK_FORK=no) and has no notion of a skip, so a skipped test
 * leaves a note in an inherited temporary file and exits well; the TAP line is marked from that
 * note.
 */
#include "testing.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static FILE *skips;
static uint64_t state;

static void seed_once(void)
{
    const char *given = getenv("KVMSTATD_TEST_SEED");
    if (state)
        return;
    state =
        given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL) * 2654435761u ^ (uint64_t)getpid();
    printf("# seed: KVMSTATD_TEST_SEED=%llu\n", (unsigned long long)state);
    if (!state)
        state = 1;
}

uint64_t testing_random(void)
{
    seed_once();
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * UINT64_C(2685821657736338717);
}

uint64_t testing_random_below(uint64_t below)
{
    return testing_random() % below;
}

void testing_skip(const char *reason)
{
    const char *require = getenv("KVMSTATD_REQUIRE_KVM");
    if (require && strcmp(require, "1") == 0)
        ck_abort_msg("must not be skipped here: %s", reason);
    fprintf(skips, "%s\n", reason);
    fflush(skips);
    _exit(0);
}

int testing_run(Suite *first, ...)
{
    seed_once();
    fflush(stdout);
    skips = tmpfile();
    SRunner *runner = srunner_create(first);
    va_list args;
    va_start(args, first);
    for (Suite *suite; (suite = va_arg(args, Suite *));)
        srunner_add_suite(runner, suite);
    va_end(args);

    srunner_set_tap(runner, "-");
    srunner_run_all(runner, CK_SILENT);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);

    if (skips) {
        char reason[256];
        rewind(skips);
        while (fgets(reason, sizeof reason, skips))
            printf("# SKIPPED %s", reason);
        fclose(skips);
    }
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
