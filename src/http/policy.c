/* SPDX-License-Identifier: Apache-2.0 */
#include "policy.h"

#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "digest.h"
#include "log.h"

enum {
    /* Four stat() cost some microseconds, but floods of connections shall not cost one each. */
    LOOK_AGAIN_MS = 50,
    /*
     * A file that was written just now may be written once more within the same tick of the file
     * system's clock, with the same size: until it is this old it is read at every look.
     */
    SETTLED_MS = 100,
};

static void make_fake_hash(struct policy *policy)
{
    unsigned cost = WEB_COST_MIN;
    for (size_t i = 0; i < policy->config->n_users; i++)
        cost = MAX_OF(cost, web_user_cost(&policy->config->users[i]));
    /* Nobody's: whoever should guess what it is the hash of is refused all the same. */
    (void)snprintf(policy->fake_hash, sizeof policy->fake_hash, "$2b$%02u$%s", cost,
                   "kvmstatd/kvmstatd/kvmsO123456789012345678901234567890");
}

int policy_load(const char *path, struct policy **ret_policy, struct config_error *ret_error)
{
    CLEANUP(cleanup_policy_unref) struct policy *policy = calloc(1, sizeof *policy);
    int r = policy ? 0 : -ENOMEM;
    if (r == 0) {
        atomic_init(&policy->refs, 1);
        r = web_config_load(path, &policy->config, ret_error);
    }
    if (r == 0 && policy->config->has_tls)
        r = tls_new(policy->config, &policy->tls, ret_error);
    if (r == -ENOMEM)
        (void)snprintf(ret_error->message, sizeof ret_error->message, "%.300s: out of memory",
                       path);
    if (r < 0)
        return r;
    policy->digest = policy->config->digest;
    if (policy->tls) {
        uint64_t files = tls_digest(policy->tls);
        policy->digest = digest_add(policy->digest, &files, sizeof files);
    }
    make_fake_hash(policy);
    *ret_policy = steal_ptr(&policy);
    return 0;
}

struct policy *policy_ref(struct policy *policy)
{
    if (policy)
        (void)atomic_fetch_add_explicit(&policy->refs, 1, memory_order_relaxed);
    return policy;
}

void policy_unref(struct policy *policy)
{
    if (!policy || atomic_fetch_sub_explicit(&policy->refs, 1, memory_order_acq_rel) > 1)
        return;
    tls_free(policy->tls);
    web_config_free(policy->config);
    free(policy);
}

const struct web_user *policy_user(const struct policy *policy, const char *name)
{
    for (size_t i = 0; i < policy->config->n_users; i++) {
        if (strcmp(policy->config->users[i].name, name) == 0)
            return &policy->config->users[i];
    }
    return NULL;
}

/* --- the files --- */

static struct file_mark mark_file(const char *path)
{
    struct stat st;
    struct file_mark mark;
    memset(&mark, 0, sizeof mark); /* padding too, for memcmp() */
    if (!path)
        return mark;
    if (stat(path, &st) < 0) {
        mark.error = errno;
        return mark;
    }
    mark.device = st.st_dev;
    mark.inode = st.st_ino;
    mark.size = st.st_size;
    mark.modified = st.st_mtim;
    mark.changed = st.st_ctim;
    return mark;
}

static void mark_files(const char *path, const struct policy *policy, struct file_mark *ret_marks)
{
    const struct web_config *config = policy ? policy->config : NULL;
    ret_marks[0] = mark_file(path);
    ret_marks[1] = mark_file(config ? config->tls.cert_file : NULL);
    ret_marks[2] = mark_file(config ? config->tls.key_file : NULL);
    ret_marks[3] = mark_file(config ? config->tls.client_ca_file : NULL);
}

/* Whether the files were so old at that time that whatever changes them later changes the marks. */
static bool were_settled(const struct file_mark *marks, int64_t now_ns)
{
    for (size_t i = 0; i < POLICY_FILES; i++) {
        int64_t changed_ns =
            (int64_t)marks[i].changed.tv_sec * NSEC_PER_SEC + marks[i].changed.tv_nsec;
        /* A time to come is that of a clock that was set back: another change has another time. */
        if (now_ns >= changed_ns && now_ns - changed_ns < SETTLED_MS * NSEC_PER_MSEC)
            return false;
    }
    return true;
}

void policy_source_init(struct policy_source *source, atomic_bool *refused)
{
    *source = (struct policy_source){.refused = refused};
    (void)pthread_mutex_init(&source->lock, NULL);
}

void policy_source_deinit(struct policy_source *source)
{
    policy_unref(source->policy);
    free(source->path);
    (void)pthread_mutex_destroy(&source->lock);
}

