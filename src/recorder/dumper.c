/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a VMM has ended can be a moment in coming (exit_status.h): meanwhile its VM's recording is
 * held, in memory that the recorder would otherwise use again, and other VMs' are recorded on.
 * Dumps are made one VM at a time, so that they cost the memory of one.
 */
#include "dumper.h"

#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#include "clock.h"
#include "dump_directory.h"
#include "dump_file.h"
#include "exit_status.h"
#include "mailbox.h"
#include "view.h"

enum {
    ASK_AGAIN_MS = 10,
    LINE_BYTES = 512,
};
/* A parent that has not reaped its VMM by then will not soon. */
#define ASK_NO_MORE_NS (2 * NSEC_PER_SEC)
/* The same failure is said again after this. */
#define SAY_AGAIN_NS (60 * NSEC_PER_SEC)

/* A VM whose VMM has exited. THREADS: sampler while it is not busy, then dumper. */
struct ended {
    struct letter letter; /* first member */
    struct held_item item;
    struct recorder *recorder; /* references */
    struct vm *vm;
    struct vm_identity *identity;
    int pidfd; /* owned */
    int64_t exited_ns;
    struct ended *next; /* among those that wait for an answer */
};

struct dumper {
    struct store *store;
    const char *version;
    dumper_say_fn *say;
    struct mailbox inbox; /* of ended */
    pthread_t thread;
    bool running; /* THREADS: whoever starts and stops */
    atomic_bool stopping;
    atomic_bool requested;
    atomic_uint skipped; /* VMs that ended and could not be held, which is to be said */
    atomic_bool on_vmm_killed, on_signal;
    atomic_bool look;     /* at the directory: it may be another one */
    pthread_mutex_t lock; /* guards directory */
    char *directory;
    /* THREADS: dumper only */
    struct ended *waiting;
    int said_error;
    int64_t say_again_ns, say_skipped_ns;
    unsigned said_skipped; /* of `skipped` */
    struct ended pool[DUMPER_WAITING_MAX];
};

/* --- one file --- */

static void put_host(const struct dumper *dumper, struct buffer *to, const char *why,
                     int64_t wall_offset_ns)
{
    struct utsname host = {0};
    (void)uname(&host);
    size_t began = dump_begin_section(to, "HOST");
    dump_put_pair(to, "why", why);
    dump_put_pair_i64(to, "written_wall_ns", clock_read_ns(CLOCK_REALTIME));
    dump_put_pair_i64(to, "wall_offset_ns", wall_offset_ns);
    dump_put_pair(to, "host", host.nodename);
    dump_put_pair(to, "kernel", host.release);
    dump_put_pair(to, "machine", host.machine);
    dump_put_pair(to, "version", dumper->version);
    dump_end_section(to, began);
}

static void put_schemas(const struct dumper *dumper, struct buffer *to)
{
    const struct schema_table *table = &dumper->store->schemas;
    unsigned n = atomic_load_explicit(&table->count, memory_order_acquire);
    for (unsigned i = 0; i < n; i++) {
        if (kvmstats_schema_data_bytes(table->entries[i].decoded) <= CODEC_BLOCK_BYTES_MAX)
            dump_put_schema(to, &table->entries[i]);
    }
}

static void put_vm(struct buffer *to, const struct vm_identity *identity, const char *end)
{
    size_t began = dump_begin_section(to, "VMID");
    dump_put_pair(to, "vm", identity->vm);
    dump_put_pair(to, "name", identity->name);
    dump_put_pair(to, "uuid", identity->uuid);
    dump_put_pair(to, "vmm", identity->vmm);
    dump_put_pair(to, "machine", identity->machine);
    dump_put_pair(to, "unit", identity->unit);
    dump_put_pair(to, "source", identity->source);
    dump_put_pair_i64(to, "pid", identity->pid);
    dump_put_pair_i64(to, "start_wall_ns", identity->start_wall_ns);
    dump_put_pair(to, "end", end);
    dump_end_section(to, began);
}

/* Writes what the buffer has, and empties it. */
static int flush(struct dump_output *output, struct buffer *buffer)
{
    int r = buffer->error ? buffer->error : dump_output_write(output, buffer->data, buffer->len);
    buffer->len = 0;
    return r;
}

