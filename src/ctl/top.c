/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `kvmstatctl top`: rates between two scrapes. /metrics has what is needed of all VMs in one
 * answer. What the sampler counts is divided by the time between the samples, which is told with
 * them; the scheduler's counters have no such time and are read once a second, so they are averaged
 * over more.
 */
#include <fnmatch.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "client.h"
#include "clock.h"
#include "commands.h"
#include "config.h"
#include "scrape.h"
#include "screen.h"
#include "stop.h"
#include "table.h"

#define INTERVAL_DEFAULT_NS (2 * NSEC_PER_SEC)
#define METRICS_BYTES_MAX   ((size_t)1 << 30)
/* How many scrapes the scheduler's counters are averaged over. */
enum {
    SCRAPES = 5
};

static const char usage[] =
    "Usage: kvmstatctl top [OPTION]... [GLOB]\n"
    "Shows the busiest VMs, again and again; one table where standard output is no terminal.\n"
    "\n"
    "  --interval TIME how often (default: 2s)\n"
    "  --sort COLUMN   exits, peak, cpu, wait, halt or name (default: exits)\n" CLIENT_USAGE "\n"
    "Keys: e, p, c, w, h, n sort by exits, peak, cpu, wait, halt, name; q ends.\n";

enum column {
    COLUMN_EXITS,
    COLUMN_PEAK,
    COLUMN_CPU,
    COLUMN_WAIT,
    COLUMN_HALT,
    COLUMN_NAME,
    COLUMNS,
};
static const char *const column_names[COLUMNS] = {"exits", "peak", "cpu", "wait", "halt", "name"};

struct options {
    const char *glob; /* NULL: all */
    int64_t interval_ns;
    enum column sort;
    struct client_options client;
};

enum option_id {
    OPTION_INTERVAL = 256,
    OPTION_SORT,
    OPTION_HELP,
};

static const struct option long_options[] = {
    {"interval", required_argument, NULL, OPTION_INTERVAL},
    {"sort", required_argument, NULL, OPTION_SORT},
    {"help", no_argument, NULL, OPTION_HELP},
    CLIENT_LONG_OPTIONS,
    {0},
};

static bool parse_sort(const char *text, enum column *ret_column)
{
    for (unsigned i = 0; i < COLUMNS; i++) {
        if (strcmp(text, column_names[i]) == 0) {
            *ret_column = (enum column)i;
            return true;
        }
    }
    return false;
}

/* Returns -1 to go on, else an exit status. */
static int parse_option(int c, struct options *options)
{
    switch (c) {
    case OPTION_INTERVAL:
        return config_parse_duration(optarg, &options->interval_ns) == 0 &&
                       options->interval_ns >= 100 * NSEC_PER_MSEC
                   ? -1
                   : command_usage("top", "--interval wants 100ms or more, as 2s, not ", optarg);
    case OPTION_SORT:
        return parse_sort(optarg, &options->sort)
                   ? -1
                   : command_usage("top", "--sort wants one of the columns, not ", optarg);
    case OPTION_HELP:
        fputs(usage, stdout);
        return EXIT_SUCCESS;
    default:
        return client_option(&options->client, c, optarg) ? -1 : command_usage("top", NULL, NULL);
    }
}

static int parse(int argc, char **argv, struct options *options)
{
    int c, status = -1;
    *options = (struct options){.interval_ns = INTERVAL_DEFAULT_NS};
    optind = 0;
    while (status < 0 && (c = getopt_long(argc, argv, "", long_options, NULL)) != -1)
        status = parse_option(c, options);
    if (status < 0 && optind + 1 < argc)
        return command_usage("top", "one name or glob at a time", "");
    options->glob = argv[optind];
    return status;
}

/* --- rates --- */

struct row {
    const struct scrape_vm *vm;  /* the newest scrape's */
    double columns[COLUMN_NAME]; /* NAN: not known */
};

static double rise(const struct scrape_vm *now, const struct scrape_vm *before,
                   enum scrape_value which, double seconds)
{
    double difference = before ? now->values[which] - before->values[which] : NAN;
    return seconds > 0 && difference >= 0 ? difference / seconds : NAN;
}

