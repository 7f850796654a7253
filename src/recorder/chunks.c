/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why a copy is never half of one thing and half of another, without a lock. Taking a chunk for
 * other bytes first raises its number; every word written afterwards is a release, every word read
 * an acquire. Who has read a word of the new bytes therefore finds the new number when it looks
 * again, and drops the chunk. Words are atomic, so this also holds for the language.
 */
#include "chunks.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

enum {
    NO_RECORD = UINT32_MAX, /* no record starts in this chunk */
};
#define NO_CHUNK UINT32_MAX

struct chunk_head {
    /* Read by anybody. */
    _Atomic uint32_t taken;        /* how often it was taken: the chunk's number */
    _Atomic uint32_t first_record; /* where the first record starts in it, bytes */
    _Atomic uint64_t start;        /* of its first byte in the recording; a multiple of 8 */
    _Atomic uint64_t older;        /* link to the one before; 0: it has gone, or there was none */
    _Atomic int64_t time_ns;       /* of its first record */
    /* THREADS: sampler only */
    uint32_t newer;  /* the next one, also among free ones */
    int64_t last_ns; /* time of the last record that starts in it */
};

static inline uint64_t link_to(uint32_t taken, uint32_t chunk)
{
    return (uint64_t)taken << 32 | chunk;
}

/* 64 bits also where addresses have 32: the configuration may ask for more than fits. */
static uint64_t bytes_of(uint64_t n)
{
    return n * (sizeof(struct chunk_head) + CHUNK_BYTES + sizeof(struct recording *)) +
           sizeof(struct recording *);
}

int chunks_init(struct chunks *chunks, uint64_t bytes)
{
    static _Atomic uint64_t numbers;
    uint64_t n = bytes / bytes_of(1);
    if (n == 0 || n >= NO_CHUNK || bytes_of(n) > SIZE_MAX)
        return -ENOMEM;
    size_t map_bytes = (size_t)bytes_of(n);
    uint8_t *map = mmap(NULL, map_bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED)
        return -ENOMEM;
    *chunks = (struct chunks){
        .map = map,
        .map_bytes = map_bytes,
        .n = (uint32_t)n,
        .free = NO_CHUNK,
        .n_free = (uint32_t)n,
        .number = atomic_fetch_add(&numbers, 1) + 1,
    };
    chunks->words = (_Atomic uint64_t *)(void *)map;
    chunks->heads = (struct chunk_head *)(void *)(map + n * CHUNK_BYTES);
    chunks->by_size = (struct recording **)(void *)(chunks->heads + n);
    return 0;
}

void chunks_deinit(struct chunks *chunks)
{
    if (chunks->map)
        (void)munmap(chunks->map, chunks->map_bytes);
    chunks->map = NULL;
}

/* --- who has how many --- */

/*
 * Sizes change by one but where a recording ends, so the largest is found again in a step: by then
 * the recording stands where it belongs.
 */
static void resize(struct chunks *chunks, struct recording *recording, uint32_t n_chunks)
{
    if (recording->at) {
        *recording->at = recording->next;
        if (recording->next)
            recording->next->at = recording->at;
        recording->at = NULL;
        recording->next = NULL;
    }
    recording->n_chunks = n_chunks;
    if (n_chunks) {
        struct recording **list = &chunks->by_size[n_chunks];
        recording->next = *list;
        recording->at = list;
        if (*list)
            (*list)->at = &recording->next;
        *list = recording;
        chunks->most = MAX_OF(chunks->most, n_chunks);
    }
    while (chunks->most && !chunks->by_size[chunks->most])
        chunks->most--;
}

/* --- chunks from hand to hand --- */

static uint32_t pop_free(struct chunks *chunks)
{
    uint32_t chunk = chunks->free;
    if (chunk == NO_CHUNK)
        chunk = chunks->fresh++;
    else
        chunks->free = chunks->heads[chunk].newer;
    chunks->n_free--;
    return chunk;
}

