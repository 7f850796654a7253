/* SPDX-License-Identifier: Apache-2.0 */
#include <fnmatch.h>
#include <getopt.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "client.h"
#include "clock.h"
#include "commands.h"
#include "table.h"

static const char usage[] =
    "Usage: kvmstatctl list [OPTION]... [GLOB]\n"
    "Shows every VM that kvmstatd knows: how it is read, or why it is not.\n"
    "\n"
    "  --json          as JSON\n"
    "  --names         names alone, a line each, of those that are read\n" CLIENT_USAGE;

enum output {
    OUTPUT_TABLE,
    OUTPUT_JSON,
    OUTPUT_NAMES,
};

struct options {
    enum output output;
    const char *glob; /* NULL: all */
    struct client_options client;
};

enum option_id {
    OPTION_JSON = 256,
    OPTION_NAMES,
    OPTION_HELP,
};

static const struct option long_options[] = {
    {"json", no_argument, NULL, OPTION_JSON},
    {"names", no_argument, NULL, OPTION_NAMES},
    {"help", no_argument, NULL, OPTION_HELP},
    CLIENT_LONG_OPTIONS,
    {0},
};

/* Returns -1 to go on, else an exit status. */
static int parse(int argc, char **argv, struct options *options)
{
    int c;
    *options = (struct options){0};
    optind = 0;
    while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if (c == OPTION_JSON) {
            options->output = OUTPUT_JSON;
        } else if (c == OPTION_NAMES) {
            options->output = OUTPUT_NAMES;
        } else if (c == OPTION_HELP) {
            fputs(usage, stdout);
            return EXIT_SUCCESS;
        } else if (!client_option(&options->client, c, optarg)) {
            return command_usage("list", NULL, NULL); /* getopt has said what is wrong */
        }
    }
    if (optind + 1 < argc)
        return command_usage("list", "one name or glob at a time", "");
    options->glob = argv[optind];
    return -1;
}

/* "2026-11-20T23:18:15.123Z" to how long ago that was. */
static const char *age(const char *start, char text[SHORT_BYTES])
{
    struct tm tm = {0};
    char *end = strptime(start, "%Y-%m-%dT%H:%M:%S", &tm);
    time_t then = end ? timegm(&tm) : 0, now = time(NULL);
    if (!end)
        return "";
    return short_seconds(text, now > then ? (double)(now - then) : 0);
}

static void put_row(struct table *table, json_object *vm)
{
    char text[SHORT_BYTES], vcpus[SHORT_BYTES];
    double interval_ms = json_number(vm, "interval_ms", -1);
    const char *reason = json_text(vm, "reason"), *detail = json_text(vm, "detail");
    table_cell(table, json_text(vm, "vm"));
    table_cell(table, json_text(vm, "source"));
    table_cell(table, interval_ms < 0 ? "" : short_seconds(text, interval_ms / 1e3));
    table_cell(table, age(json_text(vm, "start_time"), text));
    (void)snprintf(vcpus, sizeof vcpus, "%d/%d", (int)json_i64(vm, "vcpus_read", 0),
                   (int)json_i64(vm, "vcpus", 0));
    table_cell(table, vcpus);
    table_cell(table, json_text(vm, "vmm"));
    (void)snprintf(text, sizeof text, "%d", (int)json_i64(vm, "pid", 0));
    table_cell(table, text);
    CLEANUP_BUFFER struct buffer why = BUFFER_INIT;
    buffer_printf(&why, "%s%s%s", reason, reason[0] && detail[0] ? ": " : "", detail);
    buffer_put(&why, "", 1);
    table_cell(table, why.error ? reason : why.data);
}

static int print_table(json_object *vms)
{
    static const char *const heads[] = {"NAME",  "SOURCE", "EVERY", "AGE",
                                        "VCPUS", "VMM",    "PID",   "NOT READ BECAUSE"};
    CLEANUP_TABLE struct table table = {.n_columns = ARRAY_LEN(heads), .right = 0x5c};
    for (size_t i = 0; i < ARRAY_LEN(heads); i++)
        table_cell(&table, heads[i]);
    for (size_t i = 0; i < json_object_array_length(vms); i++)
        put_row(&table, json_object_array_get_idx(vms, i));
    return table_print(&table, SIZE_MAX, SIZE_MAX, stdout);
}

static int print(json_object *vms, enum output output)
{
    switch (output) {
    case OUTPUT_TABLE:
        return print_table(vms);
    case OUTPUT_JSON: {
        const char *text = json_object_to_json_string_ext(vms, JSON_C_TO_STRING_PRETTY |
                                                                   JSON_C_TO_STRING_NOSLASHESCAPE);
        return text && puts(text) >= 0 ? 0 : -EIO;
    }
    case OUTPUT_NAMES:
        for (size_t i = 0; i < json_object_array_length(vms); i++) {
            json_object *vm = json_object_array_get_idx(vms, i);
            if (json_text(vm, "source")[0]) {
                print_plain(json_text(vm, "vm"), stdout);
                putchar('\n');
            }
        }
        return 0;
    }
    return -EINVAL;
}

int command_list(int argc, char **argv)
{
    CLEANUP_CLIENT struct client client = {0};
    CLEANUP_JSON json_object *json = NULL;
    CLEANUP_JSON json_object *chosen = json_object_new_array();
    json_object *vms = NULL;
    struct options options;
    int r = parse(argc, argv, &options);
    if (r >= 0)
        return r;
    r = client_open(&client, "list", &options.client);
    if (r < 0)
        return r == -EINVAL ? EXIT_USAGE : EXIT_FAILURE;
    if (!chosen)
        return EXIT_FAILURE;
    r = client_get_vms(&client, &json, &vms);
    if (r < 0) {
        client_complain(&client);
        return EXIT_FAILURE;
    }
    for (size_t i = 0; i < json_object_array_length(vms); i++) {
        json_object *vm = json_object_array_get_idx(vms, i);
        if (!options.glob || fnmatch(options.glob, json_text(vm, "vm"), 0) == 0)
            (void)json_object_array_add(chosen, json_object_get(vm));
    }
    bool none = json_object_array_length(chosen) == 0;
    if (none && options.output != OUTPUT_NAMES)
        fprintf(stderr, "kvmstatctl list: no VM%s%s\n", options.glob ? " fits " : "",
                options.glob ? options.glob : "");
    if (!none || options.output == OUTPUT_JSON)
        r = print(chosen, options.output);
    return r < 0 || none ? EXIT_FAILURE : EXIT_SUCCESS;
}
