/* SPDX-License-Identifier: Apache-2.0 */
/* quota.c, rate.c and watch.c. */
#include "http_test.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "clock.h"
#include "rate.h"
#include "watch.h"

START_TEST(requests_up_to_the_limit)
{
    const struct peer peer = {{1}};
    struct entrant entrants[3];
    struct quota quota;
    quota_init(&quota, 2, 100);
    ck_assert(quota_enter(&quota, &entrants[0], peer));
    ck_assert(quota_enter(&quota, &entrants[1], peer));
    ck_assert(!quota_enter(&quota, &entrants[2], peer));
    quota_leave(&quota, &entrants[2]); /* nothing */
    quota_leave(&quota, &entrants[0]);
    ck_assert(quota_enter(&quota, &entrants[2], peer));
    ck_assert(!quota_enter(&quota, &entrants[0], peer));
    quota_deinit(&quota);
}
END_TEST

/* A peer that reads nothing of its answers leaves others some places. */
START_TEST(no_peer_has_all_places)
{
    enum {
        MAX = 40,
        OTHERS = MAX / QUOTA_REQUESTS_PER_SPARE,
    };
    const struct peer greedy = {{1}}, other = {{2}};
    struct entrant entrants[MAX + 1];
    struct quota quota;
    size_t n = 0;
    quota_init(&quota, MAX, 100);
    while (n <= MAX && quota_enter(&quota, &entrants[n], greedy))
        n++;
    ck_assert_uint_eq(n, MAX - OTHERS);
    while (n <= MAX && quota_enter(&quota, &entrants[n], other))
        n++;
    ck_assert_uint_eq(n, MAX);
    quota_leave(&quota, &entrants[0]);
    ck_assert(quota_enter(&quota, &entrants[0], greedy));
    quota_leave(&quota, &entrants[MAX - 1]);
    ck_assert(!quota_enter(&quota, &entrants[MAX - 1], greedy));
    ck_assert(quota_enter(&quota, &entrants[MAX - 1], other));
    quota_deinit(&quota);
}
END_TEST

START_TEST(bytes_up_to_the_limit)
{
    struct quota quota;
    struct holding a, b;
    quota_init(&quota, 2, 100);
    holding_init(&a, &quota);
    holding_init(&b, &quota);
    ck_assert_int_eq(holding_add(&a, 60), 0);
    ck_assert_int_eq(holding_add(&b, 40), 0);
    ck_assert_int_eq(holding_add(&b, 1), -ENOBUFS);
    ck_assert_uint_eq(b.bytes, 40);
    ck_assert_uint_eq(quota.bytes, 100);
    holding_end(&a);
    ck_assert_uint_eq(quota.bytes, 40);
    ck_assert_int_eq(holding_add(&b, 60), 0);
    holding_end(&b);
    holding_end(&b); /* again is nothing */
    ck_assert_uint_eq(quota.bytes, 0);
    quota_deinit(&quota);
}
END_TEST

START_TEST(the_oldest_answer_may_always_grow)
{
    struct quota quota;
    struct holding a, b;
    quota_init(&quota, 2, 100);
    holding_init(&a, &quota);
    holding_init(&b, &quota);
    ck_assert_int_eq(holding_add(&a, 1000), 0);
    ck_assert_int_eq(holding_add(&b, 1), -ENOBUFS); /* 100 - 1000 must not wrap */
    ck_assert_int_eq(holding_add(&b, 0), 0);
    ck_assert_int_eq(holding_add(&a, 1000), 0);
    holding_end(&a);
    ck_assert_int_eq(holding_add(&b, 1000), 0); /* now it is the oldest itself */
    ck_assert_int_eq(holding_add(&a, 1), -ENOBUFS);
    holding_end(&b);
    quota_deinit(&quota);
}
END_TEST

/* Whether the other end was shut down, now. */
static bool is_ended(int fd)
{
    char byte;
    return recv(fd, &byte, 1, MSG_DONTWAIT) == 0;
}

