/* SPDX-License-Identifier: Apache-2.0 */
/* Routes and their answers, without a server. */
#include "http_test.h"

#include <json-c/json.h>
#include <string.h>

#include "clock.h"
#include "routes.h"

static struct site site;
static struct exposition exposition;

static void make_site(void)
{
    exposition = (struct exposition){.bytes = 1000, .word = "kvm_test"};
    site = (struct site){.exposition = &exposition, .version = "1.2.3"};
    ck_assert_int_eq(store_new(&site.store), 0);
    ck_assert_int_eq(pthread_rwlock_init(&site.exposition_lock, NULL), 0);
    quota_init(&site.quota, 2, 1 << 20);
    gzip_pool_init(&site.gzip);
}

static void end_site(void)
{
    ck_assert_uint_eq(site.quota.bytes, 0);
    ck_assert_uint_eq(site.quota.requests, 0);
    gzip_pool_deinit(&site.gzip);
    quota_deinit(&site.quota);
    (void)pthread_rwlock_destroy(&site.exposition_lock);
    store_free(site.store);
}

/* Asks as a server does and gives the place among the requests back at once. */
static struct answer ask_with(const char *path, const char *accept_encoding)
{
    struct answer answer;
    struct entrant entrant = {0};
    const struct request request = {
        .method = "GET", .path = path, .accept_encoding = accept_encoding};
    const struct route *route = routes_find(path);
    if (routes_admit(&site, route, &request, &answer, &entrant))
        route->answer(&site, &request, &answer);
    quota_leave(&site.quota, &entrant);
    return answer;
}

static struct answer ask(const char *path)
{
    return ask_with(path, NULL);
}

/* The body as a string; the answer is done with. */
static char *take_text(struct answer *answer)
{
    char *text = answer->body ? strndup(answer->body->buffer.data, answer->body->buffer.len)
                              : strdup(answer->text);
    body_free(answer->body);
    answer->body = NULL;
    return text;
}

static const char odd_name[] = "we<b>&\"'1\xc3\xa4\n\\</script>";

/* `n` VMs that cannot be read, one that is, one switched off. */
static void publish(size_t n_unreadable, int64_t kernel_vms)
{
    struct roster *roster = calloc(1, sizeof *roster);
    roster->refs = 1;
    roster->kernel_vms = kernel_vms;
    roster->n_vms = n_unreadable + 2;
    roster->vms = calloc(roster->n_vms, sizeof *roster->vms);
    for (size_t i = 0; i < roster->n_vms; i++) {
        bool read = i == 0, disabled = i == 1;
        roster->vms[i] = (struct roster_vm){
            .vm = strdup(odd_name),
            .name = strdup(odd_name),
            .uuid = strdup(""),
            .vmm = strdup("qemu"),
            .machine = strdup(""),
            .unit = strdup("a.service"),
            .pid = 1000 + (pid_t)i,
            .start_wall_ns = INT64_C(1700000000123456789),
            .n_vcpus = 4,
            .n_vcpus_read = read ? 3 : 0,
            .vm_scope_read = read,
            .interval_ns = read ? INT64_C(12500000) : 0,
            .source = read ? "statsfd" : "",
            .reason = read       ? UNREADABLE_NOT
                      : disabled ? UNREADABLE_DISABLED
                                 : UNREADABLE_NO_STATS_FD,
            .detail = strdup(read ? "" : "<i>no</i> fd"),
        };
        roster->unreadable[roster->vms[i].reason]++;
    }
    roster->read = 1;
    roster_publish(&site.store->roster, roster);
}

START_TEST(ready_once_there_is_something)
{
    struct answer answer = ask("/-/ready");
    ck_assert_uint_eq(answer.status, 503);
    ck_assert_ptr_nonnull(strstr(answer.text, "first look"));
    publish(0, -1);
    ck_assert_uint_eq(ask("/-/ready").status, 503);
    atomic_store(&site.store->self.looked_once, true);
    answer = ask("/-/ready");
    ck_assert_uint_eq(answer.status, 503);
    ck_assert_ptr_nonnull(strstr(answer.text, "sampled"));
    atomic_store(&site.store->self.ticks, 1);
    ck_assert_uint_eq(ask("/-/ready").status, 200);
}
END_TEST

