/* SPDX-License-Identifier: Apache-2.0 */
/* What /proc/PID/fdinfo/N says. Pure. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "cleanup.h"

enum {
    FDINFO_BYTES = 1024, /* enough of it */
};

/*
 * Whether a file with that text may be one of KVM's; `anonymous_inode` is the inode number that
 * anonymous files have. false where the kernel does not tell the inode (before 5.15).
 */
bool fdinfo_may_be_kvm(const char *text, uint64_t anonymous_inode);
