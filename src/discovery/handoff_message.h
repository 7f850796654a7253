/* SPDX-License-Identifier: Apache-2.0 */
/* What a VMM says at the handoff socket: bytes in, a checked message out. Pure. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "cleanup.h"
#include "kvmstats/handoff-protocol.h"

/* Members that the type does not have are 0 or "". */
struct handoff_message {
    uint16_t type;
    uint8_t minor;
    uint32_t serial;
    uint64_t vm;
    uint32_t vcpu;
    int32_t stats_fd, vm_fd; /* their numbers in the VMM, by its own word; -1: it does not say */
    char name[KVMSTATD_HANDOFF_NAME_BYTES_MAX + 1];
    char uuid[KVMSTATD_HANDOFF_UUID_BYTES + 1];
};

/*
 * Returns KVMSTATD_HANDOFF_REASON_NONE and the message (its type may be an unknown ignorable one),
 * or what is wrong: _MALFORMED, _VERSION or _TYPE. `serial` is then what an answer repeats, 0 where
 * not even the header is one.
 */
MUST_USE enum kvmstatd_handoff_reason handoff_message_parse(const void *bytes, size_t len,
                                                            struct handoff_message *ret_message);
