/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `kvmstatctl csv`: the recorder's memory, asked for again and again. Each time a little more is
 * asked for than has passed, and what was printed already is left out: by the time of each target's
 * last line, compared as the text that the daemon gave, to the nanosecond.
 */
#include <errno.h>
#include <fnmatch.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "client.h"
#include "clock.h"
#include "commands.h"
#include "config.h"
#include "history.h"
#include "stop.h"

enum {
    TARGETS_MAX = 1 << 17,
};
#define LAST_DEFAULT_NS     NSEC_PER_SEC
#define INTERVAL_DEFAULT_NS NSEC_PER_SEC
/* A tick takes its time until it can be asked for; and clocks are asked on both sides. */
#define MARGIN_NS (2 * NSEC_PER_SEC)
/* How long a VM that is not listed any more is remembered, and how far a new one is gone back. */
#define FORGET_NS (600 * NSEC_PER_SEC)
#define NEW_NS    (300 * NSEC_PER_SEC)

static const char usage[] =
    "Usage: kvmstatctl csv [OPTION]...\n"
    "Prints every sample of every VM that is read, as it comes: vm,time,vcpu,stat,value,rate. None twice,\n"
    "and none is left out that the daemon's recorder still holds and whose VM is still there.\n"
    "\n"
    "  --vm GLOB       of these VMs only; new ones that fit are taken up as they come\n"
    "  --stat GLOBS    of these statistics only, separated by commas: exits,halt_*\n"
    "  --last TIME     begin so long ago (default: 1s)\n"
    "  --interval TIME how often the daemon is asked (default: 1s); samples come as often as they are\n"
    "                  taken\n" CLIENT_USAGE;

struct options {
    const char *vm, *stats; /* globs; NULL: all */
    int64_t last_ns, interval_ns;
    struct client_options client;
};

enum option_id {
    OPTION_VM = 256,
    OPTION_STAT,
    OPTION_LAST,
    OPTION_INTERVAL,
    OPTION_HELP,
};

static const struct option long_options[] = {
    {"vm", required_argument, NULL, OPTION_VM},
    {"stat", required_argument, NULL, OPTION_STAT},
    {"last", required_argument, NULL, OPTION_LAST},
    {"interval", required_argument, NULL, OPTION_INTERVAL},
    {"help", no_argument, NULL, OPTION_HELP},
    CLIENT_LONG_OPTIONS,
    {0},
};

static bool parse_time(const char *text, int64_t *ret_ns)
{
    return config_parse_duration(text, ret_ns) == 0 && *ret_ns >= NSEC_PER_MSEC;
}

/* Returns -1 to go on, else an exit status. */
static int parse_option(int c, struct options *options)
{
    switch (c) {
    case OPTION_VM:
        options->vm = optarg;
        return -1;
    case OPTION_STAT:
        options->stats = optarg;
        return -1;
    case OPTION_LAST:
        return parse_time(optarg, &options->last_ns)
                   ? -1
                   : command_usage("csv", "--last wants a time with its unit, as 5s, not ", optarg);
    case OPTION_INTERVAL:
        return parse_time(optarg, &options->interval_ns)
                   ? -1
                   : command_usage("csv", "--interval wants a time with its unit, as 1s, not ",
                                   optarg);
    case OPTION_HELP:
        fputs(usage, stdout);
        return EXIT_SUCCESS;
    default:
        return client_option(&options->client, c, optarg) ? -1 : command_usage("csv", NULL, NULL);
    }
}

static int parse(int argc, char **argv, struct options *options)
{
    int c, status = -1;
    *options = (struct options){.last_ns = LAST_DEFAULT_NS, .interval_ns = INTERVAL_DEFAULT_NS};
    optind = 0;
    while (status < 0 && (c = getopt_long(argc, argv, "", long_options, NULL)) != -1)
        status = parse_option(c, options);
    if (status < 0 && optind < argc)
        status = command_usage("csv", "which VMs is said by --vm, not by ", argv[optind]);
    return status;
}

/* --- what has been printed --- */

/* A VM, or one of its vCPUs. */
struct printed {
    int32_t vcpu;      /* -1: the VM's own */
    int64_t last_ns;   /* since the epoch */
    int64_t newest_ns; /* in the answer at hand */
    int64_t floor_ns;  /* in the answer at hand, lines up to here have been printed */
};

struct source {
    char *vm;         /* owned */
    int64_t asked_ns; /* when it was asked for last, with an answer */
    int64_t seen_ns;
    struct printed *targets; /* owned */
    size_t n_targets, capacity;
};

struct follow {
    struct client *client;
    const struct options *options;
    int64_t begun_ns;
    struct source *sources; /* owned */
    size_t n_sources, capacity;
    bool some;       /* any VM has been there */
    bool none_of_it; /* a VM had none of the statistics */
    bool headed;     /* the first line has been printed */
    bool waiting;    /* for the daemon to answer again; has been said */
};

static void source_free(struct source *source)
{
    free(source->vm);
    free(source->targets);
}

static void follow_free(struct follow *follow)
{
    for (size_t i = 0; i < follow->n_sources; i++)
        source_free(&follow->sources[i]);
    free(follow->sources);
}
#define CLEANUP_FOLLOW CLEANUP(follow_free)