static void push_free(struct chunks *chunks, uint32_t first, uint32_t last, uint32_t n)
{
    if (n == 0)
        return;
    chunks->heads[last].newer = chunks->free;
    chunks->free = first;
    chunks->n_free += n;
}

static uint32_t newest_of(const struct recording *recording)
{
    return (uint32_t)atomic_load_explicit(&recording->newest, memory_order_relaxed);
}

/* Its oldest chunk is free afterwards. It has one. */
static void drop_oldest(struct chunks *chunks, struct recording *recording)
{
    uint32_t chunk = recording->oldest;
    recording->oldest = chunks->heads[chunk].newer;
    if (recording->n_chunks == 1)
        atomic_store_explicit(&recording->newest, 0, memory_order_release);
    resize(chunks, recording, recording->n_chunks - 1);
    push_free(chunks, chunk, chunk, 1);
}

/* Makes a chunk free. The newest one of `wants` is not taken. */
static int evict(struct chunks *chunks, struct recording *wants)
{
    struct recording *victim = chunks->most ? chunks->by_size[chunks->most] : NULL;
    if (wants->n_chunks > 1 && wants->n_chunks == chunks->most)
        victim = wants; /* its own past rather than that of an equal */
    else if (victim == wants)
        victim = wants->next; /* all have one, and this one is being written */
    if (!victim)
        return -ENOSPC;
    const struct chunk_head *head = &chunks->heads[victim->oldest];
    if (atomic_load_explicit(&head->first_record, memory_order_relaxed) != NO_RECORD)
        chunks->lost_ns = MAX_OF(chunks->lost_ns, head->last_ns);
    drop_oldest(chunks, victim);
    return 0;
}

/* Takes a free chunk for bytes of the recording from `start` on. */
static void take(struct chunks *chunks, struct recording *recording, uint64_t start)
{
    uint32_t chunk = pop_free(chunks);
    struct chunk_head *head = &chunks->heads[chunk];
    uint64_t older = atomic_load_explicit(&recording->newest, memory_order_relaxed);
    uint32_t taken = atomic_load_explicit(&head->taken, memory_order_relaxed) + 1;
    if (taken == 0)
        taken = 1; /* 0 and 0 would be no link */
    atomic_store_explicit(&head->taken, taken, memory_order_relaxed);
    atomic_store_explicit(&head->first_record, NO_RECORD, memory_order_release);
    atomic_store_explicit(&head->start, start, memory_order_release);
    atomic_store_explicit(&head->older, older, memory_order_release);
    head->newer = NO_CHUNK;
    if (recording->n_chunks)
        chunks->heads[newest_of(recording)].newer = chunk;
    else
        recording->oldest = chunk;
    atomic_store_explicit(&recording->newest, link_to(taken, chunk), memory_order_release);
    resize(chunks, recording, recording->n_chunks + 1);
}

/* --- writing --- */

/* How many bytes can be written before another chunk is needed. */
static size_t room_left(const struct chunks *chunks, const struct recording *recording,
                        uint64_t end)
{
    if (recording->n_chunks == 0)
        return 0;
    const struct chunk_head *head = &chunks->heads[newest_of(recording)];
    return (size_t)(atomic_load_explicit(&head->start, memory_order_relaxed) + CHUNK_BYTES - end);
}

