/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who is let in: the web configuration in force, with its certificates, and the file it comes from.
 * The file, and those that it names, are looked at again as requests and connections come, so a
 * change is in force from the next one on, as with all exporters that have the format. A file that
 * is wrong changes nothing, and is reported once.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/stat.h>

#include "tls.h"

/* Immutable, counted. */
struct policy {
    atomic_uint refs;
    struct web_config *config;
    struct tls *tls;                    /* NULL: plain HTTP */
    uint64_t digest;                    /* of all that was read */
    char fake_hash[WEB_HASH_BYTES + 1]; /* of nobody; costs what the users' cost */
};

/* Returns 0, -EINVAL or another -errno with *ret_error filled. */
MUST_USE int policy_load(const char *path, struct policy **ret_policy,
                         struct config_error *ret_error);
struct policy *policy_ref(struct policy *policy);
void policy_unref(struct policy *policy);
DEFINE_CLEANUP(struct policy *, policy_unref)
/* The user of that name, or NULL. */
const struct web_user *policy_user(const struct policy *policy, const char *name);

enum {
    POLICY_FILES = 4, /* the configuration, certificate, key, CA */
};

/* What tells that a file has changed. */
struct file_mark {
    int error; /* why it could not be looked at */
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec modified, changed;
};

/* THREADS: any. */
struct policy_source {
    pthread_mutex_t lock;  /* guards all below; not held while files are read */
    char *path;            /* "": there is none */
    struct policy *policy; /* in force; NULL: none, everything is open */
    struct file_mark marks[POLICY_FILES];
    bool settled; /* the files are old enough for their times to tell of every change */
    bool looking;
    int64_t next_look_ns;
    struct config_error said;
    atomic_bool *refused; /* borrowed */
};

/* *refused: whether what the files say now is wrong, and what they said before is in force. */
void policy_source_init(struct policy_source *source, atomic_bool *refused);
void policy_source_deinit(struct policy_source *source);
/*
 * From another file from now on ("": none). Consumes `path`, which is to be free()d, and `policy`,
 * which was loaded from there; NULL for none.
 */
void policy_source_set(struct policy_source *source, char *path, struct policy *policy);
/* The policy in force, after a look at the files when one is due: a reference, or NULL for none. */
struct policy *policy_source_get(struct policy_source *source);
