/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a stats fd keeps its VM. Kernels 5.14 up to some stable releases of 2023 do not take a
 * reference for it: reading from one whose VMM has gone is then a use-after-free in the host's
 * kernel. Distributions backport, so no version number tells; trying does.
 */
#pragma once

#include "cleanup.h"

enum stats_fd_safety {
    STATS_FDS_HOLD,    /* proved: a VM lives as long as its stats fds */
    STATS_FDS_DO_NOT,  /* proved: it does not */
    STATS_FDS_UNKNOWN, /* it could not be tried: no /dev/kvm, no events from the kernel */
};

/*
 * Makes a VM, closes it, and looks whether the kernel says that it is destroyed while its stats fd
 * is still open. Then closes that, and only if the kernel then says so does the silence before
 * count. Takes a millisecond. The first VM of a host switches hardware virtualisation on, so call
 * it only while some VM exists.
 */
enum stats_fd_safety stats_fd_probe(void);