/* Chunks for `len` more bytes, before the first of them is written: nothing is half there. */
static int make_room(struct chunks *chunks, struct recording *recording, uint64_t end, size_t len)
{
    size_t room = room_left(chunks, recording, end);
    if (room == 0)
        len += (size_t)(end % 8); /* the word that is not full goes along */
    size_t more = len > room ? (len - room + CHUNK_BYTES - 1) / CHUNK_BYTES : 0;
    if (more >= chunks->n)
        return -ENOSPC;
    while (chunks->n_free < more) {
        int r = evict(chunks, recording);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Words from `from` into the newest chunk, as many as fit. Returns how many. */
static size_t store_words(struct chunks *chunks, const struct recording *recording, uint64_t start,
                          const uint8_t *from, size_t n)
{
    uint32_t chunk = newest_of(recording);
    uint64_t chunk_start = atomic_load_explicit(&chunks->heads[chunk].start, memory_order_relaxed);
    size_t at = (size_t)(start - chunk_start) / 8;
    _Atomic uint64_t *words = chunks->words + (size_t)chunk * CHUNK_WORDS + at;
    n = MIN_OF(n, CHUNK_WORDS - at);
    for (size_t i = 0; i < n; i++) {
        uint64_t word;
        memcpy(&word, from + i * sizeof word, sizeof word);
        atomic_store_explicit(&words[i], word, memory_order_release);
    }
    return n;
}

static void note_record(struct chunks *chunks, const struct recording *recording, uint64_t start,
                        int64_t time_ns)
{
    struct chunk_head *head = &chunks->heads[newest_of(recording)];
    head->last_ns = time_ns;
    if (atomic_load_explicit(&head->first_record, memory_order_relaxed) != NO_RECORD)
        return;
    uint64_t chunk_start = atomic_load_explicit(&head->start, memory_order_relaxed);
    atomic_store_explicit(&head->time_ns, time_ns, memory_order_release);
    atomic_store_explicit(&head->first_record, (uint32_t)(start - chunk_start),
                          memory_order_release);
}

int chunks_append(struct chunks *chunks, struct recording *recording, uint8_t *record, size_t len,
                  int64_t time_ns)
{
    uint64_t end = atomic_load_explicit(&recording->end, memory_order_relaxed);
    int r = make_room(chunks, recording, end, len);
    if (r < 0)
        return r;
    /* Whole words only: the bytes of the last one, which was not full, stand in front again. */
    size_t in_tail = (size_t)(end % 8);
    uint8_t *from = record - in_tail;
    memcpy(from, &recording->tail, in_tail);
    memset(record + len, 0, 8);
    uint64_t start = end - in_tail;
    size_t words = (in_tail + len + 7) / 8, done = 0;
    if (room_left(chunks, recording, end) == 0)
        take(chunks, recording, start);
    note_record(chunks, recording, end, time_ns);
    for (;;) {
        done += store_words(chunks, recording, start + done * 8, from + done * 8, words - done);
        if (done == words)
            break;
        take(chunks, recording, start + done * 8);
    }
    memcpy(&recording->tail, from + (in_tail + len) / 8 * 8, 8);
    recording->time_ns = time_ns;
    atomic_store_explicit(&recording->end, end + len, memory_order_release);
    return 0;
}

static struct held_chunks detach(struct chunks *chunks, struct recording *recording)
{
    struct held_chunks held = {
        .first = recording->oldest,
        .last = newest_of(recording),
        .n = recording->n_chunks,
    };
    resize(chunks, recording, 0);
    return held;
}

void chunks_clear(struct chunks *chunks, struct recording *recording)
{
    struct held_chunks held = detach(chunks, recording);
    atomic_store_explicit(&recording->newest, 0, memory_order_release);
    chunks_give_back(chunks, &held);
}

struct held_chunks chunks_hold(struct chunks *chunks, struct recording *recording)
{
    return detach(chunks, recording);
}

void chunks_cut(struct chunks *chunks, struct recording *recording, uint32_t n_max)
{
    if (recording->n_chunks <= n_max)
        return;
    uint32_t n = recording->n_chunks - n_max, first = recording->oldest, last = first;
    for (uint32_t i = 1; i < n; i++)
        last = chunks->heads[last].newer;
    recording->oldest = chunks->heads[last].newer;
    resize(chunks, recording, n_max);
    push_free(chunks, first, last, n);
}

void chunks_give_back(struct chunks *chunks, const struct held_chunks *held)
{
    push_free(chunks, held->first, held->last, held->n);
}

/* --- copying --- */

void excerpt_free(struct excerpt *excerpt)
{
    free(excerpt->bytes);
    *excerpt = (struct excerpt){0};
}

struct chunk_view {
    uint64_t start, older;
    uint32_t chunk, taken, first_record;
    int64_t time_ns;
};

static bool still_taken(const struct chunks *chunks, const struct chunk_view *view)
{
    return atomic_load_explicit(&chunks->heads[view->chunk].taken, memory_order_acquire) ==
           view->taken;
}

/* False: the link leads nowhere any more. */
static bool look_at(const struct chunks *chunks, uint64_t link, struct chunk_view *ret_view)
{
    struct chunk_view view = {.chunk = (uint32_t)link, .taken = (uint32_t)(link >> 32)};
    if (!link || view.chunk >= chunks->n || !still_taken(chunks, &view))
        return false;
    const struct chunk_head *head = &chunks->heads[view.chunk];
    view.first_record = atomic_load_explicit(&head->first_record, memory_order_acquire);
    view.time_ns = atomic_load_explicit(&head->time_ns, memory_order_acquire);
    view.start = atomic_load_explicit(&head->start, memory_order_acquire);
    view.older = atomic_load_explicit(&head->older, memory_order_acquire);
    *ret_view = view;
    return still_taken(chunks, &view);
}

/* How far back there is anything of interest: where the oldest chunk to be copied starts. */
static uint64_t find_start(const struct chunks *chunks, uint64_t newest, uint64_t end,
                           int64_t since_ns)
{
    struct chunk_view view;
    uint64_t start = end;
    for (uint32_t i = 0; i < chunks->n && look_at(chunks, newest, &view); i++) {
        if (view.start < start)
            start = view.start;
        if (view.first_record != NO_RECORD && view.start < end && view.time_ns < since_ns)
            break;
        newest = view.older;
    }
    return start;
}

static void copy_words(const struct chunks *chunks, const struct chunk_view *view, uint8_t *to,
                       size_t bytes)
{
    const _Atomic uint64_t *words = chunks->words + (size_t)view->chunk * CHUNK_WORDS;
    for (size_t i = 0; i * 8 < bytes; i++) {
        uint64_t word = atomic_load_explicit(&words[i], memory_order_acquire);
        memcpy(to + i * 8, &word, MIN_OF(sizeof word, bytes - i * 8));
    }
}

/* From the newest back, as the oldest are the next to go. Returns where what was copied starts. */
static uint64_t copy_back(const struct chunks *chunks, uint64_t link, uint64_t start, uint64_t end,
                          struct excerpt *excerpt)
{
    struct chunk_view view;
    uint64_t copied = end;
    while (copied > start && look_at(chunks, link, &view)) {
        link = view.older;
        if (view.start >= end)
            continue; /* it came after `end` was read */
        if (view.start < start || MIN_OF(view.start + CHUNK_BYTES, end) != copied)
            break;
        copy_words(chunks, &view, excerpt->bytes + (view.start - start),
                   (size_t)(copied - view.start));
        if (!still_taken(chunks, &view))
            break;
        copied = view.start;
        if (view.first_record != NO_RECORD && view.start + view.first_record < end) {
            excerpt->first = (size_t)(view.start + view.first_record - start);
            excerpt->first_ns = view.time_ns;
        }
    }
    return copied;
}

int chunks_copy(const struct chunks *chunks, const struct recording *recording, int64_t since_ns,
                struct excerpt *ret_excerpt)
{
    *ret_excerpt = (struct excerpt){0};
    if (atomic_load(&recording->recorder) != chunks->number)
        return 0;
    uint64_t end = atomic_load_explicit(&recording->end, memory_order_acquire);
    uint64_t newest = atomic_load_explicit(&recording->newest, memory_order_acquire);
    uint64_t start = find_start(chunks, newest, end, since_ns);
    if (start == end || end - start > (uint64_t)chunks->n * CHUNK_BYTES)
        return 0;
    size_t len = (size_t)(end - start);
    CLEANUP_EXCERPT struct excerpt excerpt = {.bytes = malloc(len), .len = len, .first = len};
    if (!excerpt.bytes)
        return -ENOMEM;
    (void)copy_back(chunks, newest, start, end, &excerpt);
    if (excerpt.first == len || atomic_load(&recording->recorder) != chunks->number)
        return 0;
    *ret_excerpt = excerpt;
    excerpt.bytes = NULL;
    return 0;
}
