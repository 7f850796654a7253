/* SPDX-License-Identifier: Apache-2.0 */
/* What `top` needs of /metrics, by VM. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "cleanup.h"

enum scrape_value {
    SCRAPE_VCPUS,
    SCRAPE_TIME, /* of the sample, seconds since the epoch */
    SCRAPE_EXITS,
    SCRAPE_PEAK,
    SCRAPE_HALT,
    SCRAPE_CPU,
    SCRAPE_WAIT,
    SCRAPE_VALUES,
};

struct scrape_vm {
    char *name;                   /* owned; as the label is, escapes and all */
    double values[SCRAPE_VALUES]; /* summed over vCPUs; NAN: not there */
};

struct scrape {
    int64_t at_ns;
    size_t n_vms, capacity;
    struct scrape_vm *vms; /* owned */
};

/* Text of the format 0.0.4. Returns 0, -EBADMSG (it is none) or -ENOMEM. */
MUST_USE int scrape_parse(struct scrape *scrape, const char *text, size_t len);
/* `hint`: where it probably is. NULL: not there. */
struct scrape_vm *scrape_find(const struct scrape *scrape, const char *name, size_t hint);
void scrape_free(struct scrape *scrape);
