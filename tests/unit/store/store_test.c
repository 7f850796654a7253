/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <string.h>

#include "store.h"
#include "testing.h"
#include "text.h"
#include "view.h"

static struct kvmstats_schema *make_schema(uint32_t data_offset, const char *stat)
{
    const struct kvmstats_desc desc = {.name = stat, .size = 1};
    const struct kvmstats_model model = {
        .name_size = 48,
        .id_offset = 24,
        .desc_offset = 72,
        .data_offset = data_offset,
        .id = "kvm-1",
        .descs = &desc,
        .num_desc = 1,
    };
    static char file[4096];
    struct kvmstats_schema *schema;
    size_t len = kvmstats_encode(&model, file, sizeof file);
    ck_assert_uint_gt(len, 0);
    ck_assert_int_eq(kvmstats_schema_decode(file, len, &schema, NULL), 0);
    return schema;
}

START_TEST(schemas_are_shared_when_equal)
{
    struct store *store;
    const struct schema *a, *b, *c, *d, *e;
    ck_assert_int_eq(store_new(&store), 0);
    struct schema_table *t = &store->schemas;
    ck_assert_int_eq(schema_table_intern(t, SCOPE_VM, make_schema(256, "exits"), &a), 0);
    ck_assert_int_eq(schema_table_intern(t, SCOPE_VM, make_schema(256, "exits"), &b), 0);
    ck_assert_int_eq(schema_table_intern(t, SCOPE_VCPU, make_schema(256, "exits"), &c), 0);
    ck_assert_int_eq(schema_table_intern(t, SCOPE_VM, make_schema(512, "exits"), &d), 0);
    ck_assert_int_eq(schema_table_intern(t, SCOPE_VM, make_schema(256, "other"), &e), 0);
    ck_assert_ptr_eq(a, b);
    ck_assert_ptr_ne(a, c);
    ck_assert_ptr_ne(a, d);
    ck_assert_ptr_ne(a, e);
    ck_assert_uint_eq(a->data_offset, 256);
    ck_assert_uint_eq(a->data_bytes, 8);
    store_free(store);
}
END_TEST

START_TEST(schemas_are_bounded)
{
    struct store *store;
    const struct schema *schema;
    ck_assert_int_eq(store_new(&store), 0);
    for (unsigned i = 0; i < SCHEMAS_MAX; i++)
        ck_assert_int_eq(
            schema_table_intern(&store->schemas, SCOPE_VM, make_schema(256 + 8 * i, "x"), &schema),
            0);
    ck_assert_int_eq(
        schema_table_intern(&store->schemas, SCOPE_VM, make_schema(8192, "x"), &schema), -ENOSPC);
    ck_assert_int_eq(schema_table_intern(&store->schemas, SCOPE_VM, make_schema(256, "x"), &schema),
                     0);
    store_free(store);
}
END_TEST

