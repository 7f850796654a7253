/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `kvmstatctl csv`: the recorder's memory, asked for again and again. Each time a little more is
 * asked for than has passed, and what was printed already is left out (samples.c). Whose samples an
 * answer has is what the answer says: between the list of VMs and the question, or from one round
 * to the next, a label may have become another VM's.
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
#include "samples.h"
#include "stop.h"

enum {
    OWN_STATS_MAX = 1024, /* bytes of names; with more of them all are asked for */
};
#define LAST_DEFAULT_NS     NSEC_PER_SEC
#define INTERVAL_DEFAULT_NS NSEC_PER_SEC
/* A tick takes its time until it can be asked for; and clocks are asked on both sides. */
#define MARGIN_NS (2 * NSEC_PER_SEC)
/* How long a VM that is not listed any more is remembered, and how far a new one is gone back. */
#define FORGET_NS (600 * NSEC_PER_SEC)
#define NEW_NS    (300 * NSEC_PER_SEC)
/* To learn whose the answer is. */
#define PROBE_NS NSEC_PER_MSEC
/* To learn what targets a VM has, where not all can be had at once. */
#define TICKS_TO_LEARN 4

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

/* --- which VM --- */

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

static void follow_free(struct follow *follow)
{
    for (size_t i = 0; i < follow->n_sources; i++)
        source_free(&follow->sources[i]);
    free(follow->sources);
}
#define CLEANUP_FOLLOW CLEANUP(follow_free)

/* NULL: none had the label when it was asked for last. The list comes in the same order each time.
 */
static struct source *find_label(struct follow *follow, const char *label, size_t hint)
{
    if (hint < follow->n_sources && strcmp(follow->sources[hint].label, label) == 0)
        return &follow->sources[hint];
    for (size_t i = 0; i < follow->n_sources; i++) {
        if (strcmp(follow->sources[i].label, label) == 0)
            return &follow->sources[i];
    }
    return NULL;
}

static struct source *find_id(struct follow *follow, uint64_t id)
{
    for (size_t i = 0; id && i < follow->n_sources; i++) {
        if (follow->sources[i].id == id)
            return &follow->sources[i];
    }
    return NULL;
}

/*
 * The VM that has the label by the daemon's last answer, known or new. `former`: who had it, or
 * NULL. A new one is gone back to when the former was asked for: a daemon that was started anew has
 * new numbers for all. NULL: no memory.
 */
static struct source *recognise(struct follow *follow, struct source *former, const char *label)
{
    uint64_t id = follow->client->recording.vm;
    int64_t asked_ns = former ? former->asked_ns : 0;
    CLEANUP_FREE char *name = strdup(label);
    if (!name || samples_grow(&follow->sources, &follow->capacity, follow->n_sources,
                              sizeof *follow->sources) < 0)
        return NULL;
    former = find_label(follow, label, 0); /* it may have moved */
    if (former)
        former->label[0] = '\0';
    struct source *source = find_id(follow, id);
    if (!source) {
        source = &follow->sources[follow->n_sources++];
        *source = (struct source){.id = id, .asked_ns = asked_ns};
    }
    free(source->label);
    source->label = steal_ptr(&name);
    return source;
}

/* --- asking --- */

static int no_memory(struct client *client)
{
    (void)snprintf(client->message, sizeof client->message, "no memory");
    return -ENOMEM;
}

static int64_t interval_of(json_object *vm)
{
    double ms = json_number(vm, "interval_ms", 0);
    return ms > 0 && ms <= 3.6e6 ? (int64_t)(ms * (double)NSEC_PER_MSEC) : 0;
}

static int64_t how_long(const struct follow *follow, const struct source *source,
                        int64_t interval_ns, int64_t now_ns)
{
    if (source->asked_ns)
        return now_ns - source->asked_ns + interval_ns + MARGIN_NS;
    int64_t since_begin_ns = now_ns - follow->begun_ns;
    return MIN_OF(since_begin_ns, NEW_NS) + follow->options->last_ns;
}

/* What came of a question, besides errors. */
enum asked {
    ASKED_ANSWERED,
    ASKED_NOTHING, /* it has ended since it was listed, or has none of what was asked for */
    ASKED_OTHER,   /* the label is another VM's */
};

/* A VM in the list. */
struct listed {
    const char *label;
    int64_t interval_ns; /* 0: not known */
    int64_t now_ns;      /* when its turn came */
};

/* Returns an enum asked, or a -errno with client->message set. `source` may be NULL. */
static int ask(struct follow *follow, const struct source *source, const struct listed *vm,
               const char *stats, int32_t vcpu, int64_t last_ns)
{
    struct client *client = follow->client;
    int r = client_get_history(client, vm->label, stats, vcpu, last_ns, "csv");
    if (r == -ENOENT && strncmp(client->message, "stat:", 5) == 0) {
        follow->none_of_it = true; /* or not yet: it may have begun just now */
        return ASKED_NOTHING;
    }
    if (r == -ENOENT &&
        (strncmp(client->message, "vm:", 3) == 0 || strncmp(client->message, "vcpu:", 5) == 0))
        return ASKED_NOTHING;
    if (r < 0)
        return r;
    return source && source->id == client->recording.vm ? ASKED_ANSWERED : ASKED_OTHER;
}

/* --- in parts --- */

/* What could not be had even so. */
struct lost {
    bool any;
    int64_t since_ns; /* the last that was printed before; INT64_MIN: none was */
    int64_t to_ns;    /* so long before now */
};