static char *copy_directory(struct dumper *dumper)
{
    (void)pthread_mutex_lock(&dumper->lock);
    char *copy = strdup(dumper->directory);
    (void)pthread_mutex_unlock(&dumper->lock);
    return copy;
}

/* A directory that will not do is said at once, not when there is something to write. */
static void look_at_directory(struct dumper *dumper)
{
    char line[LINE_BYTES];
    CLEANUP_FREE char *directory = copy_directory(dumper);
    int r = directory ? dump_directory_check(directory) : -ENOMEM;
    if (r == 0)
        return;
    (void)snprintf(line, sizeof line, "no dump can be written to %.150s (recorder.directory): %s",
                   directory ? directory : "", strerrordesc_np(-r));
    dumper->say(true, line);
}

/* The outcome of a dump of `what`, for the log and the metrics. */
static void report(struct dumper *dumper, const char *what, const char *directory, const char *name,
                   uint64_t bytes, int r)
{
    char line[LINE_BYTES];
    enum dump_result result = r < 0 ? DUMP_FAILED : DUMP_WRITTEN;
    int64_t now_ns = clock_now_ns();
    atomic_fetch_add_explicit(&dumper->store->self.dumps[result], 1, memory_order_relaxed);
    if (r < 0 && dumper->said_error == r && now_ns < dumper->say_again_ns)
        return;
    dumper->said_error = r;
    dumper->say_again_ns = now_ns + SAY_AGAIN_NS;
    if (r < 0)
        (void)snprintf(line, sizeof line, "%.200s; no dump of it, %.150s: %s", what, directory,
                       strerrordesc_np(-r));
    else
        (void)snprintf(line, sizeof line, "%.150s; written to %.150s/%.150s (%" PRIu64 " bytes)",
                       what, directory, name, bytes);
    dumper->say(r < 0, line);
}

/* What is written between beginning and end of a file. */
typedef int put_content_fn(struct dumper *dumper, void *ctx, struct dump_output *output,
                           struct buffer *buffer);

/* What a file is about. */
struct job {
    const char *why, *vm; /* "" for all VMs */
    struct recorder *recorder;
    put_content_fn *put_content;
    void *ctx;
};

static int write_file(struct dumper *dumper, const char *directory, const char *name,
                      const struct job *job, uint64_t *ret_bytes)
{
    CLEANUP_DUMP_OUTPUT struct dump_output output = {.dir_fd = -1, .fd = -1};
    CLEANUP_BUFFER struct buffer buffer = BUFFER_INIT;
    int r = dump_output_open(directory, &output);
    if (r < 0)
        return r;
    dump_put_begin(&buffer);
    put_host(dumper, &buffer, job->why, recorder_wall_offset_ns(job->recorder));
    put_schemas(dumper, &buffer);
    r = job->put_content(dumper, job->ctx, &output, &buffer);
    if (r < 0)
        return r;
    dump_put_end(&buffer);
    r = flush(&output, &buffer);
    if (r < 0)
        return r;
    off_t bytes = lseek(output.fd, 0, SEEK_CUR);
    r = dump_output_commit(&output, name);
    if (r < 0)
        return r;
    dump_directory_prune(output.dir_fd, name, DUMPER_FILES_MAX, DUMPER_TOTAL_BYTES_MAX);
    *ret_bytes = bytes < 0 ? 0 : (uint64_t)bytes;
    return 0;
}

static void dump(struct dumper *dumper, const char *what, const struct job *job)
{
    char name[192];
    uint64_t bytes = 0;
    CLEANUP_FREE char *directory = copy_directory(dumper);
    dump_file_name(clock_read_ns(CLOCK_REALTIME), job->why, job->vm, name, sizeof name);
    int r = directory ? write_file(dumper, directory, name, job, &bytes) : -ENOMEM;
    report(dumper, what, directory ? directory : "", name, bytes, r);
}

/* --- a VM that has ended --- */

struct ended_content {
    const struct ended *ended;
    const char *end;
};

