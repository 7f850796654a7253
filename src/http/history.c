/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /api/v1/history. The VM's newest frame is pinned until its values are copied, which is where the
 * recording is then gone back from; the rest is the request's own.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "answer.h"
#include "clock.h"
#include "history.h"
#include "recorder.h"
#include "view.h"

enum {
    /*
     * 128 MiB while an answer is made, and one is made at a time: a minute of ten ticks a second of
     * all statistics of 180 vCPUs. Besides these it takes a copy of the VM's recording, and for
     * each tick as much as for two values.
     */
    VALUES_MAX = 16 << 20,
    TICKS_MAX = VALUES_MAX / 2,
    /* What it comes to as text, before it is compressed: half of what all answers may hold. */
    ANSWER_MIB_MAX = QUOTA_ANSWERS_MIB / 2,
    MESSAGE_BYTES = 512,
};
#define LAST_DEFAULT_NS (60 * NSEC_PER_SEC)
#define NARROW          "name statistics (stat=), a vCPU (vcpu=) or a shorter time (last=)"

/* What the client should know: the status and a sentence. */
struct refusal {
    unsigned status;
    char message[MESSAGE_BYTES];
};

PRINTF_LIKE(3, 4)
static int refuse(struct refusal *refusal, unsigned status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(refusal->message, sizeof refusal->message, format, args);
    va_end(args);
    refusal->status = status;
    return -EINVAL;
}

struct wanted {
    const char *vm;
    enum history_format format;
    struct history_query query;
    int64_t wall_offset_ns; /* the recorder's */
    uint64_t vm_id;
};

static int parse_vcpu(const char *text, int32_t *ret_vcpu, struct refusal *refusal)
{
    char *end;
    errno = 0;
    long vcpu = strtol(text, &end, 10);
    if (errno || end == text || *end || vcpu < 0 || vcpu > INT32_MAX)
        return refuse(refusal, 400, "vcpu: %.64s: wants the number of a vCPU", text);
    *ret_vcpu = (int32_t)vcpu;
    return 0;
}

static int parse(const struct request *request, struct wanted *ret_wanted, struct refusal *refusal)
{
    const char *vcpu = request_argument(request, "vcpu");
    const char *last = request_argument(request, "last");
    const char *format = request_argument(request, "format");
    int64_t last_ns = LAST_DEFAULT_NS;
    struct wanted wanted = {
        .vm = request_argument(request, "vm"),
        .format = HISTORY_JSON,
        .query = {.stats = request_argument(request, "stat"), .vcpu = HISTORY_VCPU_ALL},
    };
    if (!wanted.vm || !wanted.vm[0])
        return refuse(refusal, 400, "vm: wants the label of a VM, as in /metrics");
    if (wanted.query.stats && !wanted.query.stats[0])
        wanted.query.stats = NULL;
    if (format && !history_format_parse(format, &wanted.format))
        return refuse(refusal, 400, "format: %.64s: wants json or csv", format);
    if (last && (config_parse_duration(last, &last_ns) < 0 || last_ns <= 0))
        return refuse(refusal, 400, "last: %.64s: wants a time with its unit, as 60s", last);
    int64_t now_ns = clock_now_ns();
    wanted.query.since_ns = last_ns < now_ns ? now_ns - last_ns : 0;
    if (vcpu && vcpu[0] && parse_vcpu(vcpu, &wanted.query.vcpu, refusal) < 0)
        return -EINVAL;
    *ret_wanted = wanted;
    return 0;
}

static const struct view_vm *find_vm(const struct view *view, const char *label)
{
    for (size_t i = 0; i < view->n_vms; i++) {
        if (strcmp(view->vms[i].vm->identity->vm, label) == 0)
            return &view->vms[i];
    }
    return NULL;
}

/* A recording, gone back from what the VM has now. */
struct past {
    struct excerpt excerpt;
    struct replay_schemas schemas;
    struct replay replay;
    bool some;               /* there is a recording */
    bool has_vcpu, has_stat; /* the VM has, now, what is asked for */
};

static void past_free(struct past *past)
{
    replay_end(&past->replay);
    excerpt_free(&past->excerpt);
}

static int put_schemas(const struct schema_table *table, struct replay_schemas *schemas)
{
    unsigned n = atomic_load_explicit(&table->count, memory_order_acquire);
    for (unsigned i = 0; i < n; i++) {
        int r = replay_schemas_add(schemas, i, table->entries[i].decoded);
        if (r < 0 && r != -E2BIG) /* such are not recorded */
            return r;
    }
    return 0;
}

/* What is not recorded may be there all the same: then it is only too early. */
static void look_for(const struct view_vm *vm, const struct history_query *query, struct past *past)
{
    for (uint32_t i = 0; i < vm->vm->n_targets; i++) {
        const struct layout_target *target = &vm->targets[i];
        if (query->vcpu != HISTORY_VCPU_ALL && query->vcpu != target->vcpu)
            continue;
        past->has_vcpu = true;
        past->has_stat = past->has_stat || history_asks_of(query, target->schema->decoded);
    }
}

