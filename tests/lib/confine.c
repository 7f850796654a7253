/* SPDX-License-Identifier: Apache-2.0 */
/*
 * confine FILE PROGRAM [ARGUMENT]…: becomes the program, which may make the system calls that FILE
 * names, one a line, and is killed at any other. (The unit lets others fail with EPERM; a test
 * wants to know of them.)
 */
#include <errno.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int allow(scmp_filter_ctx filter, const char *path)
{
    char name[64];
    FILE *file = fopen(path, "re");
    int r = file ? 0 : -errno;
    while (r == 0 && fscanf(file, "%63s", name) == 1) {
        int call = seccomp_syscall_resolve_name(name);
        if (call != __NR_SCMP_ERROR)
            r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0);
    }
    if (file)
        (void)fclose(file);
    return r;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fputs("Usage: confine FILE PROGRAM [ARGUMENT]...\n", stderr);
        return 2;
    }
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
    int r = filter ? allow(filter, argv[1]) : -ENOMEM;
    if (r == 0)
        r = seccomp_load(filter);
    if (r == 0) {
        (void)execv(argv[2], argv + 2);
        r = -errno;
    }
    fprintf(stderr, "confine: %s: %s\n", argv[2], strerror(-r));
    return EXIT_FAILURE;
}
