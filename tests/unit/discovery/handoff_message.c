/* SPDX-License-Identifier: Apache-2.0 */
#include "handoff_message.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "suites.h"

#define UUID "5d1f0a5e-3b7c-4a35-9c8e-0f1f5a6f7b21"

/* The layout is a promise to other languages. */
_Static_assert(sizeof(struct kvmstatd_handoff_header) == 16, "header");
_Static_assert(sizeof(struct kvmstatd_handoff_hello) == 16, "HELLO");
_Static_assert(sizeof(struct kvmstatd_handoff_vm) == 32, "VM");
_Static_assert(offsetof(struct kvmstatd_handoff_vm, vm_fd) == 28, "VM");
_Static_assert(sizeof(struct kvmstatd_handoff_vcpu) == 32, "VCPU");
_Static_assert(offsetof(struct kvmstatd_handoff_vcpu, vcpu) == 24, "VCPU");
_Static_assert(sizeof(struct kvmstatd_handoff_vm_gone) == 24, "VM_GONE");
_Static_assert(sizeof(struct kvmstatd_handoff_vcpu_gone) == 32, "VCPU_GONE");
_Static_assert(sizeof(struct kvmstatd_handoff_welcome) == 24, "WELCOME");
_Static_assert(sizeof(struct kvmstatd_handoff_refused) == 24, "REFUSED");
_Static_assert(sizeof(struct kvmstatd_handoff_attribute) == 4, "attribute");

/* A message as bytes: header and fixed part, then attributes. */
static size_t build(char *to, uint16_t type, size_t fixed, const char *attributes, size_t len)
{
    struct kvmstatd_handoff_header header = {
        .magic = KVMSTATD_HANDOFF_MAGIC,
        .major = KVMSTATD_HANDOFF_MAJOR,
        .minor = 3,
        .type = type,
        .length = (uint32_t)(fixed + len),
        .serial = 99,
    };
    memset(to, 0x11, fixed);
    memcpy(to, &header, sizeof header);
    memcpy(to + fixed, attributes, len);
    return fixed + len;
}

static size_t put(char *to, uint16_t type, const char *value, size_t len)
{
    const struct kvmstatd_handoff_attribute attribute = {type, (uint16_t)len};
    memcpy(to, &attribute, sizeof attribute);
    memcpy(to + sizeof attribute, value, len);
    return sizeof attribute + len;
}

START_TEST(whole_messages)
{
    char bytes[256];
    struct handoff_message message;
    size_t len = build(bytes, KVMSTATD_HANDOFF_VM, sizeof(struct kvmstatd_handoff_vm), "", 0);
    ck_assert_int_eq(handoff_message_parse(bytes, len, &message), 0);
    ck_assert_uint_eq(message.type, KVMSTATD_HANDOFF_VM);
    ck_assert_uint_eq(message.serial, 99);
    ck_assert_uint_eq(message.minor, 3);
    ck_assert_uint_eq(message.vm, UINT64_C(0x1111111111111111));
    ck_assert_int_eq(message.stats_fd, 0x11111111);
    ck_assert_int_eq(message.vm_fd, 0x11111111);
    ck_assert_str_eq(message.name, "");

    len = build(bytes, KVMSTATD_HANDOFF_VCPU, sizeof(struct kvmstatd_handoff_vcpu), "", 0);
    ck_assert_int_eq(handoff_message_parse(bytes, len, &message), 0);
    ck_assert_uint_eq(message.vcpu, 0x11111111);
    ck_assert_int_eq(message.stats_fd, 0x11111111);
    ck_assert_int_eq(message.vm_fd, -1);

    len = build(bytes, KVMSTATD_HANDOFF_VM_GONE, sizeof(struct kvmstatd_handoff_vm_gone), "", 0);
    ck_assert_int_eq(handoff_message_parse(bytes, len, &message), 0);
    ck_assert_uint_eq(message.vm, UINT64_C(0x1111111111111111));
    ck_assert_uint_eq(message.vcpu, 0);
}
END_TEST

