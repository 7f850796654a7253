/* SPDX-License-Identifier: Apache-2.0 */
#include "protobuf.h"

#include <inttypes.h>
#include <stdio.h>

#include "kvmstats/kvmstats.h"

double pb_scaled(uint64_t raw, uint8_t base, int16_t exponent)
{
    char text[PB_VARINT_MAX * 3 + 8];
    if (exponent == 0 || exponent > KVMSTATS_MAX_EXPONENT || exponent < -KVMSTATS_MAX_EXPONENT)
        return (double)raw;
    switch (base) {
    case KVMSTATS_BASE_POW2: /* the conversion rounds, and a power of two then changes no digit */
        return (double)raw * pb_power_of_2(exponent);
    case KVMSTATS_BASE_POW10:
        /* The C library rounds right. No decimal point, so that no locale has a say in it. */
        (void)snprintf(text, sizeof text, "%" PRIu64 "e%d", raw, exponent);
        return strtod(text, NULL);
    }
    return (double)raw;
}

static size_t text_field_bytes(size_t len)
{
    return 1 + pb_varint_bytes(len) + len;
}

static char *put_text_field(char *to, int tag, const char *text, size_t len)
{
    return mempcpy(pb_put_field(to, tag, len), text, len);
}

static size_t label_body_bytes(const char *name, const char *value)
{
    return text_field_bytes(strlen(name)) + text_field_bytes(strlen(value));
}

size_t pb_label_bytes(const char *name, const char *value)
{
    return text_field_bytes(label_body_bytes(name, value));
}

char *pb_put_label(char *to, const char *name, const char *value)
{
    to = pb_put_field(to, PB_METRIC_LABEL, label_body_bytes(name, value));
    to = put_text_field(to, PB_LABEL_NAME, name, strlen(name));
    return put_text_field(to, PB_LABEL_VALUE, value, strlen(value));
}

size_t pb_head_bytes(const struct pb_head *head)
{
    return text_field_bytes(strlen(head->name) + strlen(head->suffix)) +
           text_field_bytes(strlen(head->help)) + 2 +
           (head->unit ? text_field_bytes(strlen(head->unit)) : 0);
}

char *pb_put_head(char *to, const struct pb_head *head)
{
    to = pb_put_field(to, PB_FAMILY_NAME, strlen(head->name) + strlen(head->suffix));
    to = mempcpy(to, head->name, strlen(head->name));
    to = mempcpy(to, head->suffix, strlen(head->suffix));
    to = put_text_field(to, PB_FAMILY_HELP, head->help, strlen(head->help));
    to = pb_put_field(to, PB_FAMILY_TYPE, (uint64_t)head->type);
    return head->unit ? put_text_field(to, PB_FAMILY_UNIT, head->unit, strlen(head->unit)) : to;
}

void pb_begin_family(struct writer *w, struct snippet head, size_t metrics_bytes)
{
    if (!writer_room(w, PB_VARINT_MAX + head.len))
        return;
    char *to = pb_put_varint(w->at, head.len + metrics_bytes);
    w->at = mempcpy(to, head.bytes, head.len);
}
