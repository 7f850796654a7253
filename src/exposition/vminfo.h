/* SPDX-License-Identifier: Apache-2.0 */
/* kvm_vm_info and the other families that say something of a VM besides KVM's own statistics. */
#pragma once

#include "own.h"
#include "view.h"

/* VMs of which nothing can be shown are left out. Errors stick in the writer. */
void vminfo_put(struct own *own, const struct view *view);
