/* SPDX-License-Identifier: Apache-2.0 */
/* What can be handed to the reaper: embedded in the object, so that handing over needs no memory.
 */
#pragma once

#include "mailbox.h"

struct reapable {
    struct letter letter; /* first member */
    /* Runs on the reaper's thread; releases the object that `self` is embedded in. */
    void (*release)(struct reapable *self);
};
