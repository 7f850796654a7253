/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Windows against a model that remembers every observation. Of the promise only what a user relies
 * on is checked, not how it is kept: whatever was observed within the window counts, nothing counts
 * that is older than the window and its slack, and nothing is made up.
 */
#include <math.h>
#include <stdbool.h>

#include "clock.h"
#include "suites.h"
#include "window.h"

enum {
    ROUNDS = 100,
    TICKS = 400,
    SERIES = 5,
};

struct observation {
    int64_t at_ns;
    uint64_t key; /* WINDOW_NOTHING: none at that tick */
};

struct history {
    struct observation of[TICKS];
    size_t n;
};

/* The highest key observed after `after_ns`. */
static uint64_t highest_after(const struct history *history, int64_t after_ns)
{
    uint64_t high = WINDOW_NOTHING;
    for (size_t i = 0; i < history->n; i++) {
        if (history->of[i].at_ns > after_ns)
            high = MAX_OF(high, history->of[i].key);
    }
    return high;
}

static int64_t random_between(int64_t low, int64_t high)
{
    return low + (int64_t)testing_random_below((uint64_t)(high - low) + 1);
}

/* From nanoseconds to an hour, each order of magnitude as likely as another. */
static int64_t random_duration(void)
{
    return (int64_t)exp((double)testing_random_below(1000000) / 1e6 * log(3600e9)) + 1;
}

/* Mostly regular; now and then late, several at once, or a long gap. */
static int64_t next_tick(int64_t now_ns, int64_t interval_ns)
{
    switch (testing_random_below(20)) {
    case 0:
        return now_ns;
    case 1:
        return now_ns + random_between(0, 40 * interval_ns);
    case 2:
    case 3:
        return now_ns + random_between(0, 2 * interval_ns);
    }
    return now_ns + interval_ns;
}

/* A series joins, leaves for a while, is reset (no observation), and repeats itself. */
static uint64_t next_key(size_t series, size_t tick, uint64_t before)
{
    if ((tick / 50 + series) % 3 == 2 || testing_random_below(8) == 0)
        return WINDOW_NOTHING;
    if (testing_random_below(3) == 0)
        return MAX_OF(before, UINT64_C(1));
    return 1 + testing_random_below(testing_random_below(10) ? 100 : UINT64_MAX - 1);
}

static void check_series(const struct windows *windows, const struct history *history,
                         uint32_t series, int64_t window_ns, int64_t now_ns)
{
    /* Spans are whole nanoseconds, so together they may be longer by one each. */
    int64_t most_ns = window_ns + 2 * (window_ns / WINDOW_PARTS) + WINDOW_BUCKETS + 2;
    uint64_t shown = windows_read(windows, series, now_ns);
    ck_assert_uint_ge(shown, highest_after(history, now_ns - window_ns - 1));
    ck_assert_uint_le(shown, highest_after(history, now_ns - most_ns - 1));
    bool observed = shown == WINDOW_NOTHING;
    for (size_t i = 0; i < history->n && !observed; i++)
        observed = history->of[i].key == shown;
    ck_assert(observed);
}

START_TEST(window_is_what_a_model_says)
{
    static struct history history[SERIES];
    for (int round = 0; round < ROUNDS; round++) {
        int64_t window_ns = random_duration();
        int64_t interval_ns = 1 + window_ns / (1 + (int64_t)testing_random_below(200));
        int64_t now_ns = (int64_t)testing_random_below(1000) * NSEC_PER_SEC;
        struct windows *windows;
        ck_assert_int_eq(windows_new(window_ns, SERIES, &windows), 0);
        for (uint32_t s = 0; s < SERIES; s++) {
            history[s].n = 0;
            ck_assert_uint_eq(windows_read(windows, s, now_ns), WINDOW_NOTHING);
        }
        for (size_t tick = 0; tick < TICKS; tick++) {
            now_ns = next_tick(now_ns, interval_ns);
            windows_age(windows, now_ns, INT64_MAX);
            for (uint32_t s = 0; s < SERIES; s++) {
                struct history *h = &history[s];
                uint64_t key = next_key(s, tick, h->n ? h->of[h->n - 1].key : 0);
                h->of[h->n++] = (struct observation){now_ns, key};
                if (key != WINDOW_NOTHING)
                    windows_add(windows, s, key);
                check_series(windows, h, s, window_ns, now_ns);
            }
        }
        windows_free(windows);
    }
}
END_TEST

/* One that looks at its own pace, whatever its phase. */
struct scraper {
    int64_t interval_ns;
    int64_t due_ns;
    size_t seen; /* observations before this one it need not see any more */
};

