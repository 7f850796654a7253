/* SPDX-License-Identifier: Apache-2.0 */
#include "oracle.h"

#include <stdlib.h>
#include <string.h>

typedef int64_t wide; /* no sum or product of values within the limits is near its end */

struct interval {
    wide start, end;
};

enum {
    LIMIT_NAME = 4096,
    LIMIT_DESCS = 65536,
    LIMIT_FILE = 16 << 20,
    LIMIT_EXPONENT = 256,
};

static wide u32_at(const uint8_t *p)
{
    uint32_t value;
    memcpy(&value, p, sizeof value);
    return value;
}

static wide u16_at(const uint8_t *p)
{
    uint16_t value;
    memcpy(&value, p, sizeof value);
    return value;
}

static bool apart(const struct interval *intervals, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n; j++) {
            const struct interval *a = &intervals[i], *b = &intervals[j];
            if (i != j && a->start < a->end && b->start < b->end && a->start < b->end &&
                b->start < a->end)
                return false;
        }
    }
    return true;
}

static bool exponent_goes_with(wide type, wide unit, wide base, int exponent)
{
    if (type > 4 || unit > 4 || base > 1)
        return true;
    if (exponent > LIMIT_EXPONENT || exponent < -LIMIT_EXPONENT)
        return false;
    if (unit == 2)
        return exponent <= 0;
    if (unit == 4)
        return exponent == 0;
    return exponent >= 0;
}

static bool desc_is_sound(const uint8_t *p, wide name_size, struct interval *data)
{
    wide flags = u32_at(p), size = u16_at(p + 6), offset = u32_at(p + 8);
    int16_t exponent;
    memcpy(&exponent, p + 4, sizeof exponent);
    *data = (struct interval){offset, offset + size * 8};
    if (!memchr(p + 16, 0, (size_t)name_size) || p[16] == 0)
        return false;
    if (size == 0 || (flags % 16 == 3 && u32_at(p + 12) == 0))
        return false;
    return exponent_goes_with(flags % 16, flags / 16 % 16, flags / 256 % 16, exponent);
}

bool oracle_accepts(const uint8_t *bytes, size_t len)
{
    if (len < 24)
        return false;
    wide name_size = u32_at(bytes + 4), n = u32_at(bytes + 8), id = u32_at(bytes + 12);
    wide descs = u32_at(bytes + 16), data = u32_at(bytes + 20), data_bytes = 0;
    if (name_size == 0 || name_size > LIMIT_NAME || n > LIMIT_DESCS)
        return false;
    wide descs_bytes = n * (16 + name_size);
    if (id + name_size > (wide)len || (n && descs + descs_bytes > (wide)len))
        return false;
    const uint8_t *id_text = bytes + (size_t)id;
    if (name_size < 4 || memcmp(id_text, "kvm", 3) != 0 || !memchr(id_text, 0, (size_t)name_size))
        return false;

    struct interval *each = calloc((size_t)n + 1, sizeof *each);
    bool sound = each != NULL;
    for (wide i = 0; sound && i < n; i++) {
        const uint8_t *desc = bytes + (size_t)(descs + i * (16 + name_size));
        sound = desc_is_sound(desc, name_size, &each[i]);
        data_bytes = each[i].end > data_bytes ? each[i].end : data_bytes;
    }
    sound = sound && apart(each, (size_t)n);
    free(each);

    struct interval blocks[] = {
        {0, 24}, {id, id + name_size}, {descs, descs + descs_bytes}, {data, data + data_bytes}};
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++)
        sound = sound && (blocks[i].start == blocks[i].end || blocks[i].end <= LIMIT_FILE);
    return sound && apart(blocks, sizeof blocks / sizeof blocks[0]);
}
