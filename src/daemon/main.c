/* SPDX-License-Identifier: Apache-2.0 */
/* Arguments, exit codes, signals. Exit 0: as asked; 1: could not; 2: wrong arguments or
 * configuration. */
#include <getopt.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "app.h"
#include "clock.h"
#include "fdstore.h"
#include "http.h"
#include "service.h"
#include "version.h"

#define DEFAULT_CONFIG "/etc/kvmstatd/kvmstatd.yaml"

enum {
    EXIT_USAGE = 2,
    TRIM_ABOVE_BYTES = 64 << 10,
};

struct options {
    const char *config_path; /* NULL: the default, which may be missing */
    bool check_config;
    bool once;
    struct string_list listen;        /* items are argv's, or those of `passed_listen` */
    struct string_list passed_listen; /* sockets of systemd's; items owned */
    const char *web_config_file;
    const char *log_level;
};

static void options_free(struct options *options)
{
    free(options->listen.items);
    for (size_t i = 0; i < options->passed_listen.n; i++)
        free(options->passed_listen.items[i]);
    free(options->passed_listen.items);
}

static const char usage[] =
    "Usage: kvmstatd [OPTION]...\n"
    "Samples the kernel's binary statistics of every KVM virtual machine and serves them to Prometheus.\n"
    "\n"
    "  --config FILE               configuration (default " DEFAULT_CONFIG ", if it is there)\n"
    "  --check-config              check the configuration and exit\n"
    "  --once                      sample every VM once, print the exposition and exit\n"
    "  --web.listen-address ADDR   HOST:PORT, [V6]:PORT, :PORT or unix:PATH; may be repeated\n"
    "  --web.config.file FILE      TLS, users, headers, rate limit, in exporter-toolkit's format\n"
    "  --log.level LEVEL           error, warn, info or debug\n"
    "  --version                   print the version and exit\n"
    "  --help                      print this and exit\n";

enum option_id {
    OPTION_CONFIG = 256,
    OPTION_CHECK_CONFIG,
    OPTION_ONCE,
    OPTION_LISTEN,
    OPTION_WEB_CONFIG,
    OPTION_LOG_LEVEL,
    OPTION_VERSION,
    OPTION_HELP,
};

static const struct option long_options[] = {
    {"config", required_argument, NULL, OPTION_CONFIG},
    {"check-config", no_argument, NULL, OPTION_CHECK_CONFIG},
    {"once", no_argument, NULL, OPTION_ONCE},
    {"web.listen-address", required_argument, NULL, OPTION_LISTEN},
    {"web.config.file", required_argument, NULL, OPTION_WEB_CONFIG},
    {"log.level", required_argument, NULL, OPTION_LOG_LEVEL},
    {"version", no_argument, NULL, OPTION_VERSION},
    {"help", no_argument, NULL, OPTION_HELP},
    {0},
};

static int wrong_usage(const char *what, const char *argument)
{
    if (what)
        fprintf(stderr, "kvmstatd: %s%s\n", what, argument);
    fputs("Try 'kvmstatd --help'.\n", stderr);
    return EXIT_USAGE;
}

static int list_add(struct string_list *list, char *item)
{
    char **items = reallocarray(list->items, list->n + 1, sizeof *items);
    if (!items)
        return -ENOMEM;
    list->items = items;
    list->items[list->n++] = item;
    return 0;
}

static int add_listen(struct options *options, char *address)
{
    struct listen_address parsed;
    struct config_error error;
    if (config_parse_listen(address, &parsed, &error) < 0) {
        fprintf(stderr, "kvmstatd: --web.listen-address: %s\n", error.message);
        return EXIT_USAGE;
    }
    return list_add(&options->listen, address) < 0 ? EXIT_FAILURE : 0;
}

/* Sockets that systemd listens on for us are served instead of web.listen. Returns 0 or -ENOMEM. */
static int add_passed(struct options *options, const struct passed_fds *passed)
{
    for (size_t i = 0; i < passed->n; i++) {
        char *item;
        if (strcmp(passed->fds[i].name, PASSED_WEB) != 0)
            continue;
        if (asprintf(&item, PASSED_LISTEN "%d", passed->fds[i].fd) < 0)
            return -ENOMEM;
        if (list_add(&options->passed_listen, item) < 0) {
            free(item);
            return -ENOMEM;
        }
        if (list_add(&options->listen, item) < 0)
            return -ENOMEM;
    }
    return 0;
}