static int grow(void *pp, size_t *capacity, size_t n, size_t size)
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

/* The list comes in the same order each time. */
static struct source *find_source(struct follow *follow, const char *vm, size_t hint)
{
    if (hint < follow->n_sources && strcmp(follow->sources[hint].vm, vm) == 0)
        return &follow->sources[hint];
    for (size_t i = 0; i < follow->n_sources; i++) {
        if (strcmp(follow->sources[i].vm, vm) == 0)
            return &follow->sources[i];
    }
    char *name = strdup(vm);
    if (!name ||
        grow(&follow->sources, &follow->capacity, follow->n_sources, sizeof *follow->sources) < 0) {
        free(name);
        return NULL;
    }
    struct source *source = &follow->sources[follow->n_sources++];
    *source = (struct source){.vm = name};
    return source;
}

static struct printed *find_target(struct source *source, int32_t vcpu)
{
    for (size_t i = source->n_targets; i > 0; i--) { /* it mostly is the one found before */
        if (source->targets[i - 1].vcpu == vcpu)
            return &source->targets[i - 1];
    }
    if (source->n_targets >= TARGETS_MAX ||
        grow(&source->targets, &source->capacity, source->n_targets, sizeof *source->targets) < 0)
        return NULL;
    struct printed *target = &source->targets[source->n_targets++];
    *target = (struct printed){.vcpu = vcpu, .last_ns = INT64_MIN};
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

/* Calls for each record; a broken one ends it. */
typedef int record_fn(void *ctx, struct printed *target, int64_t time_ns, const char *record,
                      size_t len);
static int each_record(struct source *source, const struct buffer *body, record_fn *fn, void *ctx)
{
    const char *p = body->data, *end = p + body->len;
    struct printed *target = NULL;
    const char *next = body->len ? record_end(p, end) : NULL; /* the head */
    if (!next || !body->len || memcmp(p, "vm,time,vcpu,stat,", MIN_OF(18, body->len)) != 0)
        return -EBADMSG;
    for (p = next; p < end; p = next) {
        int64_t time_ns;
        int32_t vcpu;
        next = record_end(p, end);
        if (!next || !parse_record(p, next, &time_ns, &vcpu))
            return -EBADMSG;
        if (!target || target->vcpu != vcpu)
            target = find_target(source, vcpu);
        if (!target)
            return -ENOMEM;
        int r = fn(ctx, target, time_ns, p, (size_t)(next - p));
        if (r < 0)
            return r;
    }
    return 0;
}

static int note_newest(void *ctx, struct printed *target, int64_t time_ns, const char *record,
                       size_t len)
{
    (void)ctx, (void)record, (void)len;
    target->newest_ns = MAX_OF(target->newest_ns, time_ns);
    return 0;
}

/* Returns -EPIPE (nobody reads any more), or -EIO, which is to be said. */
static int write_failed(struct client *client)
{
    if (errno == EPIPE)
        return -EPIPE;
    (void)snprintf(client->message, sizeof client->message, "standard output: %s", strerror(errno));
    return -EIO;
}

/* `ctx` is the client. */
static int print_new(void *ctx, struct printed *target, int64_t time_ns, const char *record,
                     size_t len)
{
    if (time_ns <= target->floor_ns)
        return 0;
    target->last_ns = time_ns;
    return fwrite(record, 1, len, stdout) == len ? 0 : write_failed(ctx);
}

/*
 * The newest reading is asked for again each time. Where it is older than what was printed, the
 * daemon was started anew after its clock had been set back: then all are new.
 */
static int print_answer(struct follow *follow, struct source *source)
{
    const struct buffer *body = &follow->client->body;
    for (size_t i = 0; i < source->n_targets; i++)
        source->targets[i].newest_ns = INT64_MIN;
    int r = each_record(source, body, note_newest, NULL);
    if (r < 0)
        return r;
    for (size_t i = 0; i < source->n_targets; i++) {
        struct printed *target = &source->targets[i];
        target->floor_ns = target->newest_ns < target->last_ns ? INT64_MIN : target->last_ns;
    }
    if (!follow->headed)
        fputs(history_csv_head, stdout);
    follow->headed = true;
    r = each_record(source, body, print_new, follow->client);
    if (r < 0)
        return r;
    /* Whole lines, as soon as they have come. */
    return fflush(stdout) == 0 ? 0 : write_failed(follow->client);
}

/* --- asking --- */

static int64_t how_long(const struct follow *follow, const struct source *source, json_object *vm,
                        int64_t now_ns)
{
    double interval_ms = json_number(vm, "interval_ms", 0);
    int64_t interval_ns = interval_ms > 0 && interval_ms <= 3.6e6
                              ? (int64_t)(interval_ms * (double)NSEC_PER_MSEC)
                              : 0;
    if (source->asked_ns)
        return now_ns - source->asked_ns + interval_ns + MARGIN_NS;
    int64_t since_begin_ns = now_ns - follow->begun_ns;
    return MIN_OF(since_begin_ns, NEW_NS) + follow->options->last_ns;
}

/* Returns 0, -EPIPE (nobody reads any more), -EINTR, or a -errno with client->message set. */
static int follow_vm(struct follow *follow, struct source *source, json_object *vm)
{
    struct client *client = follow->client;
    int64_t now_ns = clock_now_ns();
    int r = client_get_history(client, source->vm, follow->options->stats, -1,
                               how_long(follow, source, vm, now_ns), "csv");
    if (r == -ENOENT && strncmp(client->message, "vm:", 3) == 0)
        return 0; /* it has ended since it was listed */
    if (r == -ENOENT && strncmp(client->message, "stat:", 5) == 0) {
        follow->none_of_it = true; /* or not yet: it may have begun just now */
        return 0;
    }
    if (r == 0)
        r = print_answer(follow, source);
    if (r == 0)
        source->asked_ns = now_ns;
    if (r == -EBADMSG || r == -ENOMEM)
        (void)snprintf(client->message, sizeof client->message, "%s: %s", source->vm,
                       r == -EBADMSG ? "its samples are not what kvmstatd gives" : "no memory");
    return r;
}

static void forget(struct follow *follow, int64_t now_ns)
{
    size_t kept = 0;
    for (size_t i = 0; i < follow->n_sources; i++) {
        if (now_ns - follow->sources[i].seen_ns > FORGET_NS)
            source_free(&follow->sources[i]);
        else
            follow->sources[kept++] = follow->sources[i];
    }
    follow->n_sources = kept;
}

/* The same for all VMs. */
static int follow_once(struct follow *follow)
{
    struct client *client = follow->client;
    CLEANUP_JSON json_object *json = NULL;
    json_object *vms = NULL;
    int64_t now_ns = clock_now_ns();
    int r = client_get_vms(client, &json, &vms);
    if (r < 0)
        return r;
    size_t n = 0;
    for (size_t i = 0; r == 0 && !stop_asked && i < json_object_array_length(vms); i++) {
        json_object *vm = json_object_array_get_idx(vms, i);
        const char *name = json_text(vm, "vm");
        if (!json_text(vm, "source")[0] ||
            (follow->options->vm && fnmatch(follow->options->vm, name, 0) != 0))
            continue;
        struct source *source = find_source(follow, name, n++);
        if (!source) {
            (void)snprintf(client->message, sizeof client->message, "no memory");
            return -ENOMEM;
        }
        source->seen_ns = now_ns;
        r = follow_vm(follow, source, vm);
    }
    forget(follow, now_ns);
    if (r == 0 && !n && !follow->some) {
        (void)snprintf(client->message, sizeof client->message,
                       "no VM that is read%s%s; 'kvmstatctl list' shows all VMs",
                       follow->options->vm ? " fits " : "",
                       follow->options->vm ? follow->options->vm : "");
        return -ENOENT;
    }
    if (r == 0 && follow->none_of_it && !follow->headed && !follow->some)
        return -ENOENT;
    follow->some = follow->some || r == 0;
    return r;
}

/* Once there has been anything, what passes is waited for: a restart, too many who ask. */
static int go_on(struct follow *follow, int r)
{
    bool wait = r == -EAGAIN && follow->some;
    if (r < 0 && r != -EPIPE && r != -EINTR && !(wait && follow->waiting))
        client_complain(follow->client);
    if (wait && !follow->waiting)
        fputs("kvmstatctl csv: asking again until it answers\n", stderr);
    follow->waiting = wait;
    return wait ? 0 : r;
}

/* Waits; returns -EPIPE when nobody reads any more. */
static int rest(int64_t until_ns)
{
    struct pollfd out = {.fd = STDOUT_FILENO};
    while (!stop_asked) {
        int64_t left_ns = until_ns - clock_now_ns();
        if (left_ns <= 0)
            return 0;
        struct timespec ts = {left_ns / NSEC_PER_SEC, left_ns % NSEC_PER_SEC};
        if (stop_wait(&out, &ts) > 0 && out.revents)
            return -EPIPE;
    }
    return -EINTR;
}

int command_csv(int argc, char **argv)
{
    CLEANUP_CLIENT struct client client = {0};
    CLEANUP_FOLLOW struct follow follow = {0};
    struct options options;
    int r = parse(argc, argv, &options);
    if (r >= 0)
        return r;
    r = client_open(&client, "csv", &options.client);
    if (r < 0)
        return r == -EINVAL ? EXIT_USAGE : EXIT_FAILURE;
    stop_catch();
    client.stop = &stop_asked;
    follow = (struct follow){.client = &client, .options = &options, .begun_ns = clock_now_ns()};
    for (int64_t next_ns = follow.begun_ns; r == 0; r = rest(next_ns)) {
        r = go_on(&follow, follow_once(&follow));
        if (r < 0)
            break;
        next_ns = MAX_OF(next_ns + options.interval_ns, clock_now_ns());
    }
    clearerr(stdout); /* what was wrong with it has been said, or was no error */
    /* Who asked it to end, and who has read enough, got what they wanted. */
    return r == 0 || r == -EINTR || r == -EPIPE ? EXIT_SUCCESS : EXIT_FAILURE;
}
