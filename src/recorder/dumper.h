/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dumper: a thread that writes recordings to files, so that nobody else waits for a disk. When
 * a VMM was killed by a signal, what its VM did until then; on demand, what all VMs did.
 */
#pragma once

#include "recorder.h"

struct dumper;

enum {
    /* What a directory may hold of dumps; the oldest go. */
    DUMPER_FILES_MAX = 32,
    DUMPER_TOTAL_BYTES_MAX = 256 << 20,
    /* VMs that have ended and wait for the disk; those beyond are not dumped, but counted. */
    DUMPER_WAITING_MAX = 64,
};

struct dumper_options {
    char *directory; /* consumed */
    bool on_vmm_killed, on_signal;
    bool check; /* say at once where nothing can be written to the directory */
};

/* What a person should read: one line. `failed`: something could not be done. THREADS: dumper. */
typedef void dumper_say_fn(bool failed, const char *line);

/* `store` is borrowed, `version` is of the daemon (static). Returns 0, -ENOMEM or another -errno.
 */
MUST_USE int dumper_new(struct store *store, const char *version, dumper_say_fn *say,
                        struct dumper **ret_dumper);
/* THREADS: any. */
void dumper_set_options(struct dumper *dumper, const struct dumper_options *options);
/* Returns 0 or -errno. */
MUST_USE int dumper_start(struct dumper *dumper);
/* Writes what is waiting, joins, and gives back all that is held. Idempotent. */
void dumper_stop(struct dumper *dumper);
/* Only when no recorder is left: a recorder's end looks at what was given back to it. */
void dumper_free(struct dumper *dumper);
DEFINE_CLEANUP(struct dumper *, dumper_free)

/* Dumps all VMs, unless the options say no: then false. THREADS: any; returns at once. */
bool dumper_request(struct dumper *dumper);

/*
 * The VMM of a VM has exited; how, is found out and dumped elsewhere if need be. `pidfd` is
 * borrowed. False: it will not be dumped, and its memory is the caller's to free. Otherwise the
 * recorder has it back in time. THREADS: sampler only; it allocates nothing and never waits.
 */
bool dumper_vm_exited(struct dumper *dumper, struct recorder *recorder, struct vm *vm,
                      struct vm_identity *identity, int pidfd, int64_t exited_ns);