/* Returns -1 to go on, else the exit status. */
static int parse_arguments(int argc, char **argv, struct options *options)
{
    int c, r;
    while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        switch (c) {
        case OPTION_CONFIG:
            options->config_path = optarg;
            break;
        case OPTION_CHECK_CONFIG:
            options->check_config = true;
            break;
        case OPTION_ONCE:
            options->once = true;
            break;
        case OPTION_LISTEN:
            r = add_listen(options, optarg);
            if (r)
                return r;
            break;
        case OPTION_WEB_CONFIG:
            options->web_config_file = optarg;
            break;
        case OPTION_LOG_LEVEL:
            options->log_level = optarg;
            break;
        case OPTION_VERSION:
            printf("kvmstatd %s (revision %s)\n", KVMSTATD_VERSION, KVMSTATD_REVISION);
            return EXIT_SUCCESS;
        case OPTION_HELP:
            fputs(usage, stdout);
            return EXIT_SUCCESS;
        default:
            return wrong_usage(NULL, NULL); /* getopt has said what is wrong */
        }
    }
    return optind < argc ? wrong_usage("unexpected argument: ", argv[optind]) : -1;
}

/* Arguments win over the file. `config` is not shared yet. */
static int apply_arguments(const struct options *options, struct config *config)
{
    if (options->listen.n) {
        int r = config_set_listen(config, &options->listen);
        if (r < 0)
            return r;
    }
    if (options->web_config_file) {
        char *copy = strdup(options->web_config_file);
        if (!copy)
            return -ENOMEM;
        free(config->web.config_file);
        config->web.config_file = copy;
    }
    if (options->log_level)
        return log_level_parse(options->log_level, &config->log_level);
    return 0;
}

/*
 * `in_force` is NULL at a start, where the file may be a pipe. Read again, a pipe would hold up
 * this thread until somebody writes, or be at its end, which is an empty configuration and a valid
 * one. Nor does a file that has gone, perhaps while it is being replaced, mean the defaults: users
 * and TLS would go with it. Returns 0, or -errno with the message in *ret_error.
 */
static int read_config(const struct options *options, const struct config *in_force,
                       struct config **ret_config, struct config_error *ret_error)
{
    CLEANUP(cleanup_config_unref) struct config *config = NULL;
    const char *path = options->config_path ? options->config_path : DEFAULT_CONFIG;
    int r = config_load(path, in_force != NULL, &config, ret_error);
    if (r == -ENOENT && !options->config_path && !(in_force && in_force->of_file))
        r = config_defaults(&config);
    if (r == 0)
        r = apply_arguments(options, config);
    if (r == -ENOMEM)
        (void)snprintf(ret_error->message, sizeof ret_error->message, "%s: out of memory", path);
    if (r == 0)
        r = http_check(config, ret_error);
    if (r == 0)
        *ret_config = steal_ptr(&config);
    return r;
}

/* The verdict of --check-config. Returns the exit status. */
static int say_valid(const struct options *options)
{
    if (!options->config_path && access(DEFAULT_CONFIG, F_OK) < 0)
        puts("There is no " DEFAULT_CONFIG "; the built-in defaults hold.");
    else
        printf("%s: valid\n", options->config_path ? options->config_path : DEFAULT_CONFIG);
    return EXIT_SUCCESS;
}

static void reload(const struct options *options, struct app *app, struct service *service)
{
    CLEANUP(cleanup_config_unref) struct config *config = NULL;
    struct config_error error;
    service_reloading();
    if (read_config(options, app_config(app), &config, &error) < 0 ||
        app_reload(app, config, &error) < 0) {
        app_reload_failed(app); /* who reads the line finds it counted */
        log_error("config", "%s; the configuration in force stays", error.message);
    }
    service_ready(service);
}

