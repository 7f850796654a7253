/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvmstatd-demo-vm: tiny VMs that really run on /dev/kvm and make exits as told; for
 * demonstrations, tests and benchmarks. A single VM runs in the very process that was started,
 * several in one process each.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "fail.h"
#include "launcher.h"
#include "machine.h"
#include "options.h"
#include "parent.h"

enum {
    EXIT_USAGE = 2
};

/* Blocked in all threads, and so taken one after another where they are waited for. */
static sigset_t block_signals(void)
{
    sigset_t signals;
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigaddset(&signals, SIGINT);
    (void)sigaddset(&signals, SIGUSR1);
    (void)sigaddset(&signals, SIGCHLD);
    if (sigprocmask(SIG_BLOCK, &signals, NULL) < 0 || signal(SIGPIPE, SIG_IGN) == SIG_ERR)
        fail_errno("signals");
    return signals;
}

static void run_machine(const struct options *options, const sigset_t *signals)
{
    const struct machine *machine = machine_start(options);
    printf("vm %s %d\n", options->name ? options->name : "-", (int)getpid());
    if (!launcher_tell_ready())
        printf("ready 1\n");
    for (;;) {
        switch (sigwaitinfo(signals, NULL)) {
        case SIGUSR1:
            machine_print_counts(machine);
            break;
        case SIGTERM:
        case SIGINT:
            _exit(EXIT_SUCCESS); /* the vCPUs' threads go with the process */
        }
    }
}

int main(int argc, char **argv)
{
    struct options options;
    pid_t parent = getppid();
    switch (options_parse(argc, argv, &options)) {
    case OPTIONS_DONE:
        return EXIT_SUCCESS;
    case OPTIONS_USAGE:
        return EXIT_USAGE;
    case OPTIONS_RUN:
        break;
    }
    parent_follow(parent);
    fail_set_name(options.name);
    /* A line is one write(): those of many VMs on one standard output don't mix. */
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    sigset_t signals = block_signals();
    if (options.vms > 1)
        return launcher_run(&options, argv[0]);
    run_machine(&options, &signals);
}
