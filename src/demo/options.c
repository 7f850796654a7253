/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers are a table: one line here makes an option that is parsed, bounded, explained and handed
 * on to the VMs a launcher starts.
 */
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "guest.h"
#include "load.h"

#ifndef KVMSTATD_VERSION
#define KVMSTATD_VERSION "unknown"
#endif

struct number_option {
    const char *name;
    size_t offset; /* of the uint64_t in struct options */
    uint64_t min, max, preset;
    const char *help;
    bool is_duration; /* milliseconds, given as 7s or 700ms */
};

static const struct number_option numbers[] = {
    {"vcpus", offsetof(struct options, vcpus), 1, GUEST_MAX_VCPUS, 1, "virtual CPUs a VM", false},
    {"vms", offsetof(struct options, vms), 1, 100000, 1, "VMs, each a process of its own", false},
    {"fds", offsetof(struct options, fds), 0, 1000000, 0, "other fds each VM holds open", false},
    {"rate", offsetof(struct options, rate), 0, 1000000, 1000,
     "rounds per second and vCPU; 0: as fast as it goes", false},
    {"rounds", offsetof(struct options, rounds), 0, UINT32_MAX, 0,
     "rounds a vCPU makes before it halts for good; 0: no end", false},
    {"burst-ms", offsetof(struct options, burst_ms), 1, 60000, 100,
     "with --load burst: how many milliseconds a burst takes", false},
    {"burst-every", offsetof(struct options, burst_every_ms), 1, 3600000, 7000,
     "and how often there is one, as 7s or 700ms", true},
    {"burst-exits", offsetof(struct options, burst_exits), 1, 100000000, 1000,
     "and how many exits each vCPU makes in it", false},
};

enum {
    OPTION_NAME = 1,
    OPTION_LOAD,
    OPTION_STATS_FDS,
    OPTION_HELP,
    OPTION_VERSION,
    OPTION_NUMBER
};

static char *option_text(const char *text)
{
    return (char *)(uintptr_t)text; /* execv() takes char *const[] and writes to none of them */
}

static uint64_t *number_of(const struct options *options, const struct number_option *number)
{
    return (uint64_t *)((uintptr_t)options + number->offset);
}

static void print_help(void)
{
    printf("Usage: kvmstatd-demo-vm [OPTION]...\n"
           "Runs tiny virtual machines on /dev/kvm whose guests make exits as told.\n\n"
           "  --name NAME         name of the VM; with several VMs NAME-0, NAME-1, ...\n"
           "  --load LOAD         what the guest does, round by round (default mix):\n");
    for (size_t i = 0; i < load_count(); i++)
        printf("                        %-6s %s\n", load_at(i)->name, load_at(i)->help);
    printf("  --stats-fds WHICH   keep (default): hold the statistics fds of the VM and of each\n"
           "                      vCPU open; none: open none\n");
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        printf("  --%s N%*s%s (default %" PRIu64 "%s)\n", numbers[i].name,
               16 - (int)strlen(numbers[i].name), "", numbers[i].help, numbers[i].preset,
               numbers[i].is_duration ? "ms" : "");
    printf(
        "  --help, --version\n\n"
        "Prints `vm NAME PID` for each VM that runs (NAME is - without --name), then\n"
        "`ready N`. On SIGUSR1 each VM prints `count NAME vcpu I io X mmio Y halt Z`: the\n"
        "exits it got from KVM (io includes the one that says the guest has started), and the\n"
        "halts its guest counted. With --load burst each vCPU prints `burst {JSON}` after each\n"
        "burst: when it really began, how long it took. SIGTERM or SIGINT, or the end of the parent process, ends all.\n");
}

static enum options_result wrong(const char *option, const char *value, const char *expected)
{
    fprintf(stderr, "kvmstatd-demo-vm: --%s \"%s\": must be %s\n", option, value, expected);
    return OPTIONS_USAGE;
}

static enum options_result parse_number(const struct number_option *number, const char *text,
                                        struct options *options)
{
    char expected[80];
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (number->is_duration && strcmp(end, "s") == 0 && value <= number->max) {
        value *= 1000;
        end++;
    } else if (number->is_duration) {
        end = strcmp(end, "ms") == 0 ? end + 2 : option_text(text);
    }
    if (errno || end == text || *end || text[0] < '0' || text[0] > '9' || value < number->min ||
        value > number->max) {
        (void)snprintf(expected, sizeof expected, "a whole number%s, %" PRIu64 " to %" PRIu64 "%s",
                       number->is_duration ? " of s or ms" : "", number->min, number->max,
                       number->is_duration ? "ms" : "");
        return wrong(number->name, text, expected);
    }
    *number_of(options, number) = value;
    return OPTIONS_RUN;
}