/* All that was observed since it looked last, and up to now, it must see now. */
static void scrape(struct scraper *scraper, const struct windows *windows,
                   const struct history *history)
{
    uint64_t shown = windows_read(windows, 0, scraper->due_ns);
    for (; scraper->seen < history->n; scraper->seen++)
        ck_assert_uint_ge(shown, history->of[scraper->seen].key);
}

/* Scrapers with intervals up to the window, ticks at any pace: none misses a single peak. */
START_TEST(no_scraper_misses_a_peak)
{
    static struct history history;
    for (int round = 0; round < ROUNDS; round++) {
        int64_t window_ns = 1000 + random_duration();
        int64_t tick_ns = 1 + window_ns / (1 + (int64_t)testing_random_below(100));
        int64_t now_ns = (int64_t)testing_random_below(1000) * NSEC_PER_SEC;
        struct scraper scrapers[8];
        struct windows *windows;
        ck_assert_int_eq(windows_new(window_ns, 1, &windows), 0);
        history.n = 0;
        for (size_t i = 0; i < ARRAY_LEN(scrapers); i++) {
            int64_t interval_ns = i ? random_between(window_ns / 50 + 1, window_ns) : window_ns;
            scrapers[i] = (struct scraper){
                .interval_ns = interval_ns,
                .due_ns = now_ns + random_between(0, interval_ns),
            };
        }
        for (size_t tick = 0; tick < TICKS; tick++) {
            now_ns += random_between(tick_ns / 2, tick_ns);
            for (size_t i = 0; i < ARRAY_LEN(scrapers); i++) {
                for (; scrapers[i].due_ns < now_ns; scrapers[i].due_ns += scrapers[i].interval_ns)
                    scrape(&scrapers[i], windows, &history);
            }
            windows_age(windows, now_ns, INT64_MAX);
            uint64_t key = testing_random_below(10) ? 1 : 2 + testing_random_below(1000000);
            windows_add(windows, 0, key);
            history.of[history.n++] = (struct observation){now_ns, key};
        }
        windows_free(windows);
    }
}
END_TEST

/* Readers don't believe what nobody has aged for longer than was promised. */
START_TEST(windows_that_nobody_ages_are_empty)
{
    struct windows *windows;
    ck_assert_int_eq(windows_new(NSEC_PER_SEC, 1, &windows), 0);
    windows_age(windows, 100, 200);
    windows_add(windows, 0, 7);
    ck_assert_uint_eq(windows_read(windows, 0, 200), 7);
    ck_assert_uint_eq(windows_read(windows, 0, 201), WINDOW_NOTHING);
    windows_age(windows, 300, 400);
    ck_assert_uint_eq(windows_read(windows, 0, 201), 7);
    windows_free(windows);
}
END_TEST

/* Keys keep order and value: of doubles, and of integers that no double has. */
START_TEST(keys_keep_what_they_stand_for)
{
    for (int i = 0; i < 100000; i++) {
        double x = ldexp((double)testing_random_below(1 << 20), (int)testing_random_below(40) - 20);
        double y = ldexp((double)testing_random_below(1 << 20), (int)testing_random_below(40) - 20);
        uint64_t a = testing_random() >> testing_random_below(64), b = testing_random();
        ck_assert(window_double_of_key(window_key_of_double(x)) == x);
        ck_assert((x < y) == (window_key_of_double(x) < window_key_of_double(y)));
        ck_assert_uint_ne(window_key_of_double(x), WINDOW_NOTHING);
        ck_assert_uint_eq(window_high_of_key(window_key_of_high(a)), a);
        ck_assert_uint_eq(window_low_of_key(window_key_of_low(a)), a);
        ck_assert((a < b) == (window_key_of_high(a) < window_key_of_high(b)));
        ck_assert((a < b) == (window_key_of_low(a) > window_key_of_low(b)));
    }
    ck_assert_uint_ne(window_key_of_double(0), WINDOW_NOTHING);
    ck_assert_uint_ne(window_key_of_high(UINT64_MAX), WINDOW_NOTHING);
    ck_assert_uint_ne(window_key_of_high(0), WINDOW_NOTHING);
    ck_assert_uint_ne(window_key_of_low(UINT64_MAX), WINDOW_NOTHING);
    ck_assert_uint_eq(window_low_of_key(window_key_of_low(0)), 0);
}
END_TEST

Suite *window_suite(void)
{
    Suite *suite = suite_create("windows");
    TCase *tc = tcase_create("windows");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, window_is_what_a_model_says);
    tcase_add_test(tc, no_scraper_misses_a_peak);
    tcase_add_test(tc, windows_that_nobody_ages_are_empty);
    tcase_add_test(tc, keys_keep_what_they_stand_for);
    suite_add_tcase(suite, tc);
    return suite;
}
