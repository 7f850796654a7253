/* SPDX-License-Identifier: Apache-2.0 */
/* What of /proc is seen, and by whom. */
#include "proc.h"

#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include "suites.h"
#include "testing.h"

enum {
    NOBODY = 65534,
};

/* As for a user of one's own with CAP_SYS_PTRACE, where /proc hides what one may not trace. */
START_TEST(sees_by_its_capabilities)
{
    CLEANUP(proc_close) struct proc proc = {.dir_fd = -1};
    pid_t parent = getppid();
    if (geteuid() != 0)
        testing_skip("needs root");
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("proc", "/proc", "proc", 0, "hidepid=ptraceable") < 0)
        testing_skip("no /proc with hidepid=ptraceable is to be had");
    ck_assert_int_eq(setresuid(NOBODY, 0, 0), 0);
    ck_assert_int_eq(proc_open("", &proc), 0);
    ck_assert(proc_has_thread(&proc, parent, parent));
    ck_assert_int_eq(setresuid(NOBODY, NOBODY, NOBODY), 0);
    ck_assert(!proc_has_thread(&proc, parent, parent));
    ck_assert(proc_has_thread(&proc, getpid(), getpid()));
    ck_assert(proc_hides_others(&proc));
}
END_TEST

Suite *suite_proc(void)
{
    Suite *suite = suite_create("proc");
    TCase *tcase = tcase_create("seen");
    tcase_add_test(tcase, sees_by_its_capabilities);
    suite_add_tcase(suite, tcase);
    return suite;
}
