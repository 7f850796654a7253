/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sample is known again by its target and by when it was taken, to the nanosecond of the daemon's
 * monotonic clock. What its line says is the wall clock's time: that of samples that have long been
 * printed moves, too, when the clock is set.
 */
#include "samples.h"

#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "history.h"
#include "stop.h"

enum {
    TARGETS_MAX = 1 << 17,
};

void source_free(struct source *source)
{
    free(source->label);
    free(source->targets);
}

int samples_grow(void *pp, size_t *capacity, size_t n, size_t size)
{
    void **array = pp;
    if (n < *capacity)
        return 0;
    size_t more = *capacity ? *capacity * 2 : 16;
    void *moved = realloc(*array, more * size);
    if (!moved)
        return -ENOMEM;
    *array = moved;
    *capacity = more;
    return 0;
}

static struct printed *find_target(struct source *source, int32_t vcpu)
{
    for (size_t i = source->n_targets; i > 0; i--) { /* it mostly is the one found before */
        if (source->targets[i - 1].vcpu == vcpu)
            return &source->targets[i - 1];
    }
    if (source->n_targets >= TARGETS_MAX ||
        samples_grow(&source->targets, &source->capacity, source->n_targets,
                     sizeof *source->targets) < 0)
        return NULL;
    struct printed *target = &source->targets[source->n_targets++];
    *target = (struct printed){vcpu, INT64_MIN, INT64_MAX, INT64_MIN};
    return target;
}

/* --- lines --- */

/* The end of a record that begins here, behind its newline; NULL: there is none. */
static const char *record_end(const char *p, const char *end)
{
    bool quoted = false;
    for (; p < end; p++) {
        if (*p == '"')
            quoted = !quoted;
        else if (*p == '\n' && !quoted)
            return p + 1;
    }
    return NULL;
}

/* The field after the next comma that is none of a text. */
static const char *next_field(const char *p, const char *end)
{
    bool quoted = false;
    for (; p < end; p++) {
        if (*p == '"')
            quoted = !quoted;
        else if (*p == ',' && !quoted)
            return p + 1;
    }
    return NULL;
}

static bool parse_digits(const char **p, const char *end, int64_t max, int64_t *ret)
{
    const char *begin = *p;
    int64_t value = 0;
    for (; *p < end && **p >= '0' && **p <= '9'; (*p)++) {
        if (value > (max - 9) / 10)
            return false;
        value = value * 10 + (**p - '0');
    }
    *ret = value;
    return *p > begin;
}

/* "vm,1763680695.123456789,0,exits,…": the time and the vCPU. */
static bool parse_record(const char *record, const char *end, int64_t *ret_ns, int32_t *ret_vcpu)
{
    int64_t s, ns, vcpu = -1;
    const char *p = next_field(record, end);
    if (!p || !parse_digits(&p, end, INT64_MAX / NSEC_PER_SEC - 1, &s) || p == end || *p++ != '.')
        return false;
    const char *fraction = p;
    if (!parse_digits(&p, end, NSEC_PER_SEC + 9, &ns) || p - fraction != 9 || p == end ||
        *p++ != ',' || p == end)
        return false;
    if (*p != ',' && (!parse_digits(&p, end, INT32_MAX, &vcpu) || p == end || *p != ','))
        return false;
    *ret_ns = s * NSEC_PER_SEC + ns;
    *ret_vcpu = (int32_t)vcpu;
    return true;
}

/* A line, with its newline. */
struct record {
    const char *text;
    size_t len;
    int64_t time_ns; /* monotonic */
};

/* Calls for each record; a broken one ends it. */
typedef int record_fn(void *ctx, struct printed *target, const struct record *record);
static int each_record(const struct client *client, struct source *source, record_fn *fn, void *ctx)
{
    const struct buffer *body = &client->body;
    const char *p = body->data, *end = p + body->len;
    struct printed *target = NULL;
    const char *next = body->len ? record_end(p, end) : NULL; /* the head */
    if (!next || !body->len || memcmp(p, "vm,time,vcpu,stat,", MIN_OF(18, body->len)) != 0)
        return -EBADMSG;
    for (p = next; p < end; p = next) {
        int64_t wall_ns;
        int32_t vcpu;
        next = record_end(p, end);
        if (!next || !parse_record(p, next, &wall_ns, &vcpu))
            return -EBADMSG;
        if (!target || target->vcpu != vcpu)
            target = find_target(source, vcpu);
        if (!target)
            return -ENOMEM;
        const struct record record = {
            .text = p,
            .len = (size_t)(next - p),
            .time_ns = clock_since_ns(client->recording.wall_offset_ns, wall_ns),
        };
        int r = fn(ctx, target, &record);
        if (r < 0)
            return r;
    }
    return 0;
}