static void fill_row(struct row *row, const struct scrape *before, const struct scrape *oldest,
                     const struct scrape *now, size_t i)
{
    const struct scrape_vm *vm = &now->vms[i];
    const struct scrape_vm *last = before ? scrape_find(before, vm->name, i) : NULL;
    const struct scrape_vm *old = oldest ? scrape_find(oldest, vm->name, i) : NULL;
    double tick_s = last ? vm->values[SCRAPE_TIME] - last->values[SCRAPE_TIME] : NAN;
    double old_s = oldest ? (double)(now->at_ns - oldest->at_ns) / (double)NSEC_PER_SEC : NAN;
    *row = (struct row){.vm = vm};
    row->columns[COLUMN_EXITS] = rise(vm, last, SCRAPE_EXITS, tick_s);
    row->columns[COLUMN_HALT] = rise(vm, last, SCRAPE_HALT, tick_s);
    row->columns[COLUMN_PEAK] = vm->values[SCRAPE_PEAK];
    row->columns[COLUMN_CPU] = rise(vm, old, SCRAPE_CPU, old_s);
    row->columns[COLUMN_WAIT] = rise(vm, old, SCRAPE_WAIT, old_s);
}

static int compare(const void *a, const void *b, void *ctx)
{
    const struct row *x = a, *y = b;
    enum column sort = *(const enum column *)ctx;
    if (sort < COLUMN_NAME) {
        /* What is not known comes last. */
        double vx = isnan(x->columns[sort]) ? -1 : x->columns[sort];
        double vy = isnan(y->columns[sort]) ? -1 : y->columns[sort];
        if (vx != vy)
            return vx < vy ? 1 : -1;
    }
    return strcmp(x->vm->name, y->vm->name);
}

static void put_rate(struct table *table, double value)
{
    char text[SHORT_BYTES];
    table_cell(table, isnan(value) ? "" : short_count(text, value < 100 ? round(value) : value));
}

static void put_percent(struct table *table, double value)
{
    char text[SHORT_BYTES];
    table_cell(table, isnan(value) ? "" : short_percent(text, value));
}

/* Returns how many VMs there are, or -ENOMEM. */
static int print_table(const struct options *options, const struct scrape *scrapes, size_t n,
                       size_t max_rows, size_t max_width, FILE *to)
{
    static const char *const heads[] = {"NAME", "VCPUS", "EXITS/s", "PEAK/s",
                                        "CPU",  "WAIT",  "HALT"};
    CLEANUP_TABLE struct table table = {.n_columns = ARRAY_LEN(heads), .right = 0x7e};
    const struct scrape *now = &scrapes[0];
    CLEANUP_FREE struct row *rows = calloc(now->n_vms + 1, sizeof *rows);
    enum column sort = options->sort;
    size_t n_rows = 0;
    for (size_t i = 0; rows && i < now->n_vms; i++) {
        if (!options->glob || fnmatch(options->glob, now->vms[i].name, 0) == 0)
            fill_row(&rows[n_rows++], n > 1 ? &scrapes[1] : NULL, n > 1 ? &scrapes[n - 1] : NULL,
                     now, i);
    }
    if (!rows || !n_rows)
        return rows ? 0 : -ENOMEM;
    qsort_r(rows, n_rows, sizeof *rows, compare, &sort);
    for (size_t i = 0; i < ARRAY_LEN(heads); i++)
        table_cell(&table, heads[i]);
    for (size_t i = 0; i < n_rows && i < max_rows; i++) {
        table_cell(&table, rows[i].vm->name);
        put_rate(&table, rows[i].vm->values[SCRAPE_VCPUS]);
        put_rate(&table, rows[i].columns[COLUMN_EXITS]);
        put_rate(&table, rows[i].columns[COLUMN_PEAK]);
        put_percent(&table, rows[i].columns[COLUMN_CPU]);
        put_percent(&table, rows[i].columns[COLUMN_WAIT]);
        put_percent(&table, rows[i].columns[COLUMN_HALT]);
    }
    int r = table_print(&table, max_rows, max_width, to);
    return r < 0 ? r : (int)MIN_OF(n_rows, (size_t)INT32_MAX);
}

/* --- again and again --- */

struct top {
    struct client client;
    struct options options;
    struct scrape scrapes[SCRAPES]; /* the newest first */
    size_t n;
};