START_TEST(the_late_are_cut_and_others_are_not)
{
    struct watch watch;
    struct watched late, early, moved;
    int a[2], b[2], c[2];
    int64_t now_ns = clock_now_ns();
    ck_assert_int_eq(watch_start(&watch, 100), 0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, a), 0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, b), 0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, c), 0);
    watch_add(&watch, &early, a[0], peer_of(NULL), now_ns + 3600 * NSEC_PER_SEC);
    watch_add(&watch, &late, b[0], peer_of(NULL), now_ns + 20 * NSEC_PER_MSEC);
    watch_add(&watch, &moved, c[0], peer_of(NULL), now_ns + 3600 * NSEC_PER_SEC);
    (void)client_drain(b[1]); /* returns when the thread has cut it */
    ck_assert(!is_ended(a[1]));
    ck_assert(!is_ended(c[1]));
    watch_move(&watch, &moved, clock_now_ns(), false); /* earlier than what the thread sleeps for */
    (void)client_drain(c[1]);
    ck_assert(!is_ended(a[1]));
    watch_remove(&watch, &early);
    watch_remove(&watch, &late);
    watch_remove(&watch, &moved);
    watch_stop(&watch);
    for (int i = 0; i < 2; i++) {
        (void)close(a[i]);
        (void)close(b[i]);
        (void)close(c[i]);
    }
}
END_TEST

/* A client has as long for a large answer as for a small one: it starts when there is one to take.
 */
START_TEST(making_an_answer_is_our_own_time)
{
    struct server server;
    server_prepare(&server, NULL);
    server.config->web.timeout_ns = NSEC_PER_SEC;
    server.exposition.delay = (struct timespec){.tv_sec = 5}; /* four time-outs are for taking it */
    server.exposition.bytes = 20 << 20;                       /* more than the sockets take */
    server_start(&server);
    bool whole = false;
    /* A client that gets no CPU for a second is too slow: again. */
    for (int i = 0; i < 10 && !whole; i++) {
        int fd = client_connect(&server, 0);
        client_send(fd, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        whole = client_drain(fd) > server.exposition.bytes;
        (void)close(fd);
    }
    ck_assert(whole);
    server_stop(&server);
}
END_TEST

/* A peer by its IPv4 address, or by its IPv6 address where that is not 0. */
static struct peer some_peer(uint32_t v4)
{
    const struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(v4)}};
    return peer_of((const struct sockaddr *)&address);
}

enum {
    MANY = 12
};
static struct watch crowd;
static struct watched members[MANY];
static int ends[MANY][2];

static void crowd_add(int i, uint32_t v4)
{
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends[i]), 0);
    watch_add(&crowd, &members[i], ends[i][0], some_peer(v4), INT64_MAX);
}

static void crowd_end(int n)
{
    for (int i = 0; i < n; i++) {
        watch_remove(&crowd, &members[i]);
        (void)close(ends[i][0]);
        (void)close(ends[i][1]);
    }
    ck_assert_uint_eq(crowd.count, 0);
    watch_stop(&crowd);
}

START_TEST(the_greediest_peer_gives_way)
{
    ck_assert_int_eq(watch_start(&crowd, 6), 0);
    crowd.seed = 1;  /* one by which none of these are counted together */
    crowd.seed = 1;  /* one by which these peers are told apart */
    crowd_add(0, 1); /* alone, and the oldest */
    for (int i = 1; i < 6; i++)
        crowd_add(i, 2);
    watch_move(&crowd, &members[1], INT64_MAX, false); /* its request is being answered */
    for (int i = 0; i < 6; i++)
        ck_assert(!is_ended(ends[i][1]));
    crowd_add(6, 3);
    ck_assert(is_ended(ends[2][1])); /* the oldest of peer 2 that waits */
    crowd_add(7, 2);
    ck_assert(is_ended(ends[3][1]));
    watch_move(&crowd, &members[4], INT64_MAX, false);
    watch_move(&crowd, &members[4], INT64_MAX, true); /* answered: it keeps its age */
    crowd_add(8, 4);
    ck_assert(is_ended(ends[4][1]));
    for (int i = 0; i < 9; i++)
        ck_assert_int_eq(is_ended(ends[i][1]), i >= 2 && i <= 4);
    crowd_end(9);
}
END_TEST

START_TEST(those_with_requests_stay)
{
    ck_assert_int_eq(watch_start(&crowd, 2), 0);
    crowd_add(0, 1);
    crowd_add(1, 1);
    watch_move(&crowd, &members[0], INT64_MAX, false);
    watch_move(&crowd, &members[1], INT64_MAX, false);
    crowd_add(2, 2); /* nobody else can go */
    ck_assert(is_ended(ends[2][1]));
    ck_assert(!is_ended(ends[0][1]));
    ck_assert(!is_ended(ends[1][1]));
    watch_make_room(&crowd);
    ck_assert(!is_ended(ends[0][1]));
    crowd_end(3);
}
END_TEST