START_TEST(ready_when_there_is_nothing)
{
    struct roster *roster = calloc(1, sizeof *roster);
    roster->refs = 1;
    roster_publish(&site.store->roster, roster);
    atomic_store(&site.store->self.looked_once, true);
    ck_assert_uint_eq(ask("/-/ready").status, 200);
}
END_TEST

START_TEST(healthy_whatever_happens)
{
    const struct peer peer = {{0}};
    struct entrant entrants[2];
    ck_assert_uint_eq(ask("/-/healthy").status, 200);
    ck_assert(quota_enter(&site.quota, &entrants[0], peer));
    ck_assert(quota_enter(&site.quota, &entrants[1], peer));
    ck_assert_uint_eq(ask("/-/healthy").status, 200);
    struct answer answer = ask("/metrics");
    ck_assert_uint_eq(answer.status, 503);
    ck_assert_uint_gt(answer.retry_after_s, 0);
    quota_leave(&site.quota, &entrants[0]);
    quota_leave(&site.quota, &entrants[1]);
    answer = ask("/metrics");
    ck_assert_uint_eq(answer.status, 200);
    free(take_text(&answer));
}
END_TEST

static const char *history_argument(void *ctx, const char *name)
{
    return strcmp(name, ctx) == 0 ? "a\"b\\c\n" : NULL;
}

/* What is wrong with the question is said as JSON; where nothing is recorded, that. */
START_TEST(history_refuses_as_json)
{
    static char names[][8] = {"vm", "format", ""};
    static const unsigned statuses[] = {404, 400, 400};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct answer answer = {0};
        const struct request request = {.method = "GET",
                                        .path = "/api/v1/history",
                                        .argument = history_argument,
                                        .ctx = names[i]};
        history_answer(&site, &request, &answer);
        ck_assert_uint_eq(answer.status, statuses[i]);
        ck_assert_str_eq(answer.content_type, "application/json");
        char *text = take_text(&answer);
        json_object *object = json_tokener_parse(text);
        ck_assert(json_object_object_get_ex(object, "error", NULL));
        json_object_put(object);
        free(text);
    }
}
END_TEST

static json_object *member(json_object *object, const char *key)
{
    json_object *value;
    ck_assert_msg(json_object_object_get_ex(object, key, &value), "no %s", key);
    return value;
}

static json_object *ask_vms(void)
{
    struct answer answer = ask("/api/v1/vms");
    ck_assert_uint_eq(answer.status, 200);
    ck_assert_str_eq(answer.content_type, "application/json");
    char *text = take_text(&answer);
    json_object *root = json_tokener_parse(text);
    ck_assert_msg(root != NULL, "not JSON: %s", text);
    free(text);
    return root;
}

START_TEST(vms_before_the_first_look)
{
    json_object *root = ask_vms();
    ck_assert_ptr_null(member(root, "kernel_vms"));
    ck_assert_uint_eq(json_object_array_length(member(root, "vms")), 0);
    ck_assert_int_eq(json_object_get_int(member(member(root, "counts"), "known")), 0);
    json_object_put(root);
}
END_TEST

