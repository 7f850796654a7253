/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Basic authentication (RFC 7617) against bcrypt hashes. Checking one takes tens of milliseconds of
 * a CPU and more: that is what bcrypt is for. So it is done by a thread of its own (work.h);
 * results are remembered, so that a client that is known never waits for one that guesses.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "cleanup.h"
#include "web.h"
#include "work.h"

enum {
    AUTH_USER_BYTES = 255,
    AUTH_PASSWORD_BYTES = 511, /* libxcrypt takes no more; bcrypt itself looks at 72 */
    AUTH_DIGEST_BYTES = 32,
    /* Results that are remembered: of those who may enter, and of others. */
    AUTH_KNOWN_MAX = 256,
    /* Checks that wait, with that in progress: at the usual cost half a second's worth. */
    AUTH_JOBS_MAX = 16,
    AUTH_JOBS_PER_PEER = 4,
};

/* To be wiped. */
struct credentials {
    char user[AUTH_USER_BYTES + 1];
    char password[AUTH_PASSWORD_BYTES + 1];
};
void credentials_wipe(struct credentials *credentials);

/*
 * Reads an Authorization header. Total: any bytes give an answer. Returns 0, or -EINVAL for what is
 * not Basic, not base64, has no colon, is longer than anything that could be right, or has a NUL
 * inside (crypt(3) would stop there and take the rest for granted).
 */
MUST_USE int auth_parse(const char *header, struct credentials *ret_credentials);

enum auth_verdict {
    AUTH_ALLOWED,
    AUTH_DENIED,
    AUTH_PENDING, /* `done` will be called */
    AUTH_BUSY,    /* too many are waiting */
};

/* One check. Owned by who asks for it; not to be touched while it is pending. */
struct auth_job {
    /* Called by auth's thread when `verdict` is ALLOWED, DENIED or BUSY. */
    void (*done)(struct auth_job *job);
    enum auth_verdict verdict;
    bool known; /* there is such a user */
    char hash[WEB_HASH_BYTES + 1];
    struct credentials credentials;
    struct auth *auth;    /* auth_submit()'s */
    struct work_job work; /* its peer is who asks; the rest is auth_submit()'s */
};

/* Results by a keyed digest of user, password and hash: neither can be told from it. */
struct auth_known {
    size_t next;
    uint8_t digests[AUTH_KNOWN_MAX][AUTH_DIGEST_BYTES];
    bool used[AUTH_KNOWN_MAX];
};

/* THREADS: any. */
struct auth {
    uint8_t key[AUTH_DIGEST_BYTES];    /* of the digests, for the life of the process */
    pthread_mutex_t lock;              /* guards the next line */
    struct auth_known allowed, denied; /* apart: guesses do not make us forget who is known */
    struct crypt_data *data;           /* the thread's; NULL until it first has something to do */
    struct work work;
};

/* Returns 0 or -EIO when there is no randomness. */
MUST_USE int auth_init(struct auth *auth);
/* Answers everything that waits with BUSY; nothing is pending any more when it returns. */
void auth_stop(struct auth *auth);
void auth_deinit(struct auth *auth);

/*
 * What is known at once: ALLOWED or DENIED, else PENDING: then auth_submit() is to follow. `user`:
 * NULL for a user that there is not, who is checked against `fake_hash`. Fills in the job.
 */
enum auth_verdict auth_recall(struct auth *auth, struct auth_job *job, const struct web_user *user,
                              const char *fake_hash);
/* Has it checked. When there is no place, `done` is called at once. Wipes the credentials. */
void auth_submit(struct auth *auth, struct auth_job *job);
