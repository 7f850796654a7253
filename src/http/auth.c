/* SPDX-License-Identifier: Apache-2.0 */
#include "auth.h"

#include <crypt.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/syscall.h>

enum {
    /* Nobody's scrape waits for the thread, and a host's VMs should not either. */
    THREAD_NICE = 10,
    /* Longer than the base64 of all that credentials can hold. */
    BASE64_BYTES = (AUTH_USER_BYTES + 1 + AUTH_PASSWORD_BYTES + 2) / 3 * 4,
};

/* --- the header --- */

static int sextet(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Strict: no other characters, padded, no bits left over. Returns the number of bytes or -EINVAL.
 */
static int decode_base64(const char *text, size_t len, char *to)
{
    size_t at = 0;
    if (len == 0 || len % 4 != 0)
        return -EINVAL;
    for (size_t i = 0; i < len; i += 4) {
        bool last = i + 4 == len;
        int pad = last && text[i + 3] == '=' ? text[i + 2] == '=' ? 2 : 1 : 0;
        uint32_t bits = 0;
        for (size_t j = 0; j < 4; j++) {
            int value = (int)j >= 4 - pad ? 0 : sextet(text[i + j]);
            if (value < 0)
                return -EINVAL;
            bits = bits << 6 | (uint32_t)value;
        }
        if (bits & ((1u << 8 * pad) - 1))
            return -EINVAL;
        for (int j = 0; j < 3 - pad; j++)
            to[at++] = (char)(bits >> (16 - 8 * j));
    }
    return (int)at;
}

void credentials_wipe(struct credentials *credentials)
{
    explicit_bzero(credentials, sizeof *credentials);
}

int auth_parse(const char *header, struct credentials *ret_credentials)
{
    static const char scheme[] = "Basic ";
    char plain[BASE64_BYTES / 4 * 3 + 1];
    int r = -EINVAL;
    if (!header || strncasecmp(header, scheme, strlen(scheme)) != 0)
        return -EINVAL;
    header += strlen(scheme);
    header += strspn(header, " ");
    size_t len = strlen(header);
    int n = len <= BASE64_BYTES ? decode_base64(header, len, plain) : -EINVAL;
    const char *colon = n > 0 ? memchr(plain, ':', (size_t)n) : NULL;
    if (colon && !memchr(plain, '\0', (size_t)n)) {
        size_t user = (size_t)(colon - plain), password = (size_t)n - user - 1;
        if (user <= AUTH_USER_BYTES && password <= AUTH_PASSWORD_BYTES) {
            memset(ret_credentials, 0, sizeof *ret_credentials);
            memcpy(ret_credentials->user, plain, user);
            memcpy(ret_credentials->password, colon + 1, password);
            r = 0;
        }
    }
    explicit_bzero(plain, sizeof plain);
    return r;
}

/* --- what is known --- */

static bool known_has(const struct auth_known *known, const uint8_t *digest)
{
    for (size_t i = 0; i < AUTH_KNOWN_MAX; i++) {
        if (known->used[i] && memcmp(known->digests[i], digest, AUTH_DIGEST_BYTES) == 0)
            return true;
    }
    return false;
}

static void known_add(struct auth_known *known, const uint8_t *digest)
{
    if (known_has(known, digest))
        return;
    memcpy(known->digests[known->next], digest, AUTH_DIGEST_BYTES);
    known->used[known->next] = true;
    known->next = (known->next + 1) % AUTH_KNOWN_MAX;
}

/* Of the whole fields with all their zeros, so that none runs into the next. */
static int digest_of(const struct auth *auth, const struct auth_job *job, uint8_t *ret_digest)
{
    struct {
        struct credentials credentials;
        char hash[sizeof job->hash];
        bool known;
    } text;
    memset(&text, 0, sizeof text);
    text.credentials = job->credentials;
    memcpy(text.hash, job->hash, sizeof text.hash);
    text.known = job->known;
    int r = gnutls_hmac_fast(GNUTLS_MAC_SHA256, auth->key, sizeof auth->key, &text, sizeof text,
                             ret_digest);
    explicit_bzero(&text, sizeof text);
    return r < 0 ? -EIO : 0;
}

enum auth_verdict auth_recall(struct auth *auth, struct auth_job *job, const struct web_user *user,
                              const char *fake_hash)
{
    uint8_t digest[AUTH_DIGEST_BYTES];
    enum auth_verdict verdict = AUTH_PENDING;
    job->known = user;
    memcpy(job->hash, user ? user->hash : fake_hash, WEB_HASH_BYTES);
    job->hash[WEB_HASH_BYTES] = '\0';
    if (digest_of(auth, job, digest) < 0)
        return AUTH_DENIED;
    (void)pthread_mutex_lock(&auth->lock);
    if (known_has(&auth->allowed, digest))
        verdict = AUTH_ALLOWED;
    else if (known_has(&auth->denied, digest))
        verdict = AUTH_DENIED;
    (void)pthread_mutex_unlock(&auth->lock);
    if (verdict != AUTH_PENDING)
        credentials_wipe(&job->credentials);
    return verdict;
}

/* --- the thread --- */

static bool is_password(struct crypt_data *data, const struct auth_job *job)
{
    const char *hash = crypt_r(job->credentials.password, job->hash, data);
    return hash && strlen(hash) == WEB_HASH_BYTES &&
           gnutls_memcmp(hash, job->hash, WEB_HASH_BYTES) == 0;
}

static void finish(struct auth_job *job, enum auth_verdict verdict)
{
    credentials_wipe(&job->credentials);
    explicit_bzero(job->hash, sizeof job->hash);
    job->verdict = verdict;
    job->done(job); /* it may be gone now */
}

/* Without the lock; the job is out of the list, but has its place. */
static void check(struct auth *auth, struct crypt_data *data, struct auth_job *job)
{
    uint8_t digest[AUTH_DIGEST_BYTES];
    int r = digest_of(auth, job, digest);
    (void)pthread_mutex_lock(&auth->lock);
    /* The same may have been asked twice before the first was answered. */
    bool allowed = r == 0 && known_has(&auth->allowed, digest);
    bool is_known = allowed || (r == 0 && known_has(&auth->denied, digest));
    (void)pthread_mutex_unlock(&auth->lock);
    if (!is_known) {
        allowed = is_password(data, job) && job->known;
        explicit_bzero(data, sizeof *data);
    }
    (void)pthread_mutex_lock(&auth->lock);
    if (r == 0)
        known_add(allowed ? &auth->allowed : &auth->denied, digest);
    auth->n_jobs--;
    (void)pthread_mutex_unlock(&auth->lock);
    finish(job, allowed ? AUTH_ALLOWED : AUTH_DENIED);
}

static void *auth_run(void *arg)
{
    struct auth *auth = arg;
    struct auth_job *job;
    struct crypt_data *data = calloc(1, sizeof *data); /* 32 KiB */
    (void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), THREAD_NICE);
    (void)pthread_mutex_lock(&auth->lock);
    for (;;) {
        while (!auth->stopping && TAILQ_EMPTY(&auth->jobs))
            (void)pthread_cond_wait(&auth->wake, &auth->lock);
        job = TAILQ_FIRST(&auth->jobs);
        if (!job)
            break;
        TAILQ_REMOVE(&auth->jobs, job, link);
        bool refuse = auth->stopping || !data;
        auth->n_jobs -= refuse;
        (void)pthread_mutex_unlock(&auth->lock);
        if (refuse)
            finish(job, AUTH_BUSY);
        else
            check(auth, data, job);
        (void)pthread_mutex_lock(&auth->lock);
    }
    (void)pthread_mutex_unlock(&auth->lock);
    free(data);
    return NULL;
}