START_TEST(vms_with_all_that_is_known)
{
    publish(3, 7);
    json_object *root = ask_vms();
    json_object *counts = member(root, "counts");
    ck_assert_int_eq(json_object_get_int(member(root, "kernel_vms")), 7);
    ck_assert_int_eq(json_object_get_int(member(counts, "known")), 5);
    ck_assert_int_eq(json_object_get_int(member(counts, "read")), 1);
    ck_assert_int_eq(json_object_get_int(member(counts, "disabled")), 1);
    ck_assert_int_eq(json_object_get_int(member(counts, "unreadable")), 3);
    json_object *reasons = member(counts, "unreadable_by_reason");
    ck_assert_int_eq(json_object_get_int(member(reasons, "no_stats_fd")), 3);
    ck_assert_int_eq(json_object_get_int(member(reasons, "ambiguous")), 0);

    json_object *vms = member(root, "vms");
    ck_assert_uint_eq(json_object_array_length(vms), 5);
    json_object *read = json_object_array_get_idx(vms, 0);
    ck_assert_str_eq(json_object_get_string(member(read, "vm")), odd_name);
    ck_assert_str_eq(json_object_get_string(member(read, "name")), odd_name);
    ck_assert_str_eq(json_object_get_string(member(read, "uuid")), "");
    ck_assert_str_eq(json_object_get_string(member(read, "vmm")), "qemu");
    ck_assert_str_eq(json_object_get_string(member(read, "machine")), "");
    ck_assert_str_eq(json_object_get_string(member(read, "unit")), "a.service");
    ck_assert_int_eq(json_object_get_int(member(read, "pid")), 1000);
    ck_assert_int_eq(json_object_get_int(member(read, "vcpus")), 4);
    ck_assert_int_eq(json_object_get_int(member(read, "vcpus_read")), 3);
    ck_assert(json_object_get_boolean(member(read, "vm_scope_read")));
    ck_assert_str_eq(json_object_get_string(member(read, "interval_ms")), "12.5");
    ck_assert_int_eq(json_object_get_type(member(read, "interval_ms")), json_type_double);
    ck_assert_str_eq(json_object_get_string(member(read, "source")), "statsfd");
    ck_assert_ptr_null(member(read, "reason"));
    ck_assert_ptr_null(member(read, "detail"));
    ck_assert_str_eq(json_object_get_string(member(read, "start_time")),
                     "2023-11-14T22:13:20.123Z");

    json_object *unread = json_object_array_get_idx(vms, 2);
    ck_assert_ptr_null(member(unread, "interval_ms"));
    ck_assert_ptr_null(member(unread, "source"));
    ck_assert(!json_object_get_boolean(member(unread, "vm_scope_read")));
    ck_assert_str_eq(json_object_get_string(member(unread, "reason")), "no_stats_fd");
    ck_assert_str_eq(json_object_get_string(member(unread, "detail")), "<i>no</i> fd");
    json_object_put(root);
}
END_TEST

START_TEST(page_escapes)
{
    publish(2, 7);
    struct answer answer = ask("/");
    ck_assert_uint_eq(answer.status, 200);
    ck_assert(answer.html);
    char *text = take_text(&answer);
    ck_assert_ptr_nonnull(strstr(text, "Version 1.2.3"));
    ck_assert_ptr_nonnull(strstr(text, "we&#60;b&#62;&#38;&#34;&#39;1\xc3\xa4"));
    ck_assert_ptr_nonnull(strstr(text, "&#60;i&#62;no&#60;/i&#62; fd"));
    ck_assert_ptr_null(strstr(text, "we<b>"));
    ck_assert_ptr_null(strstr(text, "</script>"));
    ck_assert_ptr_nonnull(strstr(text, "<strong>2</strong> cannot be read"));
    ck_assert_ptr_nonnull(strstr(text, "href=\"/metrics\""));
    ck_assert_ptr_nonnull(strstr(text, "no_stats_fd"));
    ck_assert_ptr_null(strstr(text, "history"));
    ck_assert_ptr_null(strstr(text, "more: see"));
    ck_assert_ptr_null(strstr(text, ">1000<")); /* the one that is read */
    ck_assert_ptr_null(strstr(text, ">1001<")); /* the one switched off */
    free(text);
}
END_TEST

