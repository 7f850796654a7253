/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the last block begins and ends is not written anywhere: every code has to be walked. That
 * is less work than decompressing, since nothing is copied and a match of any length is one step.
 * It adds a third to libdeflate's fastest level (gzip.c has figures), which still makes three
 * quarters of zlib's.
 */
#include "splice.h"

#include <endian.h>
#include <stdbool.h>
#include <string.h>

enum {
    END_OF_BLOCK = 256,
    LITERALS_MAX = SPLICE_SYMBOLS_MAX,
    DISTANCES_MAX = 32,
    LENGTH_CODES_MAX = 19,
};

struct bits {
    const uint8_t *bytes;
    size_t len; /* bytes */
    size_t at;  /* bits; beyond the end are zeros */
};

/* The next bits, at least 57 of them. */
static inline uint64_t peek(const struct bits *bits)
{
    uint64_t word = 0;
    size_t byte = bits->at / 8;
    if (bits->len >= sizeof word && byte <= bits->len - sizeof word)
        memcpy(&word, bits->bytes + byte, sizeof word);
    else if (byte < bits->len)
        memcpy(&word, bits->bytes + byte, bits->len - byte);
    return le64toh(word) >> bits->at % 8;
}

/* At most 57. */
static unsigned take(struct bits *bits, unsigned n)
{
    unsigned value = (unsigned)(peek(bits) & ((UINT64_C(1) << n) - 1));
    bits->at += n;
    return value;
}

static inline bool overrun(const struct bits *bits)
{
    return bits->at > bits->len * 8;
}

/* Codes are packed beginning with their highest bit. */
static unsigned reverse(unsigned code, unsigned n)
{
    unsigned reversed = 0;
    for (; n; n--, code >>= 1)
        reversed = reversed << 1 | (code & 1);
    return reversed;
}

/* The canonical code of these lengths (RFC 1951, 3.2.2). */
static int code_make(struct splice_code *code, const uint8_t *lengths, size_t n)
{
    unsigned next[SPLICE_CODE_BITS + 2] = {0}, offset[SPLICE_CODE_BITS + 2] = {0};
    int left = 1; /* codes of this length that are not taken by shorter ones */
    *code = (struct splice_code){0};
    for (size_t i = 0; i < n; i++)
        code->counts[lengths[i]]++;
    code->counts[0] = 0;
    for (unsigned len = 1; len <= SPLICE_CODE_BITS; len++) {
        left = (left << 1) - code->counts[len];
        if (left < 0)
            return -EBADMSG;
        next[len + 1] = (next[len] + code->counts[len]) << 1;
        offset[len + 1] = offset[len] + code->counts[len];
    }
    for (size_t symbol = 0; symbol < n; symbol++) {
        unsigned len = lengths[symbol];
        if (len)
            code->symbols[offset[len]++] = (uint16_t)symbol;
        if (!len || len > SPLICE_FAST_BITS)
            continue;
        for (size_t i = reverse(next[len]++, len); i < ARRAY_LEN(code->fast); i += 1u << len)
            code->fast[i] = (uint16_t)(symbol << 4 | len);
    }
    return 0;
}

/* A code longer than the table knows, a bit at a time. */
static unsigned code_search(const struct splice_code *code, uint64_t bits)
{
    unsigned value = 0, first = 0, index = 0;
    for (unsigned len = 1; len <= SPLICE_CODE_BITS; len++, bits >>= 1) {
        unsigned count = code->counts[len];
        value |= bits & 1;
        if (value < first + count)
            return (unsigned)code->symbols[index + value - first] << 4 | len;
        index += count;
        first = (first + count) << 1;
        value <<= 1;
    }
    return 0;
}

/* The symbol that comes next << 4 | the length of its code; 0: there is no such code. */
static inline unsigned code_look(const struct splice_code *code, uint64_t bits)
{
    unsigned entry = code->fast[bits & (ARRAY_LEN(code->fast) - 1)];
    return entry ? entry : code_search(code, bits);
}

static int fixed_codes(struct splicer *splicer)
{
    uint8_t lengths[LITERALS_MAX + DISTANCES_MAX];
    memset(lengths, 8, 144);
    memset(lengths + 144, 9, 256 - 144);
    memset(lengths + 256, 7, 280 - 256);
    memset(lengths + 280, 8, LITERALS_MAX - 280);
    memset(lengths + LITERALS_MAX, 5, DISTANCES_MAX);
    int r = code_make(&splicer->literals, lengths, LITERALS_MAX);
    return r < 0 ? r : code_make(&splicer->distances, lengths + LITERALS_MAX, DISTANCES_MAX);
}

