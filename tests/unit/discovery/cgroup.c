/* SPDX-License-Identifier: Apache-2.0 */
#include "identity/cgroup.h"

#include <stdio.h>
#include <string.h>
#include <systemd/sd-login.h>

#include "proc.h"
#include "suites.h"

static const struct {
    const char *text, *slice, *unit, *machine;
} cases[] = {
    /* v2 */
    {"0::/machine.slice/machine-qemu\\x2d1\\x2dweb1.scope\n", "machine.slice",
     "machine-qemu\\x2d1\\x2dweb1.scope", "qemu-1-web1"},
    {"0::/machine.slice/machine-qemu\\x2d1\\x2dweb1.scope/libvirt/vcpu0\n", "machine.slice",
     "machine-qemu\\x2d1\\x2dweb1.scope", "qemu-1-web1"},
    {"0::/a.slice/a-b.slice/x.service/deep/er", "a-b.slice", "x.service", ""},
    {"0::/x.service", "", "x.service", ""},
    {"0::/init.scope\n", "", "init.scope", ""},
    {"0::/\n", "", "", ""},
    {"0::\n", "", "", ""},
    {"0::/user.slice\n", "", "", ""},
    {"0::/docker/0123abcd\n", "", "", ""},
    {"0::/docker/0123abcd/system.slice/x.service\n", "", "", ""},
    /* seen from within a container */
    {"0::/../../system.slice/x.service\n", "system.slice", "x.service", ""},
    {"0::/..\n", "", "", ""},
    {"0::/../x.service\n", "", "x.service", ""},
    /* a group that is going */
    {"0::/system.slice/x.service (deleted)\n", "system.slice", "x.service", ""},
    {"0:: (deleted)\n", "", "", ""},
    /* names that systemd would not let stand alone */
    {"0::/_cpu.slice/_cgroup.service\n", "cpu.slice", "cgroup.service", ""},
    {"0::/_\n", "", "", ""},
    {"0::/_/x.service\n", "", "", ""},
    /* no units */
    {"0::/.service\n", "", "", ""},
    {"0::/.slice/x.service\n", "", "", ""},
    {"0::/@x.service\n", "", "", ""},
    {"0::/x y.service\n", "", "", ""},
    {"0::/x\377.service\n", "", "", ""},
    {"0::/x.services\n", "", "", ""},
    {"0::/x.target\n", "", "", ""},
    /* units of every type that owns a group; instances */
    {"0::/vm@a\\x20b.service/x\n", "", "vm@a\\x20b.service", ""},
    {"0::/a.socket\n", "", "a.socket", ""},
    {"0::/a.mount\n", "", "a.mount", ""},
    {"0::/a.swap\n", "", "a.swap", ""},
    /* what a unit makes below itself is its own matter */
    {"0::/user.slice/user@1.service/machine.slice/machine-qemu\\x2d9\\x2dother.scope\n",
     "user.slice", "user@1.service", ""},
    {"0::/system.slice/x.service/qemu-9-other.libvirt-qemu\n", "system.slice", "x.service", ""},
    /* escapes */
    {"0::/machine-a\\x2.scope\n", "", "machine-a\\x2.scope", ""},
    {"0::/machine-a\\xzz.scope\n", "", "machine-a\\xzz.scope", ""},
    {"0::/machine-a\\x2g.scope\n", "", "machine-a\\x2g.scope", ""},
    {"0::/machine-a\\.scope\n", "", "machine-a\\.scope", ""},
    {"0::/machine-a\\x.scope\n", "", "machine-a\\x.scope", ""},
    {"0::/machine-\\x00.scope\n", "", "machine-\\x00.scope", ""},
    {"0::/machine-a\\x2fb.scope\n", "", "machine-a\\x2fb.scope", ""},
    {"0::/machine-a-b.scope\n", "", "machine-a-b.scope", ""},
    {"0::/machine-a\\X2db.scope\n", "", "machine-a\\X2db.scope", ""},
    {"0::/machine-a\\x5cx2d\\x2D\\xff.scope\n", "", "machine-a\\x5cx2d\\x2D\\xff.scope",
     "a\\x2d-\377"},
    {"0::/machine-a_b.c:d.scope\n", "", "machine-a_b.c:d.scope", "a_b.c:d"},
    {"0::/machine-.scope\n", "", "machine-.scope", ""},
    {"0::/machine.scope\n", "", "machine.scope", ""},
    {"0::/machine-a.service\n", "", "machine-a.service", ""},
    /* v1: systemd's hierarchy first, wherever it stands */
    {"3:cpu:/machine.slice/machine-b.scope/emulator\n1:name=systemd:/machine.slice/machine-a.scope\n"
     "0::/machine.slice/machine-c.scope\n",
     "machine.slice", "machine-a.scope", "a"},
    {"3:cpu:/x.service\n1:name=systemd:/\n0::/y.service\n", "", "y.service", ""},
    {"3:cpu,cpuacct:/vm.slice/x.service\n1:name=systemd:/\n0::/\n", "vm.slice", "x.service", ""},
    {"1:name=elogind:/2\n0::/\n", "", "", ""},
    /* v1, libvirt without systemd; or with one that it does not use */
    {"5:cpu,cpuacct:/machine/qemu-1-web1.libvirt-qemu/emulator\n1:name=systemd:/\n", "", "",
     "qemu-1-web1"},
    {"5:cpuset:/machine/qemu-1-web1.libvirt-qemu\n1:name=systemd:/system.slice/libvirtd.service\n",
     "system.slice", "libvirtd.service", "qemu-1-web1"},
    {"5:cpuset:/machine/production.partition/_qemu-1-web1.libvirt-qemu/vcpu0\n", "", "",
     "qemu-1-web1"},
    {"0::/machine/ch-2-web1.libvirt-ch\n", "", "", "ch-2-web1"},
    {"5:cpuset:/machine/.libvirt-qemu\n", "", "", ""},
    {"5:cpuset:/machine/lxc-1-web1.libvirt-lxc\n", "", "", ""},
    /* no cgroup file */
    {"", "", "", ""},
    {"\n\n\n", "", "", ""},
    {":\n::\n:::\n", "", "", ""},
    {"::/x.service\n", "", "x.service", ""},
    {"0:\n0\nx\n/x.service\n", "", "", ""},
    {"0::/x:y.service\n", "", "x:y.service", ""},
    {"0::////a.slice////x.service////\n", "a.slice", "x.service", ""},
};