START_TEST(attributes)
{
    char bytes[2048], values[1536], name[KVMSTATD_HANDOFF_NAME_BYTES_MAX + 1];
    struct handoff_message message;
    const size_t fixed = sizeof(struct kvmstatd_handoff_vm);
    memset(name, 'n', sizeof name);

    size_t n = put(values, 300, "\0what?", 6);
    n += put(values + n, KVMSTATD_HANDOFF_UUID, UUID, strlen(UUID));
    n += put(values + n, 0, "", 0);
    n += put(values + n, KVMSTATD_HANDOFF_NAME, name, KVMSTATD_HANDOFF_NAME_BYTES_MAX);
    size_t len = build(bytes, KVMSTATD_HANDOFF_VM, fixed, values, n);
    ck_assert_int_eq(handoff_message_parse(bytes, len, &message), 0);
    ck_assert_str_eq(message.uuid, UUID);
    ck_assert_uint_eq(strlen(message.name), KVMSTATD_HANDOFF_NAME_BYTES_MAX);

    static const struct {
        uint16_t type;
        const char *value;
        size_t len;
    } bad[] = {
        {KVMSTATD_HANDOFF_NAME, "", 0},
        {KVMSTATD_HANDOFF_NAME, "a\0b", 3},
        {KVMSTATD_HANDOFF_NAME, NULL, KVMSTATD_HANDOFF_NAME_BYTES_MAX + 1},
        {KVMSTATD_HANDOFF_UUID, "", 0},
        {KVMSTATD_HANDOFF_UUID, UUID, 35},
        {KVMSTATD_HANDOFF_UUID, UUID "0", 37},
        {KVMSTATD_HANDOFF_UUID, "5d1f0a5e-3b7c-4a35-9c8e-0f1f5a6f7b2g", 36},
        {KVMSTATD_HANDOFF_UUID, "5d1f0a5e03b7c-4a35-9c8e-0f1f5a6f7b21", 36},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        n = put(values, bad[i].type, bad[i].value ? bad[i].value : name, bad[i].len);
        len = build(bytes, KVMSTATD_HANDOFF_VM, fixed, values, n);
        ck_assert_int_eq(handoff_message_parse(bytes, len, &message),
                         KVMSTATD_HANDOFF_REASON_MALFORMED);
        /* Of another type's message it is none that is known. */
        len = build(bytes, KVMSTATD_HANDOFF_VCPU, sizeof(struct kvmstatd_handoff_vcpu), values, n);
        ck_assert_int_eq(handoff_message_parse(bytes, len, &message), 0);
    }
    n = put(values, KVMSTATD_HANDOFF_NAME, "a", 1);
    n += put(values + n, KVMSTATD_HANDOFF_NAME, "b", 1);
    len = build(bytes, KVMSTATD_HANDOFF_VM, fixed, values, n);
    ck_assert_int_eq(handoff_message_parse(bytes, len, &message),
                     KVMSTATD_HANDOFF_REASON_MALFORMED);
}
END_TEST

START_TEST(headers)
{
    char bytes[64];
    struct handoff_message message;
    struct kvmstatd_handoff_header header;
    size_t len = build(bytes, KVMSTATD_HANDOFF_HELLO, sizeof header, "", 0);
    ck_assert_int_eq(handoff_message_parse(bytes, len, &message), 0);
    ck_assert_int_eq(handoff_message_parse(bytes, len - 1, &message),
                     KVMSTATD_HANDOFF_REASON_MALFORMED);
    ck_assert_uint_eq(message.serial, 0);

    memcpy(&header, bytes, sizeof header);
    header.magic = __builtin_bswap32(header.magic); /* the other byte order */
    memcpy(bytes, &header, sizeof header);
    ck_assert_int_eq(handoff_message_parse(bytes, len, &message),
                     KVMSTATD_HANDOFF_REASON_MALFORMED);

    header.magic = KVMSTATD_HANDOFF_MAGIC;
    header.length++;
    memcpy(bytes, &header, sizeof header);
    ck_assert_int_eq(handoff_message_parse(bytes, len, &message),
                     KVMSTATD_HANDOFF_REASON_MALFORMED);
    /* A version that is not ours may mean anything by its length, and its serial is answered. */
    header.major++;
    memcpy(bytes, &header, sizeof header);
    ck_assert_int_eq(handoff_message_parse(bytes, len, &message), KVMSTATD_HANDOFF_REASON_VERSION);
    ck_assert_uint_eq(message.serial, 99);
}
END_TEST

START_TEST(types)
{
    char bytes[64];
    struct handoff_message message;
    for (unsigned type = 0; type <= UINT16_MAX; type++) {
        /* Long enough for each of them, the rest being one empty attribute after another. */
        size_t len = build(bytes, (uint16_t)type, 32, "\0\0\0\0", 4);
        memset(bytes + 16, 0, 20);
        int reason = handoff_message_parse(bytes, len, &message);
        bool known = type >= KVMSTATD_HANDOFF_HELLO && type <= KVMSTATD_HANDOFF_VCPU_GONE;
        bool ignored = type >= 0x4000 && type <= 0x7fff;
        ck_assert_int_eq(reason, known || ignored ? 0 : KVMSTATD_HANDOFF_REASON_TYPE);
        ck_assert_uint_eq(message.type, type);
    }
}
END_TEST

Suite *suite_handoff_message(void)
{
    Suite *suite = suite_create("handoff_message");
    TCase *tcase = tcase_create("handoff_message");
    tcase_add_test(tcase, whole_messages);
    tcase_add_test(tcase, attributes);
    tcase_add_test(tcase, headers);
    tcase_add_test(tcase, types);
    suite_add_tcase(suite, tcase);
    return suite;
}
