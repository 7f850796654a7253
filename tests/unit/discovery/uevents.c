/* SPDX-License-Identifier: Apache-2.0 */
#include "uevents.h"

#include <linux/netlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "suites.h"

#define KVM                                                                                \
    "change@/devices/virtual/misc/kvm\0ACTION=change\0DEVPATH=/devices/virtual/misc/kvm\0" \
    "SUBSYSTEM=misc\0"
#define DEVICE "MAJOR=10\0MINOR=232\0DEVNAME=kvm\0SEQNUM=824\0"

/* Recorded from Linux 6.18, then varied. */
#define CASE(message, ...)                        \
    {                                             \
        message, sizeof(message) - 1, __VA_ARGS__ \
    }
static const struct {
    const char *message;
    size_t len;
    bool is;
    struct uevent event;
} cases[] = {
    CASE(KVM "CREATED=5\0COUNT=1\0EVENT=create\0PID=16414\0STATS_PATH=/kvm/16414-5\0" DEVICE, true,
         {UEVENT_VM_CREATED, 16414, 1, 5}),
    CASE(KVM "CREATED=5\0COUNT=0\0EVENT=destroy\0PID=16414\0STATS_PATH=/kvm/16414-5\0" DEVICE, true,
         {UEVENT_VM_DESTROYED, 16414, 0, 5}),
    /* without debugfs there is no STATS_PATH; a kernel may say less, or more */
    CASE(KVM "CREATED=5\0COUNT=12\0EVENT=create\0PID=1\0" DEVICE, true,
         {UEVENT_VM_CREATED, 1, 12, 5}),
    CASE(KVM "EVENT=create\0" DEVICE, true, {UEVENT_VM_CREATED, 0, -1, -1}),
    CASE(KVM "EVENT=create\0COUNT=3\0PID=4\0NEW=COUNT=9\0" DEVICE, true,
         {UEVENT_VM_CREATED, 4, 3, -1}),
    /* numbers that are none */
    CASE(KVM "COUNT=-1\0EVENT=create\0PID=-5\0" DEVICE, true, {UEVENT_VM_CREATED, 0, -1, -1}),
    CASE(KVM "COUNT=\0EVENT=create\0PID=\0" DEVICE, true, {UEVENT_VM_CREATED, 0, -1, -1}),
    CASE(KVM "COUNT=1x\0EVENT=create\0PID=0x10\0" DEVICE, true, {UEVENT_VM_CREATED, 0, -1, -1}),
    CASE(KVM "COUNT=1\0EVENT=create\0PID=99999999999999999999999\0" DEVICE, true,
         {UEVENT_VM_CREATED, 0, 1, -1}),
    CASE(KVM "COUNT=1\0EVENT=create\0PID=4294967299\0" DEVICE, true,
         {UEVENT_VM_CREATED, 2147483647, 1, -1}),
    /* not of a VM */
    CASE(KVM "EVENT=created\0COUNT=1\0PID=4\0" DEVICE, false, {0}),
    CASE(KVM "COUNT=1\0PID=4\0" DEVICE, false, {0}),
    CASE("add@/devices/virtual/misc/kvm\0ACTION=add\0SUBSYSTEM=misc\0" DEVICE, false, {0}),
    CASE("change@/devices/x\0SUBSYSTEM=block\0DEVNAME=kvm\0EVENT=create\0PID=4\0", false, {0}),
    CASE("change@/devices/x\0SUBSYSTEM=misc\0DEVNAME=kvm2\0EVENT=create\0PID=4\0", false, {0}),
    CASE("libudev\0\376\355\312\376garbage", false, {0}),
    CASE("\0\0\0\0\0", false, {0}),
};

START_TEST(parses_messages)
{
    struct uevent event = {.tid = -7};
    ck_assert_int_eq(uevent_parse(cases[_i].message, cases[_i].len, &event), cases[_i].is);
    if (cases[_i].is) {
        ck_assert_int_eq(event.kind, cases[_i].event.kind);
        ck_assert_int_eq(event.tid, cases[_i].event.tid);
        ck_assert_int_eq(event.count, cases[_i].event.count);
    } else {
        ck_assert_int_eq(event.tid, -7);
    }
}
END_TEST

/* A message that was cut never reads past its end, nor means what it did not say. */
START_TEST(cut_messages)
{
    struct uevent event;
    for (size_t len = 0; len < cases[0].len; len++) {
        char *cut = malloc(len ? len : 1);
        memcpy(cut, cases[0].message, len);
        if (len == 0 || cut[len - 1] != '\0')
            ck_assert(!uevent_parse(cut, len, &event));
        else if (uevent_parse(cut, len, &event))
            ck_assert_int_eq(event.kind, UEVENT_VM_CREATED);
        free(cut);
    }
}
END_TEST

