/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of the kernel's, and link texts of /proc/PID/fd. */
#include <stdint.h>

#include "broker.h"
#include "uevents.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct uevent event;
    enum kvm_file_kind kind;
    int32_t vcpu;
    if (uevent_parse((const char *)data, size, &event) && (event.tid < 0 || event.count < -1))
        __builtin_trap();
    if (kvm_file_parse((const char *)data, size, &kind, &vcpu) && vcpu < -1)
        __builtin_trap();
    return 0;
}