static int put_ended(struct dumper *dumper, void *ctx, struct dump_output *output,
                     struct buffer *buffer)
{
    (void)dumper;
    const struct ended_content *content = ctx;
    const struct ended *ended = content->ended;
    CLEANUP_EXCERPT struct excerpt excerpt = {0};
    int r = recorder_copy(ended->recorder, ended->vm, INT64_MIN, &excerpt);
    if (r < 0)
        return r;
    put_vm(buffer, ended->identity, content->end);
    dump_put_recording(buffer, excerpt.first_ns, excerpt.bytes + excerpt.first,
                       excerpt.len - excerpt.first, NULL, 0);
    return flush(output, buffer);
}

static void dump_ended(struct dumper *dumper, const struct ended *ended, enum exit_answer answer,
                       int status)
{
    char what[LINE_BYTES], end[64];
    const char *vm = ended->identity->vm;
    bool killed = answer == EXIT_KNOWN;
    if (killed)
        (void)snprintf(end, sizeof end, "killed by signal %d%s", WTERMSIG(status),
                       WCOREDUMP(status) ? ", core dumped" : "");
    else
        (void)snprintf(end, sizeof end, "ended, nobody can tell how");
    (void)snprintf(what, sizeof what, "VM %.150s: its VMM was %s%s", vm,
                   killed ? "" : "seen to have ", end);
    dump(dumper, what,
         &(struct job){
             .why = killed ? "killed" : "ended",
             .vm = vm,
             .recorder = ended->recorder,
             .put_content = put_ended,
             .ctx = &(struct ended_content){ended, end},
         });
}

static void release_ended(struct ended *ended)
{
    struct recorder *recorder = ended->recorder;
    vm_unref(ended->vm);
    vm_identity_unref(ended->identity);
    ended->pidfd = fd_close(ended->pidfd);
    recorder_give_back(recorder, &ended->item); /* from here on it is the sampler's */
    recorder_unref(recorder);
}

/* True: it is settled, and released. */
static bool settle(struct dumper *dumper, struct ended *ended)
{
    int status = 0;
    bool last =
        atomic_load(&dumper->stopping) || clock_now_ns() - ended->exited_ns > ASK_NO_MORE_NS;
    enum exit_answer answer = exit_status_ask(ended->pidfd, ended->identity->pid, &status);
    if (answer == EXIT_NOT_YET && !last)
        return false;
    if (answer != EXIT_KNOWN || WIFSIGNALED(status))
        dump_ended(dumper, ended, answer, status);
    release_ended(ended);
    return true;
}

static void settle_all(struct dumper *dumper)
{
    struct ended **at = &dumper->waiting;
    while (*at) {
        struct ended *ended = *at, *next = ended->next;
        if (settle(dumper, ended))
            *at = next;
        else
            at = &ended->next;
    }
}

/* The sampler's word for it; what there is to say, the dumper's thread says. */
static void skip(struct dumper *dumper)
{
    atomic_fetch_add_explicit(&dumper->skipped, 1, memory_order_relaxed);
    mailbox_ring(&dumper->inbox);
}

static void say_skipped(struct dumper *dumper)
{
    char line[LINE_BYTES];
    unsigned skipped = atomic_load_explicit(&dumper->skipped, memory_order_relaxed);
    int64_t now_ns = clock_now_ns();
    if (skipped == dumper->said_skipped || now_ns < dumper->say_skipped_ns)
        return;
    (void)snprintf(line, sizeof line,
                   "%u VMs whose VMMs have exited will not be dumped, however they ended: too many "
                   "others wait for their dump, or recorder.memory is too small to keep them",
                   skipped - dumper->said_skipped);
    dumper->said_skipped = skipped;
    dumper->say_skipped_ns = now_ns + SAY_AGAIN_NS;
    dumper->say(true, line);
}