/* The first time that there is something to do. The caller holds the lock. */
static bool is_running(struct auth *auth)
{
    if (!auth->running && !auth->stopping) {
        auth->running = pthread_create(&auth->thread, NULL, auth_run, auth) == 0;
        if (auth->running)
            (void)pthread_setname_np(auth->thread, "kvmstatd-auth");
    }
    return auth->running;
}

/* The caller holds the lock. */
static bool has_place(const struct auth *auth, const struct peer *peer)
{
    const struct auth_job *job;
    size_t of_peer = 0;
    TAILQ_FOREACH(job, &auth->jobs, link)
    {
        of_peer += peer_equal(&job->peer, peer);
    }
    return !auth->stopping && auth->n_jobs < AUTH_JOBS_MAX && of_peer < AUTH_JOBS_PER_PEER;
}

void auth_submit(struct auth *auth, struct auth_job *job)
{
    (void)pthread_mutex_lock(&auth->lock);
    bool taken = has_place(auth, &job->peer) && is_running(auth);
    if (taken) {
        auth->n_jobs++;
        TAILQ_INSERT_TAIL(&auth->jobs, job, link);
        (void)pthread_cond_signal(&auth->wake);
    }
    (void)pthread_mutex_unlock(&auth->lock);
    if (!taken)
        finish(job, AUTH_BUSY);
}

int auth_init(struct auth *auth)
{
    *auth = (struct auth){0};
    (void)pthread_mutex_init(&auth->lock, NULL);
    (void)pthread_cond_init(&auth->wake, NULL);
    TAILQ_INIT(&auth->jobs);
    return gnutls_rnd(GNUTLS_RND_KEY, auth->key, sizeof auth->key) < 0 ? -EIO : 0;
}

void auth_stop(struct auth *auth)
{
    (void)pthread_mutex_lock(&auth->lock);
    auth->stopping = true;
    bool running = auth->running;
    auth->running = false;
    (void)pthread_cond_signal(&auth->wake);
    (void)pthread_mutex_unlock(&auth->lock);
    if (running)
        (void)pthread_join(auth->thread, NULL);
}

void auth_deinit(struct auth *auth)
{
    explicit_bzero(auth->key, sizeof auth->key);
    (void)pthread_cond_destroy(&auth->wake);
    (void)pthread_mutex_destroy(&auth->lock);
}
