/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FNV-1a, 64 bits: whether bytes are the same as before, where nobody gains by making others that
 * look the same. With a secret to begin with also a hash.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define DIGEST_INIT UINT64_C(0xcbf29ce484222325)

static inline uint64_t digest_add(uint64_t digest, const void *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        digest = (digest ^ ((const unsigned char *)bytes)[i]) * UINT64_C(0x100000001b3);
    return digest;
}