static enum options_result parse_name(const char *text, struct options *options)
{
    size_t len = strlen(text);
    if (len == 0 || len > OPTIONS_NAME_MAX)
        return wrong("name", text, "1 to 255 bytes long");
    for (size_t i = 0; i < len; i++) {
        /* Names stand in a protocol of lines. */
        if ((unsigned char)text[i] < ' ' || text[i] == 0x7f)
            return wrong("name", text, "free of control characters");
    }
    options->name = text;
    return OPTIONS_RUN;
}

static enum options_result parse_load(const char *text, struct options *options)
{
    options->load = load_find(text);
    return options->load ? OPTIONS_RUN : wrong("load", text, "one of those that --help lists");
}

static enum options_result parse_stats_fds(const char *text, struct options *options)
{
    options->keep_stats_fds = strcmp(text, "keep") == 0;
    if (!options->keep_stats_fds && strcmp(text, "none") != 0)
        return wrong("stats-fds", text, "keep or none");
    return OPTIONS_RUN;
}

static enum options_result parse_one(int option, const char *text, struct options *options)
{
    switch (option) {
    case OPTION_NAME:
        return parse_name(text, options);
    case OPTION_LOAD:
        return parse_load(text, options);
    case OPTION_STATS_FDS:
        return parse_stats_fds(text, options);
    case OPTION_HELP:
        print_help();
        return OPTIONS_DONE;
    case OPTION_VERSION:
        printf("kvmstatd-demo-vm %s\n", KVMSTATD_VERSION);
        return OPTIONS_DONE;
    case '?': /* getopt_long() has said what is wrong */
        return OPTIONS_USAGE;
    }
    return parse_number(&numbers[option - OPTION_NUMBER], text, options);
}

enum options_result options_parse(int argc, char **argv, struct options *ret_options)
{
    struct option table[ARRAY_LEN(numbers) + 6] = {
        {"name", required_argument, NULL, OPTION_NAME},
        {"load", required_argument, NULL, OPTION_LOAD},
        {"stats-fds", required_argument, NULL, OPTION_STATS_FDS},
        {"help", no_argument, NULL, OPTION_HELP},
        {"version", no_argument, NULL, OPTION_VERSION},
    };
    struct options options = {.load = load_find("mix"), .keep_stats_fds = true};
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        table[5 + i] =
            (struct option){numbers[i].name, required_argument, NULL, OPTION_NUMBER + (int)i};
        *number_of(&options, &numbers[i]) = numbers[i].preset;
    }

    int option;
    while ((option = getopt_long(argc, argv, "", table, NULL)) != -1) {
        enum options_result result = parse_one(option, optarg, &options);
        if (result != OPTIONS_RUN)
            return result;
    }
    if (optind < argc) {
        fprintf(stderr, "kvmstatd-demo-vm: \"%s\": there are only options, see --help\n",
                argv[optind]);
        return OPTIONS_USAGE;
    }
    *ret_options = options;
    return OPTIONS_RUN;
}

void options_to_argv(const struct options *options, const char *program, struct options_argv *ret)
{
    size_t n = 0;
    ret->argv[n++] = option_text(program);
    if (options->name) {
        ret->argv[n++] = option_text("--name");
        ret->argv[n++] = option_text(options->name);
    }
    ret->argv[n++] = option_text("--load");
    ret->argv[n++] = option_text(options->load->name);
    ret->argv[n++] = option_text("--stats-fds");
    ret->argv[n++] = option_text(options->keep_stats_fds ? "keep" : "none");
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        _Static_assert(7 + 2 * ARRAY_LEN(numbers) < OPTIONS_ARGV_MAX, "every option has its place");
        (void)snprintf(ret->numbers[n], sizeof ret->numbers[n], "--%s", numbers[i].name);
        (void)snprintf(ret->numbers[n + 1], sizeof ret->numbers[n + 1], "%" PRIu64 "%s",
                       *number_of(options, &numbers[i]), numbers[i].is_duration ? "ms" : "");
        ret->argv[n] = ret->numbers[n];
        ret->argv[n + 1] = ret->numbers[n + 1];
        n += 2;
    }
    ret->argv[n] = NULL;
}