START_TEST(parses)
{
    CLEANUP_CGROUP struct cgroup cgroup = {0};
    ck_assert_int_eq(cgroup_parse(cases[_i].text, &cgroup), 0);
    ck_assert_str_eq(cgroup.slice, cases[_i].slice);
    ck_assert_str_eq(cgroup.unit, cases[_i].unit);
    ck_assert_str_eq(cgroup.machine, cases[_i].machine);
}
END_TEST

/* What systemd would write for a machine of any name comes back. */
START_TEST(random_machines_come_back)
{
    static const char plain[] = "abcXYZ019_.:";
    for (int round = 0; round < 2000; round++) {
        CLEANUP_CGROUP struct cgroup cgroup = {0};
        char name[40], escaped[sizeof name * 4], text[sizeof escaped + 80];
        size_t n = 1 + testing_random_below(sizeof name - 2), at = 0;
        for (size_t i = 0; i < n; i++) {
            do
                name[i] = testing_random_below(2) ? plain[testing_random_below(sizeof plain - 1)]
                                                  : (char)(1 + testing_random_below(255));
            while (name[i] == '/');
            /* systemd leaves letters, digits, ":", "_" and "." as they are. */
            if (strchr(plain, name[i]))
                escaped[at++] = name[i];
            else
                at += (size_t)sprintf(escaped + at, "\\x%02x", (unsigned char)name[i]);
        }
        name[n] = escaped[at] = '\0';
        (void)sprintf(text, "0::/machine.slice/machine-%s.scope%s\n", escaped,
                      testing_random_below(2) ? "/libvirt/emulator" : "");
        ck_assert_int_eq(cgroup_parse(text, &cgroup), 0);
        ck_assert_str_eq(cgroup.machine, name);
    }
}
END_TEST

/* Where systemd runs, libsystemd is the judge. */
START_TEST(agrees_with_libsystemd)
{
    CLEANUP_FREE pid_t *pids = NULL;
    struct proc proc;
    size_t n;
    unsigned compared = 0;

    ck_assert_int_eq(proc_open("", &proc), 0);
    ck_assert_int_eq(proc_list(&proc, &pids, &n), 0);
    for (size_t i = 0; i < n; i++) {
        CLEANUP_CGROUP struct cgroup cgroup = {0};
        CLEANUP_FREE char *unit = NULL, *again = NULL, *text = NULL;
        size_t len;
        if (sd_pid_get_unit(pids[i], &unit) < 0 ||
            proc_read(&proc, pids[i], "cgroup", 65536, &text, &len) < 0)
            continue;
        ck_assert_int_eq(cgroup_parse(text, &cgroup), 0);
        /* It may have moved meanwhile. */
        if (sd_pid_get_unit(pids[i], &again) < 0 || strcmp(unit, again) != 0)
            continue;
        ck_assert_str_eq(cgroup.unit, unit);
        compared++;
    }
    proc_close(&proc);
    printf("# compared %u of %zu processes with libsystemd\n", compared, n);
}
END_TEST

Suite *suite_cgroup(void)
{
    Suite *suite = suite_create("cgroup");
    TCase *tcase = tcase_create("cgroup");
    tcase_add_loop_test(tcase, parses, 0, (int)ARRAY_LEN(cases));
    tcase_add_test(tcase, random_machines_come_back);
    tcase_add_test(tcase, agrees_with_libsystemd);
    suite_add_tcase(suite, tcase);
    return suite;
}
