/* SPDX-License-Identifier: Apache-2.0 */
#include "auth.h"

#include <crypt.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <string.h>
#include <strings.h>

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

/* --- a check --- */

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

/* On the thread. */
static enum auth_verdict check(struct auth *auth, struct auth_job *job)
{
    uint8_t digest[AUTH_DIGEST_BYTES];
    int r = digest_of(auth, job, digest);
    (void)pthread_mutex_lock(&auth->lock);
    /* The same may have been asked twice before the first was answered. */
    bool allowed = r == 0 && known_has(&auth->allowed, digest);
    bool is_known = allowed || (r == 0 && known_has(&auth->denied, digest));
    (void)pthread_mutex_unlock(&auth->lock);
    if (!is_known) {
        allowed = is_password(auth->data, job) && job->known;
        explicit_bzero(auth->data, sizeof *auth->data);
    }
    (void)pthread_mutex_lock(&auth->lock);
    if (r == 0)
        known_add(allowed ? &auth->allowed : &auth->denied, digest);
    (void)pthread_mutex_unlock(&auth->lock);
    return allowed ? AUTH_ALLOWED : AUTH_DENIED;
}

static void on_turn(struct work_job *work, bool refused)
{
    struct auth_job *job = CONTAINER_OF(work, struct auth_job, work);
    struct auth *auth = job->auth;
    if (!refused && !auth->data)
        auth->data = calloc(1, sizeof *auth->data); /* 32 KiB */
    finish(job, refused || !auth->data ? AUTH_BUSY : check(auth, job));
}

void auth_submit(struct auth *auth, struct auth_job *job)
{
    job->auth = auth;
    job->work.run = on_turn;
    work_submit(&auth->work, &job->work);
}

int auth_init(struct auth *auth)
{
    *auth = (struct auth){0};
    (void)pthread_mutex_init(&auth->lock, NULL);
    work_init(&auth->work, "kvmstatd-auth", THREAD_NICE, AUTH_JOBS_MAX, AUTH_JOBS_PER_PEER);
    return gnutls_rnd(GNUTLS_RND_KEY, auth->key, sizeof auth->key) < 0 ? -EIO : 0;
}

void auth_stop(struct auth *auth)
{
    work_stop(&auth->work);
}

void auth_deinit(struct auth *auth)
{
    explicit_bzero(auth->key, sizeof auth->key);
    free(auth->data);
    work_deinit(&auth->work);
    (void)pthread_mutex_destroy(&auth->lock);
}
