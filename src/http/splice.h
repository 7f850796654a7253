/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Joins deflate streams (RFC 1951) that were compressed each by itself into one.
 *
 * A stream ends somewhere inside a byte with a block that says it is the last, so streams cannot
 * simply stand one after another; and gzip members, which can, are refused by libcurl (on purpose:
 * curl's issue 22156) and with it by `curl --compressed`, Zabbix and many others.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "cleanup.h"

enum {
    SPLICE_CODE_BITS = 15, /* of the longest code that deflate allows */
    SPLICE_FAST_BITS = 10, /* codes up to here are looked up; the rare longer ones searched for */
    SPLICE_SYMBOLS_MAX = 288,
    SPLICE_ROOM = 5, /* bytes that splice_open_end() may add */
};

/* A canonical Huffman code. */
struct splice_code {
    uint16_t fast[1 << SPLICE_FAST_BITS];  /* by the next bits: symbol << 4 | length, or 0 */
    uint16_t counts[SPLICE_CODE_BITS + 1]; /* codes of each length */
    uint16_t symbols[SPLICE_SYMBOLS_MAX];  /* by length, then by symbol */
};

/* Working memory. */
struct splicer {
    struct splice_code literals, distances;
};

/*
 * Makes the last block of the whole stream bytes[0 … len - 1] an ordinary one and fills up to a
 * full byte with an empty one, so that another stream can follow. There must be room for
 * SPLICE_ROOM bytes after it. Returns 0 and the new length, or -EBADMSG when it is not a whole
 * stream.
 */
MUST_USE int splice_open_end(struct splicer *splicer, uint8_t *bytes, size_t len, size_t *ret_len);