/* Until a signal has come or it is time for something else. */
static void wait_for_signal(int signals, int64_t due_ns)
{
    struct pollfd pollfd = {.fd = signals, .events = POLLIN};
    int timeout_ms = -1;
    if (due_ns != INT64_MAX) {
        int64_t left_ns = MAX_OF(due_ns - clock_now_ns(), 0);
        timeout_ms = (int)MIN_OF((left_ns + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC, INT32_MAX);
    }
    (void)poll(&pollfd, 1, timeout_ms);
}

/* Waits for signals until one says stop. */
static void serve(const struct options *options, struct app *app, int signals)
{
    const struct service_source source = app_service_source(app);
    struct signalfd_siginfo info;
    struct service service;
    service_init(&service);
    service_ready(&service);
    for (;;) {
        service_tend(&service, &source);
        wait_for_signal(signals, service_due_ns(&service));
        ssize_t n = read(signals, &info, sizeof info);
        if (n != sizeof info)
            continue; /* EAGAIN: there was none */
        if (info.ssi_signo == SIGHUP) {
            reload(options, app, &service);
            continue;
        }
        if (info.ssi_signo == SIGUSR1) {
            app_dump(app);
            continue;
        }
        log_info("daemon", "stopping on %s", strsignal((int)info.ssi_signo));
        service_stopping();
        return;
    }
}

/* Before any thread: they all inherit the mask, so that only the signalfd sees these signals. */
static int open_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGUSR1);
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int run_once(struct app *app)
{
    int n = app_once(app);
    if (n < 0)
        fprintf(stderr, "kvmstatd: %s\n", strerror(-n));
    else if (n == 0)
        fputs("kvmstatd: no VM could be read; --log.level info says what there is, and what is "
              "in the way\n",
              stderr);
    return n > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/*
 * One heap for all threads: what one allocates another often frees (a connection, a VM), and with a
 * heap for each thread every one of them keeps its own worst moment. Nothing that is in a hurry
 * allocates.
 */
static void settle_heap(void)
{
    (void)mallopt(M_ARENA_MAX, 1);
    /*
     * Else one large block that is freed raises both thresholds for ever, up to 64 MiB, and what a
     * burst of connections took would stay with us.
     */
    (void)mallopt(M_TRIM_THRESHOLD, TRIM_ABOVE_BYTES);
}

int main(int argc, char **argv)
{
    CLEANUP(options_free) struct options options = {0};
    struct config_error error;
    enum log_level level;
    CLEANUP(passed_fds_free) struct passed_fds passed = {0};
    CLEANUP(cleanup_config_unref) struct config *config = NULL;
    CLEANUP(cleanup_app_free) struct app *app = NULL;

    settle_heap();
    int status = parse_arguments(argc, argv, &options);
    if (status >= 0)
        return status;
    if (service_take_passed(&passed) < 0 || add_passed(&options, &passed) < 0)
        return EXIT_FAILURE;
    /* Before anything else: what came back of VMs whose VMM has gone holds their memory. */
    size_t n_gone = fdstore_drop_gone(&passed);
    if (options.log_level && log_level_parse(options.log_level, &level) < 0)
        return wrong_usage("--log.level wants error, warn, info or debug, not ", options.log_level);
    if (read_config(&options, NULL, &config, &error) < 0) {
        fprintf(stderr, "%s\n", error.message);
        return EXIT_USAGE;
    }
    if (options.check_config)
        return say_valid(&options);
    log_set_level(options.once && !options.log_level ? LOG_LEVEL_ERROR : config->log_level);

    CLEANUP_FD int signals = open_signals();
    if (signals < 0 || app_new(config, &app) < 0)
        return EXIT_FAILURE;
    if (options.once)
        return run_once(app);
    log_info("daemon", "kvmstatd %s (revision %s)", KVMSTATD_VERSION, KVMSTATD_REVISION);
    if (n_gone)
        log_info("daemon", "let go of %zu stored files of VMs whose VMM has exited meanwhile",
                 n_gone);
    app_take_passed(app, &passed);
    if (app_start(app) < 0)
        return EXIT_FAILURE;
    serve(&options, app, signals);
    return EXIT_SUCCESS;
}