static void top_free(struct top *top)
{
    for (size_t i = 0; i < SCRAPES; i++)
        scrape_free(&top->scrapes[i]);
    client_close(&top->client);
}
#define CLEANUP_TOP CLEANUP(top_free)

static int take(struct top *top)
{
    struct scrape scrape = {0};
    int r = client_get(&top->client, "/metrics", METRICS_BYTES_MAX);
    if (r < 0)
        return r;
    scrape.at_ns = clock_now_ns();
    r = scrape_parse(&scrape, top->client.body.data, top->client.body.len);
    if (r < 0) {
        scrape_free(&scrape);
        (void)snprintf(top->client.message, sizeof top->client.message, "%s",
                       r == -EBADMSG ? "its /metrics is not what kvmstatd gives" : "no memory");
        return r;
    }
    scrape_free(&top->scrapes[SCRAPES - 1]);
    memmove(&top->scrapes[1], &top->scrapes[0], (SCRAPES - 1) * sizeof top->scrapes[0]);
    top->scrapes[0] = scrape;
    top->n = MIN_OF(top->n + 1, (size_t)SCRAPES);
    return 0;
}

static void key(struct top *top, int c)
{
    static const char keys[] = "epcwhn";
    const char *found = c > 0 ? strchr(keys, c) : NULL;
    if (found)
        top->options.sort = (enum column)(found - keys);
    if (c == 'q' || c == 3)
        stop_asked = 1;
}

static void draw(const struct top *top, const char *trouble)
{
    CLEANUP_FREE char *text = NULL;
    char head[128];
    size_t len = 0, rows, width;
    FILE *to = open_memstream(&text, &len);
    if (!to)
        return;
    screen_size(&rows, &width);
    (void)snprintf(head, sizeof head, "kvmstatctl top, by %s (e p c w h n; q ends)  %s",
                   column_names[top->options.sort], trouble);
    fprintf(to, "%.*s\n\n", (int)width, head);
    int r = print_table(&top->options, top->scrapes, top->n, rows > 3 ? rows - 3 : 1, width, to);
    if (r <= 0)
        fputs(r < 0 ? "no memory\n" : "no VM that is read\n", to);
    if (fclose(to) == 0)
        screen_draw(text);
}

static int run_on_screen(struct top *top)
{
    if (screen_begin() < 0)
        return -EIO;
    const char *trouble = "";
    int64_t next_ns = clock_now_ns();
    while (!stop_asked) {
        int64_t now_ns = clock_now_ns();
        if (now_ns >= next_ns) {
            int r = take(top);
            trouble = r < 0 ? "no answer, trying again" : "";
            next_ns = clock_now_ns() + (top->n < 2 ? NSEC_PER_SEC : top->options.interval_ns);
        }
        draw(top, trouble);
        key(top, screen_key(next_ns - clock_now_ns()));
    }
    screen_end();
    return 0;
}

static int run_once(struct top *top)
{
    struct timespec second = {1, 0};
    struct pollfd none = {.fd = -1};
    (void)stop_wait(&none, &second);
    if (stop_asked)
        return 0;
    int r = take(top);
    if (r < 0)
        return r;
    r = print_table(&top->options, top->scrapes, top->n, SIZE_MAX, SIZE_MAX, stdout);
    if (r == 0)
        (void)snprintf(top->client.message, sizeof top->client.message, "no VM that is read%s%s",
                       top->options.glob ? " fits " : "",
                       top->options.glob ? top->options.glob : "");
    return r == 0 ? -ENOENT : r;
}

int command_top(int argc, char **argv)
{
    CLEANUP_TOP struct top top = {0};
    int r = parse(argc, argv, &top.options);
    if (r >= 0)
        return r;
    r = client_open(&top.client, "top", &top.options.client);
    if (r < 0)
        return r == -EINVAL ? EXIT_USAGE : EXIT_FAILURE;
    stop_catch();
    top.client.stop = &stop_asked;
    r = take(&top); /* before the screen is taken: what is wrong is said where it can be read */
    if (r == 0)
        r = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) ? run_on_screen(&top) : run_once(&top);
    if (r < 0 && r != -EINTR)
        client_complain(&top.client);
    return r < 0 && r != -EINTR ? EXIT_FAILURE : EXIT_SUCCESS;
}
