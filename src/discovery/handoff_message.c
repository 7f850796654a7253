/* SPDX-License-Identifier: Apache-2.0 */
#include "handoff_message.h"

#include <stdbool.h>
#include <string.h>

/* What a VMM may say, and how long its fixed part is. */
static size_t fixed_bytes(uint16_t type)
{
    switch (type) {
    case KVMSTATD_HANDOFF_HELLO:
        return sizeof(struct kvmstatd_handoff_hello);
    case KVMSTATD_HANDOFF_VM:
        return sizeof(struct kvmstatd_handoff_vm);
    case KVMSTATD_HANDOFF_VCPU:
        return sizeof(struct kvmstatd_handoff_vcpu);
    case KVMSTATD_HANDOFF_VM_GONE:
        return sizeof(struct kvmstatd_handoff_vm_gone);
    case KVMSTATD_HANDOFF_VCPU_GONE:
        return sizeof(struct kvmstatd_handoff_vcpu_gone);
    }
    return 0;
}

static bool is_ignorable(uint16_t type)
{
    return (type & 0xc000) == KVMSTATD_HANDOFF_IGNORABLE; /* and not an answer */
}

/* Which of these it is decides how the same bytes are to be taken; `bytes` need not be aligned. */
static void take_fixed_part(const char *bytes, struct handoff_message *message)
{
    union {
        struct kvmstatd_handoff_vm vm;
        struct kvmstatd_handoff_vcpu vcpu;
        struct kvmstatd_handoff_vm_gone vm_gone;
        struct kvmstatd_handoff_vcpu_gone vcpu_gone;
    } fixed;
    memcpy(&fixed, bytes, fixed_bytes(message->type));
    switch (message->type) {
    case KVMSTATD_HANDOFF_VM:
        message->vm = fixed.vm.vm;
        message->stats_fd = fixed.vm.stats_fd;
        message->vm_fd = fixed.vm.vm_fd;
        break;
    case KVMSTATD_HANDOFF_VCPU:
        message->vm = fixed.vcpu.vm;
        message->vcpu = fixed.vcpu.vcpu;
        message->stats_fd = fixed.vcpu.stats_fd;
        break;
    case KVMSTATD_HANDOFF_VM_GONE:
        message->vm = fixed.vm_gone.vm;
        break;
    case KVMSTATD_HANDOFF_VCPU_GONE:
        message->vm = fixed.vcpu_gone.vm;
        message->vcpu = fixed.vcpu_gone.vcpu;
        break;
    }
}

static bool is_hexadecimal(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool is_uuid(const char *text)
{
    for (size_t i = 0; i < KVMSTATD_HANDOFF_UUID_BYTES; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (dash ? text[i] != '-' : !is_hexadecimal(text[i]))
            return false;
    }
    return true;
}

/* Returns whether the attribute is as it must be; one that is not known always is. */
static bool take_attribute(uint16_t type, const char *value, size_t len,
                           struct handoff_message *message)
{
    if (message->type != KVMSTATD_HANDOFF_VM)
        return true;
    switch (type) {
    case KVMSTATD_HANDOFF_NAME:
        if (message->name[0] || len == 0 || len > KVMSTATD_HANDOFF_NAME_BYTES_MAX ||
            memchr(value, '\0', len))
            return false;
        memcpy(message->name, value, len);
        return true;
    case KVMSTATD_HANDOFF_UUID:
        if (message->uuid[0] || len != KVMSTATD_HANDOFF_UUID_BYTES || !is_uuid(value))
            return false;
        memcpy(message->uuid, value, len);
        return true;
    }
    return true;
}

/* The attributes fill the rest exactly. */
static bool take_attributes(const char *bytes, size_t len, struct handoff_message *message)
{
    while (len > 0) {
        struct kvmstatd_handoff_attribute attribute;
        if (len < sizeof attribute)
            return false;
        memcpy(&attribute, bytes, sizeof attribute);
        bytes += sizeof attribute;
        len -= sizeof attribute;
        if (attribute.length > len ||
            !take_attribute(attribute.type, bytes, attribute.length, message))
            return false;
        bytes += attribute.length;
        len -= attribute.length;
    }
    return true;
}

enum kvmstatd_handoff_reason handoff_message_parse(const void *bytes, size_t len,
                                                   struct handoff_message *ret_message)
{
    struct kvmstatd_handoff_header header;

    *ret_message = (struct handoff_message){.stats_fd = -1, .vm_fd = -1};
    if (len < sizeof header || len > KVMSTATD_HANDOFF_MESSAGE_BYTES_MAX)
        return KVMSTATD_HANDOFF_REASON_MALFORMED;
    memcpy(&header, bytes, sizeof header);
    if (header.magic != KVMSTATD_HANDOFF_MAGIC)
        return KVMSTATD_HANDOFF_REASON_MALFORMED;
    ret_message->type = header.type;
    ret_message->minor = header.minor;
    ret_message->serial = header.serial;
    if (header.major != KVMSTATD_HANDOFF_MAJOR)
        return KVMSTATD_HANDOFF_REASON_VERSION;
    if (header.length != len)
        return KVMSTATD_HANDOFF_REASON_MALFORMED;
    if (is_ignorable(header.type))
        return KVMSTATD_HANDOFF_REASON_NONE;
    size_t fixed = fixed_bytes(header.type);
    if (fixed == 0)
        return KVMSTATD_HANDOFF_REASON_TYPE;
    if (len < fixed)
        return KVMSTATD_HANDOFF_REASON_MALFORMED;
    take_fixed_part(bytes, ret_message);
    return take_attributes((const char *)bytes + fixed, len - fixed, ret_message)
               ? KVMSTATD_HANDOFF_REASON_NONE
               : KVMSTATD_HANDOFF_REASON_MALFORMED;
}