void policy_source_set(struct policy_source *source, char *path, struct policy *policy)
{
    struct file_mark marks[POLICY_FILES];
    mark_files(path[0] ? path : NULL, policy, marks);
    (void)pthread_mutex_lock(&source->lock);
    struct policy *former = source->policy;
    free(source->path);
    source->path = path;
    source->policy = policy;
    memcpy(source->marks, marks, sizeof marks);
    /* It was loaded before it was marked: what changed between is seen by reading it again. */
    source->settled = false;
    source->next_look_ns = 0;
    source->said.message[0] = '\0';
    atomic_store(source->refused, false);
    (void)pthread_mutex_unlock(&source->lock);
    policy_unref(former);
}

/*
 * A file that is just being written anew is for a moment empty, or half of what it will be, and may
 * be a valid one that asks nobody who he is. Nothing is thrown open before the files have been left
 * alone for a while.
 */
static bool opens_up(const struct policy *former, const struct policy *loaded)
{
    if (!former)
        return false;
    const struct web_config *was = former->config, *is = loaded->config;
    return (former->tls && !loaded->tls) || (was->n_users && !is->n_users) ||
           (was->tls.client_auth != is->tls.client_auth &&
            is->tls.client_auth != WEB_CLIENT_REQUIRE_AND_VERIFY) ||
           (was->tls.sans.n && !is->tls.sans.n) ||
           (was->tls.client_ca_file && !is->tls.client_ca_file && !is->tls.client_ca);
}

/*
 * What came of reading the files again. Each change is said once, when it is in force. The caller
 * holds the lock. Returns what is to be freed.
 */
static struct policy *take_over(struct policy_source *source, struct policy *loaded,
                                const struct config_error *error)
{
    atomic_store(source->refused, !loaded);
    if (!loaded) {
        if (strcmp(source->said.message, error->message) != 0) {
            source->said = *error;
            log_error("http", "%s; the web configuration in force stays", error->message);
        }
        return NULL;
    }
    bool is_new = loaded->digest != source->policy->digest;
    struct policy *former = source->policy;
    source->policy = loaded;
    if (is_new || source->said.message[0])
        log_info("http", "%s: web configuration read again", source->path);
    source->said.message[0] = '\0';
    return former;
}

/*
 * Looks at the files and reads them if they have changed. What counts is how they were before they
 * were read: what has changed since, or what the file with the names may say, is read once more.
 * The caller has set `looking`.
 */
static void look(struct policy_source *source, const char *path, struct policy *policy,
                 const struct file_mark *marks_before, bool settled_before)
{
    struct file_mark marks[POLICY_FILES], after[POLICY_FILES];
    struct config_error error = {""};
    struct policy *loaded = NULL, *former = NULL;
    int64_t begin_ns = clock_read_ns(CLOCK_REALTIME);
    mark_files(path, policy, marks);
    bool read = !settled_before || memcmp(marks, marks_before, sizeof marks) != 0;
    bool left_alone = were_settled(marks, begin_ns), settled = left_alone;
    if (read && policy_load(path, &loaded, &error) == 0) {
        mark_files(path, loaded, after); /* it may name other files */
        left_alone = left_alone && memcmp(&after[0], &marks[0], sizeof marks[0]) == 0;
        settled = settled && memcmp(after, marks, sizeof marks) == 0;
        memcpy(marks, after, sizeof marks);
    } else if (read) {
        settled = false; /* what is wrong may be with a file that is not marked */
    }
    if (loaded && !left_alone && opens_up(policy, loaded)) {
        policy_unref(steal_ptr(&loaded));
        memcpy(marks, marks_before, sizeof marks);
        settled = read = false;
    }
    (void)pthread_mutex_lock(&source->lock);
    source->looking = false;
    if (source->policy == policy) {
        if (read)
            former = take_over(source, loaded, &error);
        memcpy(source->marks, marks, sizeof marks);
        source->settled = settled;
    } else {
        former = loaded; /* another one was put in force meanwhile */
    }
    (void)pthread_mutex_unlock(&source->lock);
    policy_unref(former);
}

struct policy *policy_source_get(struct policy_source *source)
{
    struct file_mark marks[POLICY_FILES];
    CLEANUP_FREE char *path = NULL;
    CLEANUP(cleanup_policy_unref) struct policy *policy = NULL;
    int64_t now_ns = clock_now_ns();
    (void)pthread_mutex_lock(&source->lock);
    if (source->policy && !source->looking && now_ns >= source->next_look_ns)
        path = strdup(source->path); /* no memory: the next one looks */
    bool settled = source->settled;
    memcpy(marks, source->marks, sizeof marks);
    policy = policy_ref(source->policy);
    if (path) {
        source->looking = true;
        source->next_look_ns = now_ns + LOOK_AGAIN_MS * NSEC_PER_MSEC;
    }
    (void)pthread_mutex_unlock(&source->lock);
    if (!path)
        return steal_ptr(&policy);

    look(source, path, policy, marks, settled);
    (void)pthread_mutex_lock(&source->lock);
    struct policy *now = policy_ref(source->policy);
    (void)pthread_mutex_unlock(&source->lock);
    return now;
}
