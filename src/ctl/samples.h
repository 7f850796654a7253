/* SPDX-License-Identifier: Apache-2.0 */
/* What of a VM's samples `csv` has printed, and printing those that are new. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buffer.h"
#include "client.h"

enum {
    SAMPLES_OWN = -1, /* the VM's own, among numbers of vCPUs */
    SAMPLES_ALL = -2,
};

/* A VM's own samples, or those of one of its vCPUs. Times are of the daemon's monotonic clock. */
struct printed {
    int32_t vcpu;
    int64_t last_ns;   /* INT64_MIN: none was printed */
    int64_t oldest_ns; /* in the answer at hand; INT64_MAX: it has none */
    int64_t newest_ns; /* as well; INT64_MIN: it has none */
};

struct source {
    uint64_t id;      /* the daemon's; 0: it says none */
    char *label;      /* owned; of the moment; "": another VM has it now */
    int64_t asked_ns; /* when it was asked for last, with an answer; 0: never */
    int64_t seen_ns;
    struct printed *targets; /* owned */
    size_t n_targets, capacity;
};

void source_free(struct source *source);

/* For arrays that grow by one: room for another than `n`. Returns 0 or -ENOMEM. */
MUST_USE int samples_grow(void *array, size_t *capacity, size_t n, size_t size);

/*
 * Prints what is new in client->body, an answer on this VM: of one vCPU, SAMPLES_OWN or
 * SAMPLES_ALL. `*headed`: whether CSV's first line has been printed. Returns 0, -EPIPE (nobody
 * reads any more), -EINTR (asked to end), or another -errno with client->message set.
 */
MUST_USE int samples_print(struct client *client, struct source *source, int32_t vcpu,
                           bool *headed);
/*
 * Prints nothing, but notes the targets in client->body, and appends the names of the VM's own
 * statistics, separated by commas. Returns 0, or a -errno with client->message set.
 */
MUST_USE int samples_note(struct client *client, struct source *source, struct buffer *own_stats);