START_TEST(text_becomes_utf8)
{
    static const struct {
        const char *in;
        size_t len;
        const char *out;
    } cases[] = {
        {"plain", 5, "plain"},
        {"gr\xc3\xbc\xc3\x9f", 6, "gr\xc3\xbc\xc3\x9f"},
        {"\xff", 1, "\xef\xbf\xbd"},
        {"a\0b", 3,
         "a\xef\xbf\xbd"
         "b"},
        /* An overlong slash and a surrogate: each byte by itself is no part of anything. */
        {"\xc0\xaf", 2, "\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xed\xa0\x80", 3, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        /* A character cut short is one replacement. */
        {"\xe2\x82", 2, "\xef\xbf\xbd"},
        {"\xf0\x9f\x98x", 4, "\xef\xbf\xbdx"},
        {"\xf4\x90\x80\x80", 4, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *out = text_to_utf8(cases[i].in, cases[i].len);
        ck_assert_str_eq(out, cases[i].out);
        free(out);
    }
}
END_TEST

START_TEST(text_is_cut_at_a_character)
{
    char in[4096];
    for (size_t i = 0; i + 1 < sizeof in; i += 2)
        memcpy(in + i, "\xc3\xbc", 2);
    in[0] = 'x'; /* so that the limit falls inside a character */
    in[1] = 'x';
    in[2] = 'x';
    memcpy(in + 3, "\xc3\xbc", 2);
    for (size_t i = 5; i + 1 < sizeof in; i += 2)
        memcpy(in + i, "\xc3\xbc", 2);
    char *out = text_to_utf8(in, sizeof in - 1);
    ck_assert_uint_le(strlen(out), TEXT_BYTES_MAX);
    ck_assert_uint_ge(strlen(out), TEXT_BYTES_MAX - 1);
    char *again = text_to_utf8(out, strlen(out));
    ck_assert_str_eq(out, again);
    free(out);
    free(again);
}
END_TEST

/* However long the text, and whatever character stands at the cut: the suffix is there, whole. */
START_TEST(suffix_of_a_long_text_stays)
{
    char text[TEXT_BYTES_MAX + 1];
    for (size_t len = TEXT_BYTES_MAX - 2 * TEXT_SUFFIX_BYTES_MAX; len <= TEXT_BYTES_MAX; len++) {
        size_t at = len % 2;
        memset(text, 'x', at);
        for (; at < len; at += 2)
            memcpy(text + at, "\xc3\xbc", 2);
        text[len] = '\0';
        char *out = text_with_suffix(text, "@0123456789012345678901234567890");
        char *again = text_to_utf8(out, strlen(out));
        ck_assert_str_eq(out, again); /* not too long, and valid */
        ck_assert_str_eq(strchr(out, '@'), "@0123456789012345678901234567890");
        size_t kept = strlen(out) - TEXT_SUFFIX_BYTES_MAX;
        ck_assert_mem_eq(out, text, kept);
        ck_assert_uint_ge(kept + 1, MIN_OF(len, (size_t)TEXT_BYTES_MAX - TEXT_SUFFIX_BYTES_MAX));
        free(out);
        free(again);
    }
}
END_TEST

START_TEST(identity_renders_its_label)
{
    struct vm_identity *id;
    const struct vm_identity_spec spec = {.vm = "a\"b\\c\nd", .pid = 7};
    ck_assert_int_eq(vm_identity_new(&spec, &id), 0);
    static const char expected[] = "{vm=\"a\\\"b\\\\c\\nd\"";
    ck_assert_uint_eq(id->labels_len, sizeof expected - 1);
    ck_assert_mem_eq(id->labels, expected, sizeof expected - 1);
    ck_assert_str_eq(id->uuid, "");
    vm_identity_unref(id);
}
END_TEST

START_TEST(pinned_and_newest_are_never_free)
{
    struct store *store;
    struct frame *pinned[FRAME_READERS_MAX];
    ck_assert_int_eq(store_new(&store), 0);
    struct ring *ring = &store->rings[0];
    ck_assert_ptr_null(ring_pin(ring));
    for (size_t i = 0; i < FRAME_READERS_MAX; i++) {
        struct frame *frame = ring_free_frame(ring);
        ck_assert_ptr_nonnull(frame);
        for (size_t j = 0; j < i; j++)
            ck_assert_ptr_ne(frame, pinned[j]);
        ring_publish(ring, frame);
        pinned[i] = ring_pin(ring);
        ck_assert_ptr_eq(pinned[i], frame);
    }
    /* All readers there may be hold different frames; two more are left, one of them the newest. */
    struct frame *a = ring_free_frame(ring);
    ring_publish(ring, a);
    struct frame *b = ring_free_frame(ring);
    ck_assert_ptr_nonnull(b);
    ck_assert_ptr_ne(a, b);
    frame_unpin(pinned[0]);
    for (size_t i = 1; i < FRAME_READERS_MAX; i++)
        frame_unpin(pinned[i]);
    store_free(store);
}
END_TEST

/* A writer that publishes as fast as it can, readers that check that no frame changes under them.
 */
struct contest {
    struct ring *ring;
    atomic_bool stop;
};

static void *reader(void *arg)
{
    struct contest *contest = arg;
    uint64_t reads = 0;
    while (!atomic_load(&contest->stop) || reads == 0) {
        struct frame *frame = ring_pin(contest->ring);
        if (!frame)
            continue;
        uint64_t tick = frame->tick;
        for (int i = 0; i < 20; i++) {
            if (frame->tick != tick || frame->begin_ns != (int64_t)tick ||
                frame->end_ns != (int64_t)tick)
                abort();
        }
        frame_unpin(frame);
        reads++;
    }
    return NULL;
}

START_TEST(frames_do_not_change_under_readers)
{
    struct store *store;
    pthread_t threads[FRAME_READERS_MAX];
    ck_assert_int_eq(store_new(&store), 0);
    struct contest contest = {.ring = &store->rings[3]};
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, reader, &contest), 0);
    for (uint64_t tick = 1; tick < 200000; tick++) {
        struct frame *frame = ring_free_frame(contest.ring);
        ck_assert_ptr_nonnull(frame); /* never a wait, never a missed tick */
        frame->tick = tick;
        frame->begin_ns = frame->end_ns = (int64_t)tick;
        ring_publish(contest.ring, frame);
    }
    atomic_store(&contest.stop, true);
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        pthread_join(threads[i], NULL);
    store_free(store);
}
END_TEST

START_TEST(roster_lives_while_somebody_reads_it)
{
    struct store *store;
    ck_assert_int_eq(store_new(&store), 0);
    ck_assert_ptr_null(roster_get(&store->roster));
    struct roster *first = calloc(1, sizeof *first);
    atomic_init(&first->refs, 1);
    first->read = 1;
    roster_publish(&store->roster, first);
    struct roster *held = roster_get(&store->roster);
    struct roster *second = calloc(1, sizeof *second);
    atomic_init(&second->refs, 1);
    roster_publish(&store->roster, second);
    ck_assert_uint_eq(held->read, 1);
    roster_unref(held);
    store_free(store);
}
END_TEST

START_TEST(selfhist_counts_where_it_belongs)
{
    struct store *store;
    ck_assert_int_eq(store_new(&store), 0);
    struct selfhist *hist = &store->self.release;
    selfhist_observe(hist, 1000000); /* a bound belongs to its bucket */
    selfhist_observe(hist, 1000001);
    selfhist_observe(hist, INT64_MAX / 2);
    selfhist_observe(hist, -5);
    ck_assert_uint_eq(hist->buckets[0], 2);
    ck_assert_uint_eq(hist->buckets[1], 1);
    ck_assert_uint_eq(hist->buckets[hist->bounds->n], 1);
    ck_assert_uint_eq(hist->sum_ns, 2000001u + INT64_MAX / 2);
    store_free(store);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("store");
    TCase *tc = tcase_create("store");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, schemas_are_shared_when_equal);
    tcase_add_test(tc, schemas_are_bounded);
    tcase_add_test(tc, text_becomes_utf8);
    tcase_add_test(tc, text_is_cut_at_a_character);
    tcase_add_test(tc, suffix_of_a_long_text_stays);
    tcase_add_test(tc, identity_renders_its_label);
    tcase_add_test(tc, pinned_and_newest_are_never_free);
    tcase_add_test(tc, frames_do_not_change_under_readers);
    tcase_add_test(tc, roster_lives_while_somebody_reads_it);
    tcase_add_test(tc, selfhist_counts_where_it_belongs);
    suite_add_tcase(s, tc);
    return s;
}

int main(void)
{
    return testing_run(suite(), NULL);
}