START_TEST(peers_are_addresses_and_networks)
{
    static const char *const same[][2] = {{"2001:db8::1", "2001:db8::2:3"},
                                          {"::ffff:192.0.2.1", "::ffff:192.0.2.1"}};
    static const char *const other[][2] = {{"2001:db8::1", "2001:db8:0:1::1"},
                                           {"::ffff:192.0.2.1", "::ffff:192.0.2.2"},
                                           {"::1", "::ffff:127.0.0.1"}};
    struct sockaddr_in6 a = {.sin6_family = AF_INET6}, b = a;
    for (size_t i = 0; i < ARRAY_LEN(same) + ARRAY_LEN(other); i++) {
        bool is_same = i < ARRAY_LEN(same);
        const char *const *pair = is_same ? same[i] : other[i - ARRAY_LEN(same)];
        ck_assert_int_eq(inet_pton(AF_INET6, pair[0], &a.sin6_addr), 1);
        ck_assert_int_eq(inet_pton(AF_INET6, pair[1], &b.sin6_addr), 1);
        struct peer x = peer_of((const struct sockaddr *)&a);
        struct peer y = peer_of((const struct sockaddr *)&b);
        ck_assert_msg(peer_equal(&x, &y) == is_same, "%s, %s", pair[0], pair[1]);
    }
    ck_assert_int_eq(inet_pton(AF_INET6, "::ffff:192.0.2.1", &a.sin6_addr), 1);
    struct peer mapped = peer_of((const struct sockaddr *)&a), plain = some_peer(0xc0000201);
    struct peer nobody = peer_of(NULL);
    ck_assert(peer_equal(&mapped, &plain));
    ck_assert(!peer_equal(&nobody, &plain));
}
END_TEST

START_TEST(a_bucket_of_tokens)
{
    const int64_t s = NSEC_PER_SEC;
    struct rate rate;
    rate_init(&rate);
    for (int i = 0; i < 100; i++)
        ck_assert(rate_take(&rate, 0, 0, 0)); /* no limit */
    for (int i = 0; i < 3; i++)
        ck_assert(rate_take(&rate, s, 3, 10 * s));
    ck_assert(!rate_take(&rate, s, 3, 10 * s));
    ck_assert(!rate_take(&rate, s, 3, 11 * s - 1));
    ck_assert(rate_take(&rate, s, 3, 11 * s));
    ck_assert(!rate_take(&rate, s, 3, 11 * s));
    for (int i = 0; i < 3; i++) /* after a long time it is full, not fuller */
        ck_assert(rate_take(&rate, s, 3, 100 * s));
    ck_assert(!rate_take(&rate, s, 3, 100 * s));
    ck_assert(!rate_take(&rate, s, 0, 1000 * s));                     /* never one to take */
    ck_assert(rate_take(&rate, INT64_MAX / 2, 1000000000, 2000 * s)); /* nothing overflows */
    /* A limit that was changed meanwhile holds at once. */
    ck_assert(!rate_take(&rate, s, 1, 2000 * s));
    ck_assert(rate_take(&rate, s, 1, 2001 * s));
    rate_deinit(&rate);
}
END_TEST

Suite *suite_limits(void)
{
    Suite *suite = suite_create("limits");
    TCase *tests = tcase_create("limits");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, requests_up_to_the_limit);
    tcase_add_test(tests, no_peer_has_all_places);
    tcase_add_test(tests, bytes_up_to_the_limit);
    tcase_add_test(tests, the_oldest_answer_may_always_grow);
    tcase_add_test(tests, the_late_are_cut_and_others_are_not);
    tcase_add_test(tests, making_an_answer_is_our_own_time);
    tcase_add_test(tests, the_greediest_peer_gives_way);
    tcase_add_test(tests, those_with_requests_stay);
    tcase_add_test(tests, peers_are_addresses_and_networks);
    tcase_add_test(tests, a_bucket_of_tokens);
    suite_add_tcase(suite, tests);
    return suite;
}
