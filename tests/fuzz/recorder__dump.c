/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A dump file of anybody's: it is refused, or all that can be done with it can be done. Checksums
 * are what a fuzzer cannot guess, so wrong ones are put right first: what is behind them is to be
 * reached.
 */
#include <libdeflate.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "dump_file.h"
#include "history.h"

enum {
    BEGIN_BYTES = 16,
    SECTION_BYTES = 16,
    VALUES_MAX = 1 << 20,
};

static void put_checksums(uint8_t *bytes, size_t size)
{
    size_t at = BEGIN_BYTES;
    while (size >= SECTION_BYTES && at <= size - SECTION_BYTES) {
        uint64_t len = get_u64(bytes + at + 8);
        if (len > size - at - SECTION_BYTES)
            return;
        uint32_t crc = libdeflate_crc32(0, bytes + at, 4);
        (void)put_u32(bytes + at + 4, libdeflate_crc32(crc, bytes + at + 8, 8 + (size_t)len));
        at += SECTION_BYTES + ((size_t)len + 7) / 8 * 8;
    }
}

static int take_piece(void *ctx, const char *bytes, size_t len)
{
    uint64_t *sum = ctx;
    for (size_t i = 0; i < len; i += 64)
        *sum += (uint8_t)bytes[i];
    return 0;
}

static void use_vm(const struct dump *dump, const struct dump_vm *vm)
{
    CLEANUP_REPLAY struct replay replay = {0};
    CLEANUP_HISTORY struct history history = {0};
    const struct history_query query = {.vcpu = HISTORY_VCPU_ALL, .since_ns = INT64_MIN};
    uint64_t sum = 0;
    if (replay_begin(&replay, &dump->schemas, vm->records, vm->len, vm->first_ns, VALUES_MAX) < 0 ||
        replay_seek_last(&replay) < 0 || history_collect(&replay, &query, VALUES_MAX, &history) < 0)
        return;
    for (unsigned format = HISTORY_JSON; format <= HISTORY_CSV; format++) {
        if (history_render(&history, dump_pair(&vm->about, "vm"),
                           dump_pair_i64(&dump->about, "wall_offset_ns"),
                           (enum history_format)format, take_piece, &sum) < 0)
            return;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP_DUMP struct dump dump = {0};
    CLEANUP_FREE uint8_t *bytes = malloc(size ? size : 1);
    struct dump_error error;
    if (!bytes)
        return 0;
    if (size)
        memcpy(bytes, data, size);
    put_checksums(bytes, size);
    if (dump_read(bytes, size, &dump, &error) < 0)
        return 0;
    for (size_t i = 0; i < dump.n_vms; i++)
        use_vm(&dump, &dump.vms[i]);
    return 0;
}