bool dumper_vm_exited(struct dumper *dumper, struct recorder *recorder, struct vm *vm,
                      struct vm_identity *identity, int pidfd, int64_t exited_ns)
{
    struct ended *ended = NULL;
    if (!atomic_load_explicit(&dumper->on_vmm_killed, memory_order_relaxed))
        return false;
    for (size_t i = 0; !ended && i < DUMPER_WAITING_MAX; i++) {
        if (!atomic_load(&dumper->pool[i].item.busy))
            ended = &dumper->pool[i];
    }
    int r = ended ? recorder_vm_hold(recorder, vm, &ended->item) : -ENOSPC;
    if (r < 0) {
        atomic_fetch_add_explicit(&dumper->store->self.dumps[DUMP_SKIPPED], 1,
                                  memory_order_relaxed);
        if (r == -ENOSPC)
            skip(dumper);
        return false;
    }
    ended->recorder = recorder_ref(recorder);
    ended->vm = vm_ref(vm);
    ended->identity = vm_identity_ref(identity);
    ended->exited_ns = exited_ns;
    ended->pidfd = fcntl(pidfd, F_DUPFD_CLOEXEC, 0); /* -1: then nobody can tell */
    mailbox_post(&dumper->inbox, &ended->letter);
    return true;
}

/* --- all VMs --- */

/* What was taken of a VM while its frame was pinned. */
struct live {
    struct vm *vm; /* references */
    struct vm_identity *identity;
    int64_t tick_ns;
    size_t last, last_len; /* its LAST record, in the buffer of all */
};

struct live_content {
    struct recorder *recorder;
    size_t n;
    struct live *vms;
    struct buffer lasts;
};

static void live_content_free(struct live_content *content)
{
    for (size_t i = 0; i < content->n; i++) {
        vm_unref(content->vms[i].vm);
        vm_identity_unref(content->vms[i].identity);
    }
    free(content->vms);
    buffer_free(&content->lasts);
    recorder_unref(content->recorder);
}

/* The ends of all recordings, at one time: frames are let go before anything is written. */
static int take_lasts(const struct dumper *dumper, struct live_content *content)
{
    CLEANUP_VIEW struct view view = {0};
    int r = view_take(dumper->store, &view);
    if (r < 0)
        return r;
    content->vms = calloc(MAX_OF(view.n_vms, (size_t)1), sizeof *content->vms);
    if (!content->vms)
        return -ENOMEM;
    for (size_t i = 0; i < view.n_vms; i++) {
        const struct view_vm *vm = &view.vms[i];
        struct live *live = &content->vms[content->n];
        live->tick_ns = recorder_tick_ns(vm->frame, vm->vm->first_target, vm->vm->n_targets);
        live->last = content->lasts.len;
        r = dump_put_last(&content->lasts, vm->frame, vm->vm, live->tick_ns);
        if (r == -E2BIG)
            continue; /* nor is it recorded */
        if (r < 0)
            return r;
        live->last_len = content->lasts.len - live->last;
        live->vm = vm_ref(vm->vm->vm);
        live->identity = vm_identity_ref(vm->vm->identity);
        content->n++;
    }
    return 0;
}

/* Up to the record of the tick that its LAST was made of; 0: it is not there. */
static size_t cut_at_tick(const struct excerpt *excerpt, int64_t tick_ns)
{
    const uint8_t *at = excerpt->bytes + excerpt->first, *end = excerpt->bytes + excerpt->len;
    int64_t time_ns = excerpt->first_ns;
    struct codec_record record;
    bool is_first = true;
    while (at < end && codec_next(&at, end, &record) == 0) {
        if (!is_first)
            time_ns =
                record.kind == RECORD_TICK ? time_ns + (int64_t)record.since_ns : record.time_ns;
        is_first = false;
        if (time_ns == tick_ns && record.kind != RECORD_LAST)
            return (size_t)(at - (excerpt->bytes + excerpt->first));
    }
    return 0;
}

static int put_live(struct dumper *dumper, void *ctx, struct dump_output *output,
                    struct buffer *buffer)
{
    (void)dumper;
    struct live_content *content = ctx;
    for (size_t i = 0; i < content->n; i++) {
        const struct live *live = &content->vms[i];
        CLEANUP_EXCERPT struct excerpt excerpt = {0};
        int r = recorder_copy(content->recorder, live->vm, INT64_MIN, &excerpt);
        if (r < 0)
            return r;
        size_t len = excerpt.len ? cut_at_tick(&excerpt, live->tick_ns) : 0;
        put_vm(buffer, live->identity, "");
        if (len)
            dump_put_recording(buffer, excerpt.first_ns, excerpt.bytes + excerpt.first, len,
                               (const uint8_t *)content->lasts.data + live->last, live->last_len);
        r = flush(output, buffer);
        if (r < 0)
            return r;
    }
    return 0;
}