static int note_times(void *ctx, struct printed *target, const struct record *record)
{
    (void)ctx;
    target->oldest_ns = MIN_OF(target->oldest_ns, record->time_ns);
    target->newest_ns = MAX_OF(target->newest_ns, record->time_ns);
    return 0;
}

/* Returns -EPIPE (nobody reads any more), -EINTR (asked to end), or -EIO, which is to be said. */
static int write_failed(struct client *client)
{
    if (errno == EPIPE)
        return -EPIPE;
    if (errno == EINTR && stop_asked)
        return -EINTR;
    (void)snprintf(client->message, sizeof client->message, "standard output: %s", strerror(errno));
    return -EIO;
}

struct printing {
    struct client *client;
    int32_t vcpu;
};

static int print_new(void *ctx, struct printed *target, const struct record *record)
{
    const struct printing *printing = ctx;
    if (record->time_ns <= target->last_ns ||
        (printing->vcpu != SAMPLES_ALL && printing->vcpu != target->vcpu))
        return 0;
    return fwrite(record->text, 1, record->len, stdout) == record->len
               ? 0
               : write_failed(printing->client);
}

static int not_understood(struct client *client, const struct source *source, int r)
{
    if (r == -EBADMSG || r == -ENOMEM)
        (void)snprintf(client->message, sizeof client->message, "%s: %s", source->label,
                       r == -EBADMSG ? "its samples are not what kvmstatd gives" : "no memory");
    return r;
}

static void forget_times(struct source *source)
{
    for (size_t i = 0; i < source->n_targets; i++) {
        source->targets[i].oldest_ns = INT64_MAX;
        source->targets[i].newest_ns = INT64_MIN;
    }
}

/*
 * The newest reading is asked for again each time. Where it is older than what was printed, the
 * host was started anew: then all are new.
 */
static void notice_restart(struct source *source)
{
    for (size_t i = 0; i < source->n_targets; i++) {
        struct printed *target = &source->targets[i];
        if (target->newest_ns != INT64_MIN && target->newest_ns < target->last_ns)
            target->last_ns = INT64_MIN;
    }
}

int samples_print(struct client *client, struct source *source, int32_t vcpu, bool *headed)
{
    struct printing printing = {client, vcpu};
    forget_times(source);
    int r = each_record(client, source, note_times, NULL);
    if (r < 0)
        return not_understood(client, source, r);
    notice_restart(source);
    if (!*headed)
        fputs(history_csv_head, stdout);
    *headed = true;
    r = each_record(client, source, print_new, &printing);
    if (r < 0)
        return not_understood(client, source, r);
    for (size_t i = 0; i < source->n_targets; i++) {
        struct printed *target = &source->targets[i];
        if (vcpu == SAMPLES_ALL || vcpu == target->vcpu)
            target->last_ns = MAX_OF(target->last_ns, target->newest_ns);
    }
    /* Whole lines, as soon as they have come. */
    return fflush(stdout) == 0 ? 0 : write_failed(client);
}

struct noting {
    struct buffer *own_stats;
    int64_t time_ns; /* of the VM's own sample whose names are noted; INT64_MIN: none yet */
};

static int note_stat(void *ctx, struct printed *target, const struct record *record)
{
    struct noting *noting = ctx;
    const char *end = record->text + record->len;
    if (target->vcpu != SAMPLES_OWN ||
        (noting->time_ns != INT64_MIN && noting->time_ns != record->time_ns))
        return 0;
    noting->time_ns = record->time_ns;
    const char *name = next_field(record->text, end);
    for (int field = 1; name && field < 3; field++)
        name = next_field(name, end);
    const char *behind = name ? next_field(name, end) : NULL;
    if (!behind)
        return -EBADMSG;
    if (noting->own_stats->len)
        buffer_puts(noting->own_stats, ",");
    buffer_put(noting->own_stats, name, (size_t)(behind - 1 - name));
    return noting->own_stats->error;
}

int samples_note(struct client *client, struct source *source, struct buffer *own_stats)
{
    struct noting noting = {own_stats, INT64_MIN};
    return not_understood(client, source, each_record(client, source, note_stat, &noting));
}
