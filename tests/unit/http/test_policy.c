/* SPDX-License-Identifier: Apache-2.0 */
/* The web configuration in force, while its file is replaced by whatever there is. */
#include "http_test.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "clock.h"
#include "policy.h"

static const char users[] =
    "basic_auth_users:\n"
    "  alice: $2y$04$PEzbAS8zDRjFqrQmQ/Lay.01T7lQIBSFzf3WlGkFTZmxYlr0gcIMq\n";

static char folder[64];
static char path[96];

static void make_folder(void)
{
    strcpy(folder, "/tmp/kvmstatd-policy-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    (void)snprintf(path, sizeof path, "%s/web.yaml", folder);
}

static void remove_folder(void)
{
    (void)unlink(path);
    (void)rmdir(folder);
}

/* In place, as cp(1), tee(1) and a shell do it. */
static void rewrite(const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    ck_assert_int_eq(close(fd), 0);
}

static atomic_bool refused;

static void begin(struct policy_source *source)
{
    struct policy *policy;
    struct config_error error;
    rewrite(users);
    ck_assert_int_eq(policy_load(path, &policy, &error), 0);
    policy_source_init(source, &refused);
    policy_source_set(source, strdup(path), policy);
}

static size_t count_users(struct policy_source *source)
{
    CLEANUP(cleanup_policy_unref) struct policy *policy = policy_source_get(source);
    return policy->config->n_users;
}

static int64_t age_ns(void)
{
    struct stat st;
    ck_assert_int_eq(stat(path, &st), 0);
    return clock_read_ns(CLOCK_REALTIME) -
           ((int64_t)st.st_ctim.tv_sec * NSEC_PER_SEC + st.st_ctim.tv_nsec);
}

static void pause_briefly(void)
{
    const struct timespec pause = {.tv_nsec = 5 * NSEC_PER_MSEC};
    (void)nanosleep(&pause, NULL);
}

/* Empty for a moment: nobody comes in by that. Empty for good: that was meant. */
START_TEST(a_file_that_is_being_rewritten)
{
    struct policy_source source;
    begin(&source);
    ck_assert_uint_eq(count_users(&source), 1);
    rewrite("");
    while (count_users(&source) == 1)
        pause_briefly();
    ck_assert_int_ge(age_ns(), 100 * NSEC_PER_MSEC);
    rewrite(users);
    while (count_users(&source) == 0)
        pause_briefly();
    policy_source_deinit(&source);
}
END_TEST

/* A pipe has its content once, and nobody may be writing to it. */
START_TEST(a_pipe_is_no_file)
{
    struct policy_source source;
    struct policy *policy;
    struct config_error error;
    begin(&source);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    ck_assert_int_eq(policy_load(path, &policy, &error), -EINVAL);
    ck_assert_ptr_nonnull(strstr(error.message, ": not a regular file"));
    ck_assert_uint_eq(count_users(&source), 1);
    policy_source_deinit(&source);
}
END_TEST

Suite *suite_policy(void)
{
    Suite *suite = suite_create("policy");
    TCase *tcase = tcase_create("file");
    tcase_add_checked_fixture(tcase, make_folder, remove_folder);
    tcase_set_timeout(tcase, 30);
    tcase_add_test(tcase, a_file_that_is_being_rewritten);
    tcase_add_test(tcase, a_pipe_is_no_file);
    suite_add_tcase(suite, tcase);
    return suite;
}