START_TEST(page_is_bounded)
{
    publish(150, -1);
    struct answer answer = ask("/");
    char *text = take_text(&answer);
    ck_assert_ptr_nonnull(strstr(text, "<strong>150</strong> cannot be read"));
    ck_assert_ptr_nonnull(strstr(text, "and 50 more"));
    ck_assert_ptr_null(strstr(text, "kernel's word"));
    free(text);
}
END_TEST

START_TEST(page_before_the_first_look)
{
    struct answer answer = ask("/");
    char *text = take_text(&answer);
    ck_assert_uint_eq(answer.status, 200);
    ck_assert_ptr_nonnull(strstr(text, "not done yet"));
    free(text);
}
END_TEST

START_TEST(too_many_bytes_are_a_503)
{
    struct holding other;
    /* The first may be larger than the limit of this site; then there is no room for a second. */
    holding_init(&other, &site.quota);
    ck_assert_int_eq(holding_add(&other, (1 << 20) - 100), 0);
    publish(20, -1);
    struct answer answer = ask("/metrics");
    ck_assert_uint_eq(answer.status, 503);
    ck_assert_uint_gt(answer.retry_after_s, 0);
    ck_assert(!answer.gzip);
    ck_assert_uint_eq(ask("/api/v1/vms").status, 503);
    ck_assert_uint_eq(ask("/").status, 503);
    answer = ask_with("/metrics", "gzip");
    ck_assert_uint_eq(answer.status, 503);
    ck_assert(!answer.gzip); /* the sentence is not compressed */
    ck_assert_uint_eq(site.quota.bytes, (1 << 20) - 100);
    holding_end(&other);

    exposition.bytes = 3 << 20;
    answer = ask("/metrics");
    ck_assert_uint_eq(answer.status, 200);
    ck_assert_uint_eq(answer.body->buffer.len, 3 << 20);
    ck_assert_uint_eq(site.quota.bytes, 3 << 20);
    struct answer second = ask("/metrics");
    ck_assert_uint_eq(second.status, 503);
    free(take_text(&answer));
}
END_TEST

START_TEST(a_failed_rendering_is_a_500)
{
    exposition.error = -EIO;
    struct answer answer = ask("/metrics");
    ck_assert_uint_eq(answer.status, 500);
    answer = ask_with("/metrics", "gzip");
    ck_assert_uint_eq(answer.status, 500);
    ck_assert(!answer.gzip);
    /* Nothing is held: all readers of frames that may be can still be. */
    for (int i = 0; i < FRAME_READERS_MAX; i++)
        ck_assert_int_eq(sem_trywait(&site.store->readers), 0);
}
END_TEST

START_TEST(frames_are_let_go_before_sending)
{
    struct answer answers[FRAME_READERS_MAX];
    for (int i = 0; i < FRAME_READERS_MAX; i++)
        answers[i] = ask("/metrics"); /* not sent, so not freed */
    for (int i = 0; i < FRAME_READERS_MAX; i++)
        ck_assert_int_eq(sem_trywait(&site.store->readers), 0);
    for (int i = 0; i < FRAME_READERS_MAX; i++)
        free(take_text(&answers[i]));
}
END_TEST

Suite *suite_routes(void)
{
    Suite *suite = suite_create("routes");
    TCase *tests = tcase_create("routes");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, make_site, end_site);
    tcase_add_test(tests, ready_once_there_is_something);
    tcase_add_test(tests, ready_when_there_is_nothing);
    tcase_add_test(tests, healthy_whatever_happens);
    tcase_add_test(tests, history_refuses_as_json);
    tcase_add_test(tests, vms_before_the_first_look);
    tcase_add_test(tests, vms_with_all_that_is_known);
    tcase_add_test(tests, page_escapes);
    tcase_add_test(tests, page_is_bounded);
    tcase_add_test(tests, page_before_the_first_look);
    tcase_add_test(tests, too_many_bytes_are_a_503);
    tcase_add_test(tests, a_failed_rendering_is_a_500);
    tcase_add_test(tests, frames_are_let_go_before_sending);
    suite_add_tcase(suite, tests);
    return suite;
}
