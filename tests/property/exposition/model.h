/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A random view: schemas of every type, unit and base (unknown ones too) with hostile names, VMs
 * with hostile labels in several rings, values, status, vCPUs that left. It can be written as JSON,
 * so that somebody else can work out what the exposition has to say.
 */
#pragma once

#include "stage.h"

struct model {
    struct stage stage;
    struct exposition *exposition;
    struct roster roster;
    char **names; /* of VMs, raw bytes, owned */
};

void model_init(struct model *model);
void model_deinit(struct model *model);
/* Another tick of every ring: values rise, are cleared, vCPUs can be read or not. */
void model_tick(struct model *model);
/* One line of JSON. */
void model_print(struct model *model, FILE *to);
