/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "commands.h"

static const struct command {
    const char *name, *arguments, *help;
    command_fn *run;
} commands[] = {
    {"list", "[GLOB]", "every VM, how it is read, or why it is not", command_list},
    {"top", "[GLOB]", "the busiest VMs, again and again", command_top},
    {"csv", "", "every sample as it comes, a line each", command_csv},
    {"dump", "VM|FILE", "what a VM's counters say now; what a recording holds", command_dump},
};

static void print_usage(FILE *to)
{
    fputs("Usage: kvmstatctl COMMAND [ARGUMENT]...\n\nCommands:\n", to);
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        fprintf(to, "  %-6s %-8s %s\n", commands[i].name, commands[i].arguments, commands[i].help);
    fputs("\n'kvmstatctl COMMAND --help' tells more. --version, --help\n", to);
}

int command_usage(const char *command, const char *what, const char *argument)
{
    if (what)
        fprintf(stderr, "kvmstatctl %s: %s%s\n", command, what, argument);
    fprintf(stderr, "Try 'kvmstatctl %s --help'.\n", command);
    return EXIT_USAGE;
}

static bool takes_value(const char *option)
{
    return strcmp(option, "--address") == 0 || strcmp(option, "--cacert") == 0 ||
           strcmp(option, "--user") == 0;
}

/* Options may stand before the command, as people write them: it is moved to the front. */
static void put_command_first(int argc, char **argv)
{
    int at = 1;
    while (at < argc && argv[at][0] == '-')
        at += takes_value(argv[at]) ? 2 : 1;
    if (at == 1 || at >= argc)
        return;
    char *command = argv[at];
    memmove(argv + 2, argv + 1, (size_t)(at - 1) * sizeof *argv);
    argv[1] = command;
}

/* What was printed has been taken, by a disk for example; else that is said. */
static int end(const char *command, int status)
{
    errno = 0;
    bool taken = fflush(stdout) == 0 && !ferror(stdout);
    if (taken || errno == EPIPE) /* who has read enough got what they wanted */
        return status;
    fprintf(stderr, "kvmstatctl %s: standard output: %s\n", command,
            errno ? strerror(errno) : "not all could be written");
    return EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : "";
    if (strcmp(word, "--help") == 0) {
        print_usage(stdout);
        return EXIT_SUCCESS;
    }
    if (strcmp(word, "--version") == 0) {
        puts("kvmstatctl " KVMSTATD_VERSION);
        return EXIT_SUCCESS;
    }
    put_command_first(argc, argv);
    word = argc > 1 ? argv[1] : "";
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        char name[32]; /* as getopt_long() is to call us */
        if (strcmp(word, commands[i].name) != 0)
            continue;
        (void)snprintf(name, sizeof name, "kvmstatctl %s", word);
        argv[1] = name;
        return end(word, commands[i].run(argc - 1, argv + 1));
    }
    if (word[0])
        fprintf(stderr, "kvmstatctl: there is no command %s\n", word);
    print_usage(stderr);
    return EXIT_USAGE;
}