static int take_past(struct site *site, const struct recorder *recorder, struct wanted *wanted,
                     struct past *past, struct refusal *refusal)
{
    CLEANUP_VIEW struct view view = {0};
    int r = put_schemas(&site->store->schemas, &past->schemas);
    if (r == 0)
        r = view_take(site->store, &view);
    if (r < 0)
        return r;
    const struct view_vm *vm = find_vm(&view, wanted->vm);
    if (!vm)
        return refuse(refusal, 404, "vm: %.200s: no VM of this name is read now", wanted->vm);
    wanted->vm_id = vm->vm->vm->id;
    look_for(vm, &wanted->query, past);
    r = recorder_copy(recorder, vm->vm->vm, wanted->query.since_ns, &past->excerpt);
    if (r < 0 || past->excerpt.len == 0)
        return r;
    r = replay_begin(&past->replay, &past->schemas, past->excerpt.bytes + past->excerpt.first,
                     past->excerpt.len - past->excerpt.first, past->excerpt.first_ns, TICKS_MAX);
    if (r == 0)
        r = replay_seek_frame(&past->replay, vm->frame, vm->vm,
                              recorder_tick_ns(vm->frame, vm->vm->first_target, vm->vm->n_targets));
    past->some = r == 0;
    return r == -ENOENT ? 0 : r;
}

static int collect(struct site *site, struct wanted *wanted, struct history *ret_history,
                   struct refusal *refusal)
{
    CLEANUP(past_free) struct past past = {0};
    CLEANUP(cleanup_recorder_unref) struct recorder *recorder = recorder_get(site->store);
    if (!recorder)
        return refuse(refusal, 404, "nothing is recorded: recorder.memory is 0");
    wanted->wall_offset_ns = recorder_wall_offset_ns(recorder);
    int r = take_past(site, recorder, wanted, &past, refusal);
    if (r == 0 && past.some)
        r = history_collect(&past.replay, &wanted->query, VALUES_MAX, ret_history);
    if (r == -EFBIG)
        return refuse(refusal, 400, "more than %d values: " NARROW, VALUES_MAX);
    if (r < 0 || !history_is_empty(ret_history))
        return r;
    if (wanted->query.vcpu != HISTORY_VCPU_ALL && !past.has_vcpu)
        return refuse(refusal, 404, "vcpu: %d: no vCPU of this number is read now",
                      (int)wanted->query.vcpu);
    if (wanted->query.stats && !past.has_stat)
        return refuse(refusal, 404, "stat: %.200s: %s has no such statistic", wanted->query.stats,
                      wanted->query.vcpu == HISTORY_VCPU_ALL ? "the VM" : "the vCPU");
    return 0;
}

struct rendering {
    const struct history *history;
    const struct wanted *wanted;
    const atomic_bool *stopping;
    uint64_t bytes;
    answer_piece_fn *piece;
    void *output;
};

static int put_piece(void *ctx, const char *bytes, size_t len)
{
    struct rendering *rendering = ctx;
    rendering->bytes += len;
    if (rendering->bytes > (uint64_t)ANSWER_MIB_MAX << 20)
        return -EFBIG;
    if (atomic_load_explicit(rendering->stopping, memory_order_relaxed))
        return -ECANCELED;
    return rendering->piece(rendering->output, bytes, len);
}

static int render(void *ctx, answer_piece_fn *piece, void *output)
{
    struct rendering *rendering = ctx;
    const struct wanted *wanted = rendering->wanted;
    int r = 0;
    rendering->piece = piece;
    rendering->output = output;
    if (wanted->format == HISTORY_CSV)
        r = put_piece(rendering, history_csv_head, strlen(history_csv_head));
    return r < 0 ? r
                 : history_render(rendering->history, wanted->vm, wanted->wall_offset_ns,
                                  wanted->format, put_piece, rendering);
}

/* A refusal as JSON, whatever format was asked for: a person reads it. */
static int put_refusal(struct site *site, const struct refusal *refusal, struct answer *answer)
{
    CLEANUP(cleanup_body_free) struct body *body = NULL;
    int r = body_new(&site->quota, &body);
    if (r < 0)
        return r;
    buffer_puts(&body->buffer, "{\"error\":\"");
    for (const char *p = refusal->message; *p; p++) {
        unsigned char c = (unsigned char)*p;
        if (c < ' ' || c >= 0x7f)
            buffer_puts(&body->buffer, "?");
        else
            buffer_printf(&body->buffer, c == '"' || c == '\\' ? "\\%c" : "%c", c);
    }
    buffer_puts(&body->buffer, "\"}\n");
    r = body_account(body);
    if (r < 0)
        return r;
    answer_body(answer, "application/json", steal_ptr(&body));
    answer->status = refusal->status;
    return 0;
}

static int put_history(struct site *site, const struct request *request,
                       const struct wanted *wanted, const struct history *history,
                       struct answer *answer, struct refusal *refusal)
{
    struct rendering rendering = {
        .history = history, .wanted = wanted, .stopping = &site->stopping};
    const char *type = wanted->format == HISTORY_CSV ? "text/csv; charset=utf-8; header=present"
                                                     : "application/json";
    /*
     * A label may be another VM's the next time, and the wall clock may be set: by these a client
     * knows a sample again.
     */
    (void)snprintf(answer->recording, sizeof answer->recording,
                   "vm=%" PRIu64 "; wall_offset_ns=%" PRId64, wanted->vm_id,
                   wanted->wall_offset_ns);
    int r = answer_pieces(site, request, type, render, &rendering, answer);
    if (r == -EFBIG)
        return refuse(refusal, 400, "more than %d MiB: " NARROW, ANSWER_MIB_MAX);
    return r == -ECANCELED ? refuse(refusal, 503, "kvmstatd is stopping") : r;
}

void history_answer(struct site *site, const struct request *request, struct answer *answer)
{
    struct history history = {0};
    struct refusal refusal = {0};
    struct wanted wanted;
    int r = parse(request, &wanted, &refusal);
    if (r == 0)
        r = collect(site, &wanted, &history, &refusal);
    if (r == 0)
        r = put_history(site, request, &wanted, &history, answer, &refusal);
    history_free(&history);
    if (r < 0 && refusal.status)
        r = put_refusal(site, &refusal, answer);
    if (r < 0)
        answer_error(answer, request->path, r);
}
