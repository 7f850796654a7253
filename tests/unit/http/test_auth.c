/* SPDX-License-Identifier: Apache-2.0 */
/* auth.c: reading the header, and checks that wait for each other and for nobody else. */
#include "http_test.h"

#include <crypt.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>

#include "auth.h"

/* Of "secret", at the lowest cost. */
#define HASH "$2y$04$abcdefghijklmnopqrstuuS9lRZ4YAb8eVJWHyKhSLnEPhANjnVU2"

static struct auth auth;
static struct web_user alice = {.name = "alice"};
static char hash[WEB_HASH_BYTES + 1];
static const char fake[] = "$2b$04$kvmstatd/kvmstatd/kvmsO123456789012345678901234567890";
static sem_t done;

static void on_done(struct auth_job *job)
{
    (void)job;
    ck_assert_int_eq(sem_post(&done), 0);
}

static void prepare(void)
{
    struct crypt_data *data = calloc(1, sizeof *data);
    ck_assert_ptr_nonnull(crypt_r("secret", HASH, data));
    ck_assert_uint_eq(strlen(data->output), WEB_HASH_BYTES);
    memcpy(hash, data->output, sizeof hash);
    /* Nobody's hash must be one that crypt(3) takes, or it would cost nothing. */
    ck_assert_uint_eq(strlen(fake), WEB_HASH_BYTES);
    ck_assert_ptr_nonnull(crypt_r("secret", fake, data));
    ck_assert_uint_eq(strlen(data->output), WEB_HASH_BYTES);
    free(data);
    alice.hash = hash;
    ck_assert_int_eq(auth_init(&auth), 0);
    ck_assert_int_eq(sem_init(&done, 0, 0), 0);
}

static void finish(void)
{
    auth_stop(&auth);
    auth_deinit(&auth);
}

START_TEST(headers_are_read_strictly)
{
    static const struct {
        const char *header, *user, *password; /* NULL: refused */
    } cases[] = {
        {"Basic YWxpY2U6d29uZGVy", "alice", "wonder"},
        {"bASIC  YWxpY2U6d29uZGVy", "alice", "wonder"},
        {"Basic YTpiOmM=", "a", "b:c"},
        {"Basic Og==", "", ""},
        {"Basic OmI=", "", "b"},
        {"Basic gDr/", "\x80", "\xff"},
        {NULL, NULL, NULL},
        {"", NULL, NULL},
        {"Basic", NULL, NULL},
        {"Basic ", NULL, NULL},
        {"Basic YWxpY2U=", NULL, NULL},          /* no colon */
        {"Basic YWxpY2U6d29uZGVy ", NULL, NULL}, /* more than base64 */
        {"Basic YWxpY2U6d29uZGV", NULL, NULL},   /* not padded */
        {"Basic YTpiOmN=", NULL, NULL},          /* bits left over */
        {"Basic Y=pi", NULL, NULL},              /* padding in the middle */
        {"Basic ====", NULL, NULL},
        {"Basic YTpi-_==", NULL, NULL},
        {"Basic YTpiAGM=", NULL, NULL}, /* a NUL inside */
        {"Bearer YWxpY2U6d29uZGVy", NULL, NULL},
        {"BasicYWxpY2U6d29uZGVy", NULL, NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct credentials credentials;
        int r = auth_parse(cases[i].header, &credentials);
        ck_assert_msg(r == (cases[i].user ? 0 : -EINVAL), "%s", cases[i].header);
        if (r == 0) {
            ck_assert_str_eq(credentials.user, cases[i].user);
            ck_assert_str_eq(credentials.password, cases[i].password);
        }
    }
}
END_TEST

static void fill(struct auth_job *job, const char *user, const char *password, uint8_t peer)
{
    *job = (struct auth_job){.done = on_done, .work.peer = {{peer}}};
    (void)snprintf(job->credentials.user, sizeof job->credentials.user, "%s", user);
    (void)snprintf(job->credentials.password, sizeof job->credentials.password, "%s", password);
}

static enum auth_verdict recall(struct auth_job *job)
{
    bool is_alice = strcmp(job->credentials.user, "alice") == 0;
    return auth_recall(&auth, job, is_alice ? &alice : NULL, fake);
}

/* The verdict, after a wait if there is one. */
static enum auth_verdict ask(const char *user, const char *password, bool *ret_waited)
{
    struct auth_job job;
    fill(&job, user, password, 0);
    enum auth_verdict verdict = recall(&job);
    *ret_waited = verdict == AUTH_PENDING;
    if (*ret_waited) {
        auth_submit(&auth, &job);
        ck_assert_int_eq(sem_wait(&done), 0);
        verdict = job.verdict;
    }
    for (size_t i = 0; i < sizeof job.credentials; i++)
        ck_assert_int_eq(((const char *)&job.credentials)[i], 0); /* wiped */
    return verdict;
}

START_TEST(results_are_remembered)
{
    bool waited;
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(ask("alice", "secret", &waited), AUTH_ALLOWED);
        ck_assert_int_eq(waited, i == 0);
        ck_assert_int_eq(ask("alice", "wrong", &waited), AUTH_DENIED);
        ck_assert_int_eq(waited, i == 0);
        ck_assert_int_eq(ask("bob", "secret", &waited), AUTH_DENIED);
        ck_assert_int_eq(waited, i == 0);
    }
    /* Guesses push out guesses, not who is known. */
    for (int i = 0; i < AUTH_KNOWN_MAX; i++) {
        char guess[16];
        (void)snprintf(guess, sizeof guess, "%d", i);
        ck_assert_int_eq(ask("alice", guess, &waited), AUTH_DENIED);
    }
    ck_assert_int_eq(ask("alice", "secret", &waited), AUTH_ALLOWED);
    ck_assert(!waited);
    ck_assert_int_eq(ask("alice", "wrong", &waited), AUTH_DENIED);
    ck_assert(waited);
    /* Another hash of the same password is another thing. */
    hash[2] = 'b';
    ck_assert_int_eq(ask("alice", "secret", &waited), AUTH_ALLOWED);
    ck_assert(waited);
}
END_TEST