static void dump_all(struct dumper *dumper)
{
    CLEANUP(live_content_free)
    struct live_content content = {
        .recorder = recorder_get(dumper->store),
        .lasts = BUFFER_INIT,
    };
    char what[64];
    if (!content.recorder) {
        dumper->say(true, "asked for a dump, but nothing is recorded (recorder.memory is 0)");
        return;
    }
    int r = take_lasts(dumper, &content);
    if (r < 0) {
        report(dumper, "asked for a dump", "", "", 0, r);
        return;
    }
    (void)snprintf(what, sizeof what, "asked for a dump of %zu VMs", content.n);
    dump(dumper, what, &(struct job){"signal", "", content.recorder, put_live, &content});
}

bool dumper_request(struct dumper *dumper)
{
    if (!atomic_load(&dumper->on_signal))
        return false;
    atomic_store(&dumper->requested, true);
    mailbox_ring(&dumper->inbox);
    return true;
}

/* --- the thread --- */

static void collect(struct dumper *dumper)
{
    struct letter *letter = mailbox_collect(&dumper->inbox);
    while (letter) {
        struct ended *ended = (struct ended *)letter;
        letter = letter->next;
        ended->next = dumper->waiting;
        dumper->waiting = ended;
    }
}

static void *dumper_main(void *arg)
{
    struct dumper *dumper = arg;
    (void)pthread_setname_np(pthread_self(), "kvmstatd-dump");
    while (!atomic_load(&dumper->stopping)) {
        struct pollfd pollfd = {.fd = dumper->inbox.event_fd, .events = POLLIN};
        if (atomic_exchange(&dumper->look, false))
            look_at_directory(dumper);
        (void)poll(&pollfd, 1, dumper->waiting ? ASK_AGAIN_MS : -1);
        collect(dumper);
        settle_all(dumper);
        say_skipped(dumper);
        if (atomic_exchange(&dumper->requested, false))
            dump_all(dumper);
    }
    return NULL;
}

int dumper_new(struct store *store, const char *version, dumper_say_fn *say,
               struct dumper **ret_dumper)
{
    CLEANUP_FREE struct dumper *dumper = calloc(1, sizeof *dumper);
    if (!dumper)
        return -ENOMEM;
    dumper->store = store;
    dumper->version = version;
    dumper->say = say;
    for (size_t i = 0; i < DUMPER_WAITING_MAX; i++)
        dumper->pool[i].pidfd = -1;
    dumper->directory = strdup("");
    if (!dumper->directory)
        return -ENOMEM;
    int r = mailbox_init(&dumper->inbox);
    if (r < 0) {
        free(dumper->directory);
        return r;
    }
    (void)pthread_mutex_init(&dumper->lock, NULL);
    *ret_dumper = steal_ptr(&dumper);
    return 0;
}

void dumper_set_options(struct dumper *dumper, const struct dumper_options *options)
{
    (void)pthread_mutex_lock(&dumper->lock);
    char *old = dumper->directory;
    dumper->directory = options->directory;
    (void)pthread_mutex_unlock(&dumper->lock);
    free(old);
    atomic_store(&dumper->on_vmm_killed, options->on_vmm_killed);
    atomic_store(&dumper->on_signal, options->on_signal);
    atomic_store(&dumper->look, options->check);
    mailbox_ring(&dumper->inbox);
}

int dumper_start(struct dumper *dumper)
{
    atomic_store(&dumper->stopping, false);
    int r = -pthread_create(&dumper->thread, NULL, dumper_main, dumper);
    dumper->running = r == 0;
    return r;
}

void dumper_stop(struct dumper *dumper)
{
    atomic_store(&dumper->stopping, true);
    if (dumper->running) {
        mailbox_ring(&dumper->inbox);
        (void)pthread_join(dumper->thread, NULL);
    }
    dumper->running = false;
    /* What came after the thread had looked last. */
    collect(dumper);
    settle_all(dumper);
}

void dumper_free(struct dumper *dumper)
{
    if (!dumper)
        return;
    dumper_stop(dumper);
    mailbox_deinit(&dumper->inbox);
    (void)pthread_mutex_destroy(&dumper->lock);
    free(dumper->directory);
    free(dumper);
}