/* Any process may send to our netlink address; it must not be believed. */
START_TEST(only_the_kernel_is_believed)
{
    int fd = -1;
    struct uevent event;
    struct sockaddr_nl to;
    socklen_t len = sizeof to;
    int sender = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);

    ck_assert_int_eq(uevents_open(&fd), 0);
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&to, &len), 0);
    ck_assert_int_ne(to.nl_pid, 0);
    to.nl_groups = 0;
    ssize_t n = sendto(sender, cases[0].message, cases[0].len, 0, (struct sockaddr *)&to, len);
    ck_assert_int_eq(n, (ssize_t)cases[0].len);

    /* Others' events may come in between: none of them is the one that was sent. */
    int r, seen = 0;
    while ((r = uevents_receive(fd, &event)) >= 0) {
        seen++;
        ck_assert(r == 0 || event.tid != 16414);
    }
    ck_assert_int_eq(r, -EAGAIN);
    ck_assert_int_ge(seen, 1); /* it did arrive */
    (void)close(sender);
    (void)close(fd);
}
END_TEST

/* An event and the count after it; times in ms. */
struct word {
    int64_t at_ms, made, count, expected;
};
#define WORDS_MAX 6
static const struct {
    const char *name;
    struct word words[WORDS_MAX];
    size_t n;
} told[] = {
    {"one after another", {{0, 1, 1, 1}, {1, 2, 2, 2}, {2, 2, 1, 1}, {3, 3, 2, 2}}, 4},
    {"a creation is overtaken by the next", {{0, 8, 3, 3}, {0, 10, 5, 5}, {0, 9, 4, 5}}, 3},
    {"an end is overtaken by a creation", {{0, 8, 3, 3}, {0, 9, 3, 3}, {0, 8, 2, 3}}, 3},
    {"ends overtake each other", {{0, 8, 3, 3}, {0, 8, 0, 0}, {0, 8, 2, 0}, {0, 8, 1, 0}}, 4},
    {"the last of a storm",
     {{0, 7, 2, 2}, {1, 9, 3, 3}, {1, 8, 3, 3}, {2, 9, 1, 1}, {2, 9, 2, 1}},
     5},
    {"the module was loaded anew", {{0, 90, 5, 5}, {0, 90, 0, 0}, {1500, 1, 1, 1}}, 3},
    {"a kernel that counts the living alone", {{0, -1, 4, 4}, {0, -1, 5, 5}, {0, -1, 3, 3}}, 3},
    {"a word without a count", {{0, 8, 3, 3}, {0, 9, -1, 3}, {0, 9, 4, 4}}, 3},
};

/* The kernel's words of VMs that come and go together may be read in another order. */
START_TEST(the_last_count_stands)
{
    struct kernel_count count = {.vms = -1};
    for (size_t i = 0; i < told[_i].n; i++) {
        const struct word *word = &told[_i].words[i];
        struct uevent event = {.count = word->count, .made = word->made};
        int64_t before = count.vms;
        bool changed = kernel_count_take(&count, &event, 777 + word->at_ms * 1000 * 1000);
        ck_assert_msg(count.vms == word->expected, "%s: %lld after word %zu, expected %lld",
                      told[_i].name, (long long)count.vms, i, (long long)word->expected);
        ck_assert(changed == (before != count.vms));
    }
}
END_TEST

/* However the words of one VM after another are shuffled, what stands is the end of the story. */
START_TEST(shuffled_words)
{
    enum {
        N = 8
    };
    unsigned state = (unsigned)_i + 1;
    struct uevent events[N];
    int64_t made = 100, alive = 3;
    for (int i = 0; i < N; i++) {
        state = state * 1103515245U + 12345U;
        bool comes = alive == 0 || (state >> 16) % 2;
        made += comes;
        alive += comes ? 1 : -1;
        events[i] = (struct uevent){.count = alive, .made = made};
    }
    for (int i = N - 1; i > 0; i--) {
        state = state * 1103515245U + 12345U;
        int k = (int)((state >> 16) % (unsigned)(i + 1));
        struct uevent swapped = events[i];
        events[i] = events[k];
        events[k] = swapped;
    }
    struct kernel_count count = {.vms = -1};
    for (int i = 0; i < N; i++)
        (void)kernel_count_take(&count, &events[i], i);
    ck_assert_int_eq(count.vms, alive);
}
END_TEST

Suite *suite_uevents(void)
{
    Suite *suite = suite_create("uevents");
    TCase *tcase = tcase_create("uevents");
    tcase_add_loop_test(tcase, parses_messages, 0, (int)ARRAY_LEN(cases));
    tcase_add_test(tcase, cut_messages);
    tcase_add_test(tcase, only_the_kernel_is_believed);
    tcase_add_loop_test(tcase, the_last_count_stands, 0, (int)ARRAY_LEN(told));
    tcase_add_loop_test(tcase, shuffled_words, 0, 200);
    suite_add_tcase(suite, tcase);
    return suite;
}
