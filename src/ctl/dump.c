/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "client.h"
#include "clock.h"
#include "commands.h"
#include "config.h"
#include "dump_file.h"
#include "history.h"
#include "table.h"
#include "text.h"

enum {
    TIME_BYTES = 64,
};
/* For one VM at a time: 8 GiB. Memory that is not needed is not touched. */
#define VALUES_MAX (UINT64_C(1) << 30)

static const char usage[] =
    "Usage: kvmstatctl dump [OPTION]... VM\n"
    "       kvmstatctl dump [OPTION]... FILE\n"
    "Shows what a VM's statistics are now, and their rates over the last second or, where it is read\n"
    "more rarely, from reading to reading. Or shows a recording that kvmstatd has written: whose it is\n"
    "and how far it reaches, or the values. What holds a / or is the name of a file is a FILE, else, and\n"
    "with --address, it is a VM.\n"
    "\n"
    "  --json          a VM: the same as JSON; a file: every tick's values and rates, a list of VMs\n"
    "  --stat GLOBS    of these statistics only, separated by commas: exits,halt_*\n"
    "  --vcpu N        of this vCPU only\n"
    "\n"
    "  --csv           a file: every tick's values and rates, a line each\n"
    "  --vm NAME       a file: of this VM only\n"
    "  --last TIME     a file: only so long before the VM's last tick: 5s\n"
    "\n" CLIENT_USAGE;

enum output {
    OUTPUT_SUMMARY,
    OUTPUT_CSV,
    OUTPUT_JSON,
};

struct options {
    const char *path;
    const char *vm; /* NULL: all */
    enum output output;
    int64_t last_ns; /* 0: all there is */
    struct history_query query;
    struct client_options client;
};

enum option_id {
    OPTION_CSV = 256,
    OPTION_JSON,
    OPTION_VM,
    OPTION_STAT,
    OPTION_VCPU,
    OPTION_LAST,
    OPTION_HELP,
};

static const struct option long_options[] = {
    {"csv", no_argument, NULL, OPTION_CSV},
    {"json", no_argument, NULL, OPTION_JSON},
    {"vm", required_argument, NULL, OPTION_VM},
    {"stat", required_argument, NULL, OPTION_STAT},
    {"vcpu", required_argument, NULL, OPTION_VCPU},
    {"last", required_argument, NULL, OPTION_LAST},
    {"help", no_argument, NULL, OPTION_HELP},
    CLIENT_LONG_OPTIONS,
    {0},
};

static int wrong_usage(const char *what, const char *argument)
{
    return command_usage("dump", what, argument);
}

static bool parse_vcpu(const char *text, int32_t *ret_vcpu)
{
    char *end;
    errno = 0;
    long vcpu = strtol(text, &end, 10);
    if (errno || end == text || *end || vcpu < 0 || vcpu > INT32_MAX)
        return false;
    *ret_vcpu = (int32_t)vcpu;
    return true;
}

/* Returns -1 to go on, else an exit status. */
static int parse_option(int c, struct options *options)
{
    switch (c) {
    case OPTION_CSV:
        options->output = OUTPUT_CSV;
        return -1;
    case OPTION_JSON:
        options->output = OUTPUT_JSON;
        return -1;
    case OPTION_VM:
        options->vm = optarg;
        return -1;
    case OPTION_STAT:
        options->query.stats = optarg;
        return -1;
    case OPTION_VCPU:
        return parse_vcpu(optarg, &options->query.vcpu)
                   ? -1
                   : wrong_usage("--vcpu wants the number of a vCPU, not ", optarg);
    case OPTION_LAST:
        return config_parse_duration(optarg, &options->last_ns) == 0 && options->last_ns > 0
                   ? -1
                   : wrong_usage("--last wants a time with its unit, as 5s, not ", optarg);
    case OPTION_HELP:
        fputs(usage, stdout);
        return EXIT_SUCCESS;
    default:
        return client_option(&options->client, c, optarg)
                   ? -1
                   : wrong_usage(NULL, NULL); /* getopt has said what is wrong */
    }
}

static int parse(int argc, char **argv, struct options *options)
{
    int c, status = -1;
    *options = (struct options){.query = {.vcpu = HISTORY_VCPU_ALL, .since_ns = INT64_MIN}};
    optind = 0;
    while (status < 0 && (c = getopt_long(argc, argv, "", long_options, NULL)) != -1)
        status = parse_option(c, options);
    if (status >= 0)
        return status;
    if (optind + 1 != argc)
        return wrong_usage(optind == argc ? "which VM or file?" : "one VM or file at a time", "");
    options->path = argv[optind];
    return -1;
}

/* --- the file --- */

struct file {
    const uint8_t *bytes; /* mapped */
    size_t len;
};

static void file_unmap(struct file *file)
{
    if (file->len)
        (void)munmap((void *)(uintptr_t)file->bytes, file->len);
}
#define CLEANUP_FILE CLEANUP(file_unmap)

