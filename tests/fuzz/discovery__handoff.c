/* SPDX-License-Identifier: Apache-2.0 */
/* What a VMM says at the handoff socket. */
#include <stdbool.h>
#include <string.h>

#include "handoff_message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool condition)
{
    if (!condition)
        __builtin_trap();
}

static void check_accepted(const struct handoff_message *message, size_t size)
{
    bool ignorable = (message->type & 0xc000) == KVMSTATD_HANDOFF_IGNORABLE;
    must(size >= sizeof(struct kvmstatd_handoff_header));
    must(size <= KVMSTATD_HANDOFF_MESSAGE_BYTES_MAX);
    must(ignorable ||
         (message->type >= KVMSTATD_HANDOFF_HELLO && message->type <= KVMSTATD_HANDOFF_VCPU_GONE));
    must(message->type == KVMSTATD_HANDOFF_VM || (!message->name[0] && !message->uuid[0]));
    must(!message->uuid[0] || strlen(message->uuid) == KVMSTATD_HANDOFF_UUID_BYTES);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct handoff_message message;
    enum kvmstatd_handoff_reason reason = handoff_message_parse(data, size, &message);
    must(memchr(message.name, '\0', sizeof message.name) != NULL);
    must(memchr(message.uuid, '\0', sizeof message.uuid) != NULL);
    if (reason == KVMSTATD_HANDOFF_REASON_NONE)
        check_accepted(&message, size);
    else
        must(reason == KVMSTATD_HANDOFF_REASON_MALFORMED ||
             reason == KVMSTATD_HANDOFF_REASON_VERSION || reason == KVMSTATD_HANDOFF_REASON_TYPE);
    /* Cut anywhere, it is not the same message. */
    if (reason == KVMSTATD_HANDOFF_REASON_NONE && size > 0)
        must(handoff_message_parse(data, size - 1, &message) != KVMSTATD_HANDOFF_REASON_NONE);
    return 0;
}
