/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a process's control group says of who runs it, by the text of /proc/PID/cgroup: cgroup v2,
 * v1 and both at once, with systemd and without.
 */
#pragma once

#include "cleanup.h"

/* Owned, "" when there is none. */
struct cgroup {
    char *slice;   /* the innermost one around the unit: "machine.slice" */
    char *unit;    /* as systemd writes it: "machine-qemu\x2d3\x2dweb1.scope" */
    char *machine; /* "qemu-3-web1" */
};
/* Returns 0 or -ENOMEM. */
MUST_USE int cgroup_parse(const char *text, struct cgroup *ret_cgroup);
void cgroup_free(struct cgroup *cgroup);
#define CLEANUP_CGROUP CLEANUP(cgroup_free)