/* Bytes of the file are not there any more, which only the first use of them tells. */
static void lost_bytes(int signal)
{
    static const char what[] = "kvmstatctl dump: the file was cut, or could not be read on\n";
    ssize_t n = write(STDERR_FILENO, what, sizeof what - 1);
    (void)n;
    (void)signal;
    _exit(EXIT_FAILURE);
}

/* A recording may be as large as recorder.memory, more than this machine has: it is not copied. */
static int map_file(const char *path, struct file *ret_file)
{
    struct stat st;
    CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe may be nobody's */
    if (fd < 0 || fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EINVAL;
    if ((uint64_t)st.st_size > SIZE_MAX)
        return -EFBIG;
    if (st.st_size == 0)
        return 0; /* nothing can be mapped, nor need be */
    const struct sigaction action = {.sa_handler = lost_bytes};
    if (sigaction(SIGBUS, &action, NULL) < 0)
        return -errno;
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED)
        return -errno;
    *ret_file = (struct file){map, (size_t)st.st_size};
    return 0;
}

static const char *time_text(int64_t wall_ns, char text[TIME_BYTES])
{
    struct tm tm;
    time_t s = (time_t)(wall_ns / NSEC_PER_SEC);
    size_t len = gmtime_r(&s, &tm) ? strftime(text, TIME_BYTES, "%Y-%m-%dT%H:%M:%S", &tm) : 0;
    (void)snprintf(text + len, TIME_BYTES - len, ".%03dZ",
                   abs((int)(wall_ns % NSEC_PER_SEC / NSEC_PER_MSEC)));
    return text;
}

static void print_pair(const char *before, const struct dump_pairs *pairs, const char *name)
{
    const char *value = dump_pair(pairs, name);
    if (value[0]) {
        fputs(before, stdout);
        print_plain(value, stdout); /* anybody's bytes */
    }
}

/* --- a VM --- */

/* Returns 0, -ENOENT (nothing was recorded), or what is wrong with its recording. */
static int begin_replay(const struct dump *dump, const struct dump_vm *vm, struct replay *replay)
{
    if (!vm->len)
        return -ENOENT;
    int r =
        replay_begin(replay, &dump->schemas, vm->records, vm->len, vm->first_ns, VALUES_MAX / 2);
    if (r == -EFBIG)
        return -E2BIG; /* whatever is asked for */
    return r < 0 ? r : replay_seek_last(replay);
}

static int say_damage(const struct dump_vm *vm, int r)
{
    fputs("kvmstatctl dump: the recording of VM ", stderr);
    print_plain(dump_pair(&vm->about, "vm"), stderr);
    if (r == -EFBIG)
        fprintf(stderr,
                ": more than %" PRIu64 " values: name statistics (--stat), a vCPU (--vcpu) or a "
                "shorter time (--last)\n",
                VALUES_MAX);
    else
        fprintf(stderr, ": %s\n",
                r == -EBADMSG ? "its records contradict each other"
                : r == -E2BIG ? "it has more ticks than can be gone through"
                              : strerror(-r));
    return r;
}

/* From replay->at on, which it leaves as it is. A LAST is no tick: targets have changed there. */
static size_t count_ticks(const struct replay *replay)
{
    size_t n = 0;
    for (size_t i = replay->at; i < replay->n_records; i++) {
        const uint8_t *at = replay->records[i];
        struct codec_record record;
        n += codec_next(&at, replay->end, &record) == 0 && record.kind != RECORD_LAST;
    }
    return n;
}

static int summarise_vm(const struct dump *dump, const struct dump_vm *vm)
{
    CLEANUP_REPLAY struct replay replay = {0};
    char from[TIME_BYTES], to[TIME_BYTES];
    int64_t offset_ns = dump_pair_i64(&dump->about, "wall_offset_ns");
    print_pair("VM ", &vm->about, "vm");
    print_pair(": pid ", &vm->about, "pid");
    print_pair(", ", &vm->about, "vmm");
    print_pair(", uuid ", &vm->about, "uuid");
    print_pair(", ", &vm->about, "end");
    int r = begin_replay(dump, vm, &replay);
    if (r == -ENOENT) {
        puts("\n  nothing was recorded");
        return 0;
    }
    if (r == 0)
        r = replay_rewind(&replay, INT64_MIN);
    if (r < 0) {
        putchar('\n');
        return say_damage(vm, r);
    }
    int64_t last_ns = replay.times_ns[replay.n_records - 1];
    int64_t first_ns = replay.at < replay.n_records ? replay.times_ns[replay.at] : last_ns;
    uint64_t ns = (uint64_t)clock_since_ns(first_ns, last_ns);
    printf("\n  %zu ticks in %" PRIu64 ".%03" PRIu64 " s: %s to %s, %zu bytes\n",
           count_ticks(&replay), ns / NSEC_PER_SEC, ns % NSEC_PER_SEC / NSEC_PER_MSEC,
           time_text(clock_add_ns(first_ns, offset_ns), from),
           time_text(clock_add_ns(last_ns, offset_ns), to), vm->len);
    return 0;
}

static int write_piece(void *ctx, const char *bytes, size_t len)
{
    (void)ctx;
    return fwrite(bytes, 1, len, stdout) == len ? 0 : -EIO;
}

