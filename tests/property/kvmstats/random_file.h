/* SPDX-License-Identifier: Apache-2.0 */
/* A random stats file that a kernel could write, today's or one to come. */
#pragma once

#include "kvmstats/kvmstats.h"

#include <stddef.h>
#include <stdint.h>

struct random_file {
    struct kvmstats_model model; /* what was encoded; type, unit, base, known are filled in */
    uint8_t *bytes;              /* of exactly `len` bytes */
    size_t len;
    struct kvmstats_desc *descs;
    char *texts;
    uint8_t *data;
};

/* Aborts the test where the encoder refuses the model. */
void random_file_make(struct random_file *file, uint32_t max_desc);
void random_file_free(struct random_file *file);
