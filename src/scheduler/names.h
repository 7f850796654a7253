/* SPDX-License-Identifier: Apache-2.0 */
/* What VMMs call the threads that run their vCPUs. */
#pragma once

#include <stdint.h>

struct thread_names {
    const char *vmm; /* as discovery names it */
    const char *before, *after;
};

/* NULL for a VMM whose threads' names are not known. Static. */
const struct thread_names *thread_names_of(const char *vmm);
/*
 * The number in a vCPU thread's name; -1 for the name of any other thread. It is the VMM's own
 * count, not the kernel's vcpu_id. `names` NULL: by any VMM's custom.
 */
int32_t thread_names_number(const struct thread_names *names, const char *name);
