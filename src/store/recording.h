/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a VM's recording is: part of struct vm, so that it is there for whoever holds the VM. What
 * it means is src/recorder/chunks.h's alone.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct recording {
    /* Written by the sampler, read by anybody. */
    _Atomic uint64_t recorder; /* the number of the recorder that has it; 0: none */
    _Atomic uint64_t newest;   /* its newest chunk, as a link; 0: it has none */
    _Atomic uint64_t end;      /* bytes written so far, those included that are gone */
    /* THREADS: sampler only */
    struct recording *next, **at; /* among those with as many chunks */
    uint64_t tail;                /* the last word, which is not full yet */
    uint32_t oldest;
    uint32_t n_chunks;
    int64_t time_ns; /* of the newest record */
    bool continues;  /* the next tick is the one after the newest record */
    bool refused;    /* its targets are too large to be recorded */
};
