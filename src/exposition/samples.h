/* SPDX-License-Identifier: Apache-2.0 */
/* The samples of the families that KVM's descriptors make. */
#pragma once

#include "scene.h"

/* All of one scope, in a text format or in protobuf. Errors stick in the writer. */
void samples_put(struct writer *w, enum exposition_format format, const struct config *config,
                 const struct family_table *table, enum scope scope, const struct scene *scene);
void samples_put_protobuf(struct writer *w, const struct config *config,
                          const struct family_table *table, enum scope scope,
                          const struct scene *scene);
/* The series that a family has. `sums`: it is shown as sums over each VM's vCPUs. */
const struct series_list *samples_list(const struct scene *scene, enum scope scope,
                                       enum family_type type, bool sums);
/* How the values of a family's member are written. A sum of booleans says how many are true. */
static inline enum number_form samples_form(const struct family_member *m, bool sums)
{
    return sums && m->form == NUMBER_BOOL ? NUMBER_PLAIN : m->form;
}
/* Whether the configuration asks for sums over vCPUs. */
bool samples_need_sums(const struct config *config);