START_TEST(few_may_wait_and_fewer_of_one_peer)
{
    static struct auth_job jobs[AUTH_JOBS_MAX * 2];
    size_t n[AUTH_BUSY + 1] = {0};
    /* Each of these takes some hundred times longer than handing one in. */
    memcpy(hash + 4, "12", 2);
    for (size_t i = 0; i < ARRAY_LEN(jobs); i++) {
        char guess[16];
        (void)snprintf(guess, sizeof guess, "%zu", i);
        fill(&jobs[i], "alice", guess, i < ARRAY_LEN(jobs) / 2 ? 1 : (uint8_t)i);
        ck_assert_int_eq(recall(&jobs[i]), AUTH_PENDING);
        auth_submit(&auth, &jobs[i]);
    }
    auth_stop(&auth); /* does not wait for them all, and nobody is left */
    for (size_t i = 0; i < ARRAY_LEN(jobs); i++) {
        ck_assert_int_eq(sem_trywait(&done), 0);
        n[jobs[i].verdict]++;
        ck_assert(jobs[i].verdict == AUTH_DENIED || jobs[i].verdict == AUTH_BUSY);
    }
    ck_assert_uint_lt(n[AUTH_DENIED], ARRAY_LEN(jobs) / 2);
    /* It is over: whoever comes now is told at once. */
    struct auth_job late;
    fill(&late, "alice", "late", 0);
    ck_assert_int_eq(recall(&late), AUTH_PENDING);
    auth_submit(&auth, &late);
    ck_assert_int_eq(sem_trywait(&done), 0);
    ck_assert_int_eq(late.verdict, AUTH_BUSY);
}
END_TEST

Suite *suite_auth(void)
{
    Suite *suite = suite_create("auth");
    TCase *tests = tcase_create("auth");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, prepare, finish);
    tcase_add_test(tests, headers_are_read_strictly);
    tcase_add_test(tests, results_are_remembered);
    tcase_add_test(tests, few_may_wait_and_fewer_of_one_peer);
    suite_add_tcase(suite, tests);
    return suite;
}
