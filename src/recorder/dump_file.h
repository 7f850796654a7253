/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dump files: recordings with all that is needed to read them. docs/dump-format.md tells their
 * form. Writing is to a buffer, reading from bytes in memory: no file is touched here.
 */
#pragma once

#include "buffer.h"
#include "recorder.h"
#include "replay.h"

enum {
    DUMP_VERSION = 1,
    DUMP_KEY_MAX = 63, /* length of a name */
};
#define DUMP_SUFFIX ".kvmdump"

/* --- writing. Errors stick in the buffer. --- */

/* What a file begins with. */
void dump_put_begin(struct buffer *to);
/* A section whose bytes follow; returns where it began, for dump_end_section(). */
size_t dump_begin_section(struct buffer *to, const char tag[4]);
void dump_end_section(struct buffer *to, size_t began);
/* `name` and `value` as a pair; both are cut at a NUL. */
void dump_put_pair(struct buffer *to, const char *name, const char *value);
void dump_put_pair_i64(struct buffer *to, const char *name, int64_t value);
/* A schema, as a whole section. */
void dump_put_schema(struct buffer *to, const struct schema *schema);
/* A recording as a whole section: it follows its VM's. `len` bytes from a record's start on. */
void dump_put_recording(struct buffer *to, int64_t first_ns, const uint8_t *bytes, size_t len,
                        const uint8_t *last, size_t last_len);
/* What a file ends with. */
void dump_put_end(struct buffer *to);

/*
 * What the VM has in a frame as a LAST record, appended to `to`. Returns 0, or -ENOMEM, or -E2BIG:
 * it is not recorded.
 */
MUST_USE int dump_put_last(struct buffer *to, const struct frame *frame, const struct layout_vm *vm,
                           int64_t tick_ns);

/* --- reading --- */

/* Pairs of NUL-terminated strings; borrowed. */
struct dump_pairs {
    const char *bytes;
    size_t len;
};
/* The value of a name; "" where it does not stand. */
const char *dump_pair(const struct dump_pairs *pairs, const char *name);
int64_t dump_pair_i64(const struct dump_pairs *pairs, const char *name);

struct dump_vm {
    struct dump_pairs about;
    const uint8_t *records;
    size_t len;
    int64_t first_ns;
};

/* Points into the bytes it was made from. */
struct dump {
    struct dump_pairs about;
    struct replay_schemas schemas; /* their `decoded` are owned */
    size_t n_vms;
    struct dump_vm *vms; /* owned */
    bool truncated;      /* the file ends before its end: what came before is there */
};

struct dump_error {
    char message[256];
};

/*
 * Returns 0, -EBADMSG with *ret_error filled, or -ENOMEM. A file that was cut short is read as far
 * as whole sections go.
 */
MUST_USE int dump_read(const uint8_t *bytes, size_t len, struct dump *ret_dump,
                       struct dump_error *ret_error);
void dump_free(struct dump *dump);
#define CLEANUP_DUMP CLEANUP(dump_free)