static void lose(struct lost *lost, int64_t since_ns, int64_t to_ns)
{
    lost->since_ns = lost->any ? MIN_OF(lost->since_ns, since_ns) : since_ns;
    lost->to_ns = lost->any ? MIN_OF(lost->to_ns, to_ns) : to_ns;
    lost->any = true;
}

static void say_lost(struct client *client, const char *label, const struct lost *lost)
{
    char since[64] = "", failure[sizeof client->message];
    memcpy(failure, client->message, sizeof failure); /* it may still be to be said */
    int64_t wall_ns = clock_add_ns(lost->since_ns, client->recording.wall_offset_ns);
    if (lost->since_ns != INT64_MIN)
        (void)snprintf(since, sizeof since, " after %" PRId64 ".%09" PRId64, wall_ns / NSEC_PER_SEC,
                       wall_ns % NSEC_PER_SEC);
    (void)snprintf(client->message, sizeof client->message,
                   "%s: samples%s until %.1f s ago are left out: too many for an answer", label,
                   since, (double)lost->to_ns / (double)NSEC_PER_SEC);
    client_complain(client);
    memcpy(client->message, failure, sizeof failure);
}

/* One target, by its place in the source. The newest are had in any case, the oldest if possible.
 */
static int follow_target(struct follow *follow, struct source *source, size_t at,
                         const struct listed *vm, const char *stats, int64_t last_ns,
                         struct lost *lost)
{
    int32_t vcpu = source->targets[at].vcpu;
    int64_t printed_ns = source->targets[at].last_ns;
    last_ns += clock_since_ns(vm->now_ns, clock_now_ns()); /* those before it took their time */
    int64_t ns = last_ns;
    int r = ask(follow, source, vm, stats, vcpu, ns);
    while (r == -E2BIG && ns / 2 > vm->interval_ns && ns / 2 >= NSEC_PER_MSEC) {
        ns /= 2;
        r = ask(follow, source, vm, stats, vcpu, ns);
    }
    if (r == -E2BIG)
        lose(lost, printed_ns, 0);
    if (r == -E2BIG || r == ASKED_NOTHING)
        return ASKED_ANSWERED;
    if (r == ASKED_ANSWERED)
        r = samples_print(follow->client, source, vcpu, &follow->headed);
    if (r == 0 && ns < last_ns && source->targets[at].oldest_ns > printed_ns)
        lose(lost, printed_ns, ns);
    return r;
}

/*
 * A target after the other, when all of them are too much for an answer. The VM's own samples
 * cannot be asked for as a vCPU's, but by the names of their statistics. Returns as ask().
 */
static int follow_parts(struct follow *follow, struct source *source, const struct listed *vm,
                        int64_t last_ns)
{
    CLEANUP_BUFFER struct buffer own_stats = BUFFER_INIT;
    struct lost lost = {0};
    int64_t learn_ns = vm->interval_ns ? vm->interval_ns * TICKS_TO_LEARN : MARGIN_NS;
    int r = ask(follow, source, vm, follow->options->stats, -1, MIN_OF(learn_ns, last_ns));
    if (r == ASKED_ANSWERED)
        r = samples_note(follow->client, source, &own_stats);
    if (r != ASKED_ANSWERED && r != -E2BIG)
        return r;
    if (r == -E2BIG) /* then only of targets known before */
        lose(&lost, INT64_MIN, 0);
    else if (source->n_targets == 0)
        return ASKED_NOTHING; /* no tick was as young as that */
    buffer_put(&own_stats, "", 1);
    if (own_stats.error)
        return no_memory(follow->client);
    r = ASKED_ANSWERED;
    for (size_t i = 0; r == ASKED_ANSWERED && !stop_asked && i < source->n_targets; i++) {
        bool own = source->targets[i].vcpu == SAMPLES_OWN;
        const char *stats = follow->options->stats;
        if (own && own_stats.len <= OWN_STATS_MAX)
            stats = own_stats.data;
        if (own && !own_stats.data[0])
            lose(&lost, source->targets[i].last_ns, 0);
        else
            r = follow_target(follow, source, i, vm, stats, last_ns, &lost);
    }
    if (lost.any) /* also when the rest failed: the next time it is not seen any more */
        say_lost(follow->client, source->label, &lost);
    return r;
}

/* --- a VM --- */

/* `source`: who had the label when it was asked for last, or NULL. Returns as ask(). */
static int follow_source(struct follow *follow, struct source *source, const struct listed *vm)
{
    int64_t last_ns = source ? how_long(follow, source, vm->interval_ns, vm->now_ns) : PROBE_NS;
    int r = ask(follow, source, vm, follow->options->stats, -1, last_ns);
    if (r == ASKED_ANSWERED)
        r = samples_print(follow->client, source, SAMPLES_ALL, &follow->headed);
    else if (r == -E2BIG && source)
        r = follow_parts(follow, source, vm, last_ns);
    if (r == ASKED_ANSWERED)
        source->asked_ns = vm->now_ns;
    return r;
}

/* Returns 0, -EPIPE (nobody reads any more), -EINTR, or a -errno with client->message set. */
static int follow_vm(struct follow *follow, const struct listed *vm, size_t hint, int64_t seen_ns)
{
    struct source *source = find_label(follow, vm->label, hint);
    int r = follow_source(follow, source, vm);
    if (r == ASKED_OTHER) {
        source = recognise(follow, source, vm->label);
        if (!source)
            return no_memory(follow->client);
        r = follow_source(follow, source, vm); /* if it is another again: next time */
    }
    if (source)
        source->seen_ns = seen_ns;
    return MIN_OF(r, 0);
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
        const struct listed listed = {name, interval_of(vm), clock_now_ns()};
        r = follow_vm(follow, &listed, n++, now_ns);
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