/* The code lengths of both codes, which are themselves compressed (3.2.7). */
static int read_lengths(struct splicer *splicer, struct bits *bits, uint8_t *lengths, size_t n)
{
    size_t done = 0;
    while (done < n) {
        unsigned entry = code_look(&splicer->distances, peek(bits));
        unsigned symbol = entry >> 4, times = 1;
        uint8_t value = 0;
        bits->at += entry & 15;
        if (!entry || overrun(bits))
            return -EBADMSG;
        if (symbol < 16) {
            value = (uint8_t)symbol;
        } else if (symbol == 16) {
            if (done == 0)
                return -EBADMSG;
            value = lengths[done - 1];
            times = 3 + take(bits, 2);
        } else if (symbol == 17) {
            times = 3 + take(bits, 3);
        } else {
            times = 11 + take(bits, 7);
        }
        if (times > n - done)
            return -EBADMSG;
        memset(lengths + done, value, times);
        done += times;
    }
    return 0;
}

static int dynamic_codes(struct splicer *splicer, struct bits *bits)
{
    static const uint8_t order[LENGTH_CODES_MAX] = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                                    11, 4,  12, 3, 13, 2, 14, 1, 15};
    uint8_t lengths[LITERALS_MAX + DISTANCES_MAX], length_lengths[LENGTH_CODES_MAX] = {0};
    size_t n_literals = 257 + take(bits, 5), n_distances = 1 + take(bits, 5);
    size_t n_lengths = 4 + take(bits, 4);
    if (n_literals > LITERALS_MAX)
        return -EBADMSG;
    for (size_t i = 0; i < n_lengths; i++)
        length_lengths[order[i]] = (uint8_t)take(bits, 3);
    int r = code_make(&splicer->distances, length_lengths, LENGTH_CODES_MAX);
    if (r == 0)
        r = read_lengths(splicer, bits, lengths, n_literals + n_distances);
    if (r == 0)
        r = code_make(&splicer->literals, lengths, n_literals);
    if (r == 0)
        r = code_make(&splicer->distances, lengths + n_literals, n_distances);
    return r;
}

/* To the end of a compressed block. */
static int walk_codes(const struct splicer *splicer, struct bits *bits)
{
    static const uint8_t extra[] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                    2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
    for (;;) {
        uint64_t next = peek(bits); /* enough for a whole match: 15 + 5 + 15 + 13 bits */
        unsigned entry = code_look(&splicer->literals, next);
        unsigned symbol = entry >> 4, used = entry & 15;
        if (!entry || overrun(bits))
            return -EBADMSG;
        if (symbol > END_OF_BLOCK) {
            size_t length = symbol - END_OF_BLOCK - 1;
            if (length >= ARRAY_LEN(extra))
                return -EBADMSG;
            used += extra[length];
            entry = code_look(&splicer->distances, next >> used);
            unsigned distance = entry >> 4;
            if (!entry || distance >= 30)
                return -EBADMSG;
            used += (entry & 15) + (distance < 4 ? 0 : distance / 2 - 1);
        }
        bits->at += used;
        if (symbol == END_OF_BLOCK)
            return overrun(bits) ? -EBADMSG : 0;
    }
}

static int walk_block(struct splicer *splicer, struct bits *bits, unsigned type)
{
    int r = -EBADMSG;
    if (type == 0) { /* stored: its length, its length inverted, from a full byte on */
        bits->at = (bits->at + 7) / 8 * 8;
        unsigned len = take(bits, 16), inverted = take(bits, 16);
        bits->at += (size_t)len * 8;
        return len == (inverted ^ 0xffff) && !overrun(bits) ? 0 : -EBADMSG;
    }
    if (type == 1)
        r = fixed_codes(splicer);
    else if (type == 2)
        r = dynamic_codes(splicer, bits);
    return r < 0 ? r : walk_codes(splicer, bits);
}

int splice_open_end(struct splicer *splicer, uint8_t *bytes, size_t len, size_t *ret_len)
{
    struct bits bits = {.bytes = bytes, .len = len};
    size_t header;
    bool last;
    do {
        header = bits.at;
        last = take(&bits, 1);
        int r = walk_block(splicer, &bits, take(&bits, 2));
        if (r < 0)
            return r;
    } while (!last);
    if ((bits.at + 7) / 8 != len || peek(&bits) != 0)
        return -EBADMSG; /* there is more, or the rest of the last byte is not empty */

    bytes[header / 8] &= (uint8_t) ~(1u << header % 8);
    /* A stored block of no bytes: three zero bits, zeros to a full byte, length and its inverse. */
    size_t end = (bits.at + 3 + 7) / 8;
    if (end > len)
        bytes[len] = 0;
    memcpy(bytes + end, "\x00\x00\xff\xff", 4);
    *ret_len = end + 4;
    return 0;
}
