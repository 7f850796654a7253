/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /api/v1/vms: the roster as JSON. One VM at a time is made and written, so that a host with many
 * costs the bytes of the answer and not a tree of objects besides. What is not known is an empty
 * string; what does not apply is null.
 */
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <time.h>

#include "answer.h"
#include "clock.h"

/* Consumes `value`; NULL is a failed allocation, not a null. */
static bool put(json_object *object, const char *key, json_object *value)
{
    if (value &&
        json_object_object_add_ex(
            object, key, value, JSON_C_OBJECT_ADD_KEY_IS_NEW | JSON_C_OBJECT_ADD_CONSTANT_KEY) == 0)
        return true;
    json_object_put(value);
    return false;
}

static bool put_null(json_object *object, const char *key)
{
    return json_object_object_add(object, key, NULL) == 0;
}

static bool put_text(json_object *object, const char *key, const char *text)
{
    return put(object, key, json_object_new_string(text));
}

/* Text, or null when there is none. */
static bool put_text_if(json_object *object, const char *key, const char *text)
{
    return text[0] ? put_text(object, key, text) : put_null(object, key);
}

/* Milliseconds as an exact decimal: an interval may be a fraction of one. */
static bool put_ms(json_object *object, const char *key, int64_t ns)
{
    char text[32];
    int len = snprintf(text, sizeof text, "%" PRId64 ".%06" PRId64, ns / NSEC_PER_MSEC,
                       ns % NSEC_PER_MSEC);
    while (text[len - 1] == '0')
        text[--len] = '\0';
    if (text[len - 1] == '.')
        text[--len] = '\0';
    return put(object, key, json_object_new_double_s((double)ns / (double)NSEC_PER_MSEC, text));
}

static bool put_time(json_object *object, const char *key, int64_t wall_ns)
{
    char text[64];
    struct tm tm;
    time_t s = wall_ns / NSEC_PER_SEC;
    if (wall_ns <= 0 || !gmtime_r(&s, &tm))
        return put_null(object, key);
    size_t len = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
    (void)snprintf(text + len, sizeof text - len, ".%03" PRId64 "Z",
                   wall_ns % NSEC_PER_SEC / NSEC_PER_MSEC);
    return put_text(object, key, text);
}

static bool fill_vm(json_object *object, const struct roster_vm *vm)
{
    return put_text(object, "vm", vm->vm) && put_text(object, "name", vm->name) &&
           put_text(object, "uuid", vm->uuid) && put_text(object, "vmm", vm->vmm) &&
           put(object, "pid", json_object_new_int64(vm->pid)) &&
           put_text(object, "machine", vm->machine) && put_text(object, "unit", vm->unit) &&
           put(object, "vcpus", json_object_new_int64(vm->n_vcpus)) &&
           put(object, "vcpus_read", json_object_new_int64(vm->n_vcpus_read)) &&
           put(object, "vm_scope_read", json_object_new_boolean(vm->vm_scope_read)) &&
           (vm->interval_ns > 0 ? put_ms(object, "interval_ms", vm->interval_ns)
                                : put_null(object, "interval_ms")) &&
           put_text_if(object, "source", vm->source) &&
           put_text_if(object, "reason", roster_reason_name(vm->reason)) &&
           put_text_if(object, "detail", vm->detail) &&
           put_time(object, "start_time", vm->start_wall_ns);
}

/* Writes `object` and consumes it. `filled`: it is whole. */
static int write_object(struct buffer *to, json_object *object, bool filled)
{
    size_t len = 0;
    const char *text =
        filled ? json_object_to_json_string_length(
                     object, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &len)
               : NULL;
    if (text)
        buffer_put(to, text, len);
    json_object_put(object);
    return text ? to->error : -ENOMEM;
}

static int write_counts(struct buffer *to, const struct roster *roster)
{
    uint64_t unreadable = 0;
    json_object *counts = json_object_new_object();
    json_object *reasons = json_object_new_object();
    bool filled = counts && reasons;
    for (int i = UNREADABLE_NOT + 1; filled && i < UNREADABLE_DISABLED; i++) {
        unreadable += roster->unreadable[i];
        filled = put(reasons, roster_reason_name((enum unreadable_reason)i),
                     json_object_new_int64(roster->unreadable[i]));
    }
    filled =
        filled && put(counts, "known", json_object_new_int64((int64_t)roster->n_vms)) &&
        put(counts, "read", json_object_new_int64(roster->read)) &&
        put(counts, "disabled", json_object_new_int64(roster->unreadable[UNREADABLE_DISABLED])) &&
        put(counts, "unreadable", json_object_new_int64((int64_t)unreadable));
    if (!counts || !put(counts, "unreadable_by_reason", reasons))
        filled = false;
    return write_object(to, counts, filled);
}

static int write_roster(struct body *body, const struct roster *roster)
{
    struct buffer *to = &body->buffer;
    buffer_puts(to, "{\"kernel_vms\":");
    if (roster->kernel_vms >= 0)
        buffer_printf(to, "%" PRId64, roster->kernel_vms);
    else
        buffer_puts(to, "null");
    buffer_puts(to, ",\"counts\":");
    int r = write_counts(to, roster);
    buffer_puts(to, ",\"vms\":[");
    for (size_t i = 0; r == 0 && i < roster->n_vms; i++) {
        json_object *vm = json_object_new_object();
        if (i)
            buffer_puts(to, ",\n");
        r = write_object(to, vm, vm && fill_vm(vm, &roster->vms[i]));
        if (r == 0)
            r = body_account(body);
    }
    buffer_puts(to, "]}\n");
    return r < 0 ? r : body_account(body);
}

void vms_answer(struct site *site, const struct request *request, struct answer *answer)
{
    static const struct roster nothing_yet = {.kernel_vms = -1};
    CLEANUP(cleanup_roster_unref) struct roster *roster = roster_get(&site->store->roster);
    CLEANUP(cleanup_body_free) struct body *body = NULL;
    int r = body_new(&site->quota, &body);
    if (r == 0)
        r = write_roster(body, roster ? roster : &nothing_yet);
    if (r < 0) {
        answer_error(answer, request->path, r);
        return;
    }
    answer_body(answer, "application/json", steal_ptr(&body));
}