/*
 * `*some`: there is one before it. Of a damaged one nothing is printed, nor a comma for it.
 * `*fits` becomes true where it has any of what was asked for.
 */
static int print_vm(const struct dump *dump, const struct dump_vm *vm,
                    const struct options *options, bool *some, bool *fits)
{
    CLEANUP_REPLAY struct replay replay = {0};
    CLEANUP_HISTORY struct history history = {0};
    const char *name = dump_pair(&vm->about, "vm");
    CLEANUP_FREE char *label = text_to_utf8(name, strlen(name)); /* a file says anything */
    struct history_query query = options->query;
    int r = begin_replay(dump, vm, &replay);
    if (r == 0 && options->last_ns)
        query.since_ns = clock_since_ns(options->last_ns, replay.times_ns[replay.n_records - 1]);
    if (r == 0)
        r = history_collect(&replay, &query, VALUES_MAX, &history);
    if (!label)
        r = -ENOMEM;
    if (r < 0 && r != -ENOENT)
        return say_damage(vm, r);
    if (options->output == OUTPUT_JSON && *some)
        putchar(',');
    *some = true;
    *fits = *fits || !history_is_empty(&history);
    return history_render(&history, label, dump_pair_i64(&dump->about, "wall_offset_ns"),
                          options->output == OUTPUT_CSV ? HISTORY_CSV : HISTORY_JSON, write_piece,
                          NULL);
}

static void summarise(const struct dump *dump)
{
    char when[TIME_BYTES];
    printf("Written %s", time_text(dump_pair_i64(&dump->about, "written_wall_ns"), when));
    print_pair(" on ", &dump->about, "host");
    print_pair(", Linux ", &dump->about, "kernel");
    print_pair(", by kvmstatd ", &dump->about, "version");
    print_pair(", because of: ", &dump->about, "why");
    printf("\n%zu VM%s\n", dump->n_vms, dump->n_vms == 1 ? "" : "s");
}

static int print_dump(const struct dump *dump, const struct options *options)
{
    int r = 0, worst = 0;
    bool some = false, printed = false, fits = false;
    if (options->output == OUTPUT_SUMMARY)
        summarise(dump);
    if (options->output == OUTPUT_CSV)
        fputs(history_csv_head, stdout);
    if (options->output == OUTPUT_JSON)
        putchar('[');
    for (size_t i = 0; i < dump->n_vms; i++) {
        const struct dump_vm *vm = &dump->vms[i];
        if (options->vm && strcmp(options->vm, dump_pair(&vm->about, "vm")) != 0)
            continue;
        some = true;
        r = options->output == OUTPUT_SUMMARY ? summarise_vm(dump, vm)
                                              : print_vm(dump, vm, options, &printed, &fits);
        worst = worst < 0 ? worst : r;
    }
    if (options->output == OUTPUT_JSON)
        puts("]");
    if (options->vm && !some) {
        fprintf(stderr, "kvmstatctl dump: no VM %s in it\n", options->vm);
        return -ENOENT;
    }
    bool all = !options->query.stats && options->query.vcpu == HISTORY_VCPU_ALL;
    if (worst == 0 && printed && !all && !fits) {
        fputs("kvmstatctl dump: nothing in it fits --stat and --vcpu\n", stderr);
        return -ENOENT;
    }
    return worst;
}

/* Where the one who asks says where the daemon is, it is the daemon that is asked. */
static bool is_vm(const struct options *options)
{
    return options->client.address ||
           (!strchr(options->path, '/') && access(options->path, F_OK) != 0);
}

static int dump_vm(const struct options *options)
{
    if (options->output == OUTPUT_CSV || options->vm || options->last_ns)
        return wrong_usage("--csv, --vm and --last are for a file, and there is none: ",
                           options->path);
    return dump_vm_now(&(struct dump_vm_options){
        .vm = options->path,
        .stats = options->query.stats,
        .vcpu = options->query.vcpu,
        .json = options->output == OUTPUT_JSON,
        .client = &options->client,
    });
}

int command_dump(int argc, char **argv)
{
    CLEANUP_FILE struct file file = {0};
    CLEANUP_DUMP struct dump dump = {0};
    struct dump_error error;
    struct options options;
    int r = parse(argc, argv, &options);
    if (r >= 0)
        return r;
    if (is_vm(&options))
        return dump_vm(&options);
    r = map_file(options.path, &file);
    if (r < 0) {
        fprintf(stderr, "kvmstatctl dump: %s: %s\n", options.path,
                r == -EINVAL ? "is no regular file" : strerror(-r));
        return EXIT_FAILURE;
    }
    r = dump_read(file.bytes, file.len, &dump, &error);
    if (r < 0) {
        fprintf(stderr, "kvmstatctl dump: %s: %s\n", options.path,
                r == -EBADMSG ? error.message : strerror(-r));
        return EXIT_FAILURE;
    }
    if (dump.truncated)
        fprintf(stderr, "kvmstatctl dump: %s: the file is cut short, its end is missing\n",
                options.path);
    r = print_dump(&dump, &options);
    return r < 0 || dump.truncated ? EXIT_FAILURE : EXIT_SUCCESS;
}
