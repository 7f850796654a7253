/* SPDX-License-Identifier: Apache-2.0 */
/* The samples of the families that KVM's descriptors make. */
#pragma once

#include "scene.h"

/* All of one scope. Errors stick in the writer. */
void samples_put(struct writer *w, enum exposition_format format, const struct config *config,
                 const struct family_table *table, enum scope scope, const struct scene *scene);
/* Whether the configuration asks for sums over vCPUs. */
bool samples_need_sums(const struct config *config);
