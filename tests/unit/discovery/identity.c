/* SPDX-License-Identifier: Apache-2.0 */
#include "identity/stack.h"

#include <stdio.h>
#include <string.h>

#include "suites.h"
#include "tree.h"

static struct tree tree;
static struct proc proc;

static void setup(void)
{
    tree_make(&tree, 1);
    ck_assert_int_eq(proc_open(tree.root, &proc), 0);
}

static void teardown(void)
{
    proc_close(&proc);
    tree_remove(&tree);
}

#define QEMU "/usr/bin/qemu-system-x86_64"

/* A command line as /proc has it: each argument with its NUL. */
static const struct {
    const char *exe, *cmdline;
    size_t len;
    const char *vmm, *name, *uuid;
} cases[] = {
#define CASE(exe, cmdline, vmm, name, uuid)                \
    {                                                      \
        exe, cmdline, sizeof(cmdline) - 1, vmm, name, uuid \
    }
    /* libvirt */
    CASE(QEMU, QEMU "\0-name\0guest=web1,debug-threads=on\0-S\0-uuid\0c7a5-1\0", "qemu", "web1",
         "c7a5-1"),
    CASE(QEMU, QEMU "\0-name\0debug-threads=on,guest=web1\0", "qemu", "web1", ""),
    CASE(QEMU, QEMU "\0-name\0guest=a,,b,,,,c,debug-threads=on\0", "qemu", "a,b,,c", ""),
    CASE(QEMU, QEMU "\0-name\0guest=a \"b\" 'c'\\,process=x\0", "qemu", "a \"b\" 'c'\\", ""),
    CASE(QEMU, QEMU "\0-name\0guest=a=b,x=y\0", "qemu", "a=b", ""),
    CASE(QEMU, QEMU "\0-name\0guest=\0", "qemu", "", ""),
    CASE(QEMU, QEMU "\0-name\0guest=\377\376\n\t,process=p\0", "qemu", "\377\376\n\t", ""),
    CASE(QEMU, QEMU "\0-name\0guest=a,guest=b\0", "qemu", "b", ""),
    CASE(QEMU, QEMU "\0-name\0guest=a,\0", "qemu", "a", ""),
    CASE(QEMU, QEMU "\0-name\0guest=a,,\0", "qemu", "a,", ""),
    /* bare */
    CASE(QEMU, QEMU "\0-name\0web1\0", "qemu", "web1", ""),
    CASE(QEMU, QEMU "\0--name\0web1\0--uuid\0u\0", "qemu", "web1", "u"),
    CASE(QEMU, QEMU "\0-name\0web1,process=web1-p\0", "qemu", "web1", ""),
    CASE(QEMU, QEMU "\0-name\0we,,b1,debug-threads=on\0", "qemu", "we,b1", ""),
    CASE(QEMU, QEMU "\0-name\0process=p,debug-threads=on\0", "qemu", "", ""),
    CASE(QEMU, QEMU "\0-name\0process=p,web1\0", "qemu", "", ""),
    /* several: merged, the last guest wins */
    CASE(QEMU, QEMU "\0-name\0a\0-name\0b\0-uuid\0u1\0-uuid\0u2\0", "qemu", "b", "u2"),
    CASE(QEMU, QEMU "\0-name\0a\0-name\0process=b\0", "qemu", "a", ""),
    /* what only looks like it */
    CASE(QEMU, QEMU "\0-append\0-name\0-name\0real\0", "qemu", "real", ""),
    CASE(QEMU, QEMU "\0-name\0-uuid\0-uuid\0u\0", "qemu", "-uuid", "u"),
    CASE(QEMU, QEMU "\0-name=x\0name\0y\0", "qemu", "", ""),
    CASE(QEMU, QEMU "\0-name\0", "qemu", "", ""),
    CASE(QEMU, QEMU "\0-name", "qemu", "", ""),
    CASE(QEMU, QEMU "\0-name\0cut", "qemu", "cut", ""),
    CASE(QEMU, QEMU "\0-name\0\0-uuid\0u\0", "qemu", "", "u"),
    CASE(QEMU, "", "qemu", "", ""),
    CASE(QEMU, "\0\0\0\0", "qemu", "", ""),
    CASE(QEMU, "\0-\0--\0-name\0x\0", "qemu", "x", ""),
    /* how QEMU is called elsewhere */
    CASE("/usr/bin/kvm",
         "/usr/bin/kvm\0-id\0"
         "400\0-name\0htpc,debug-threads=on\0",
         "qemu", "htpc", ""),
    CASE("/usr/libexec/qemu-kvm", "/usr/libexec/qemu-kvm\0-name\0a\0", "qemu", "a", ""),
    CASE("/usr/bin/qemu-system-aarch64 (deleted)", "x\0-name\0a\0", "qemu", "a", ""),
    CASE(NULL, "/usr/bin/qemu-system-s390x\0-name\0a\0", "qemu", "a", ""),
    CASE("/usr/bin/wrapper", "qemu-system-x86_64\0-name\0a\0", "qemu", "a", ""),
    CASE("/usr/bin/qemu-img", "qemu-img\0-name\0a\0", "qemu-img", "", ""),
    CASE("/nix/store/x/.qemu-system-x86_64-wrapped", "/bin/qemu-system-x86_64\0-name\0a\0", "qemu",
         "a", ""),
    /* ours */
    CASE("/x/kvmstatd-demo-vm",
         "kvmstatd-demo-vm\0--vcpus\0"
         "4\0--name\0db\0",
         "kvmstatd-demo-vm", "db", ""),
    CASE("/x/kvmstatd-demo-vm", "kvmstatd-demo-vm\0--name=db 1\0", "kvmstatd-demo-vm", "db 1", ""),
    CASE("/x/kvmstatd-demo-vm", "kvmstatd-demo-vm\0--name=a\0--name\0b\0", "kvmstatd-demo-vm", "b",
         ""),
    CASE("/x/kvmstatd-demo-vm", "kvmstatd-demo-vm\0--name\0", "kvmstatd-demo-vm", "", ""),
    /* nobody's */
    CASE("/usr/bin/firecracker", "/firecracker\0--id=abc\0", "firecracker", "", ""),
    CASE(NULL, "/opt/vmm/myvmm\0-name\0a\0", "myvmm", "", ""),
    CASE(NULL, "", "", "", ""),
};

START_TEST(reads_names)
{
    CLEANUP_IDENTITY struct identity identity;
    if (cases[_i].exe)
        tree_link(&tree, 42, "exe", cases[_i].exe);
    tree_file(&tree, 42, "cmdline", cases[_i].cmdline, cases[_i].len);
    ck_assert_int_eq(identity_read(&proc, 42, &identity), 0);
    ck_assert_str_eq(identity.vmm, cases[_i].vmm);
    ck_assert_str_eq(identity.name, cases[_i].name);
    ck_assert_str_eq(identity.uuid, cases[_i].uuid);
    ck_assert_str_eq(identity.machine, "");
    ck_assert_str_eq(identity.unit, "");
}
END_TEST

START_TEST(gone_is_unknown)
{
    CLEANUP_IDENTITY struct identity identity;
    ck_assert_int_eq(identity_read(&proc, 43, &identity), 0);
    ck_assert_str_eq(identity.name, "");
    ck_assert_str_eq(identity.vmm, "");
}
END_TEST

/* A VMM may make its command line as long as it likes: what stands far behind is not read. */
START_TEST(command_line_is_bounded)
{
    CLEANUP_IDENTITY struct identity identity;
    size_t len = 8 << 20;
    CLEANUP_FREE char *bytes = calloc(1, len);
    static const char head[] = "qemu-system-x86_64\0-name\0front\0";
    static const char tail[] = "-name\0back";
    memcpy(bytes, head, sizeof head);
    memcpy(bytes + len - sizeof tail, tail, sizeof tail);
    tree_link(&tree, 42, "exe", QEMU);
    tree_file(&tree, 42, "cmdline", bytes, len);
    ck_assert_int_eq(identity_read(&proc, 42, &identity), 0);
    ck_assert_str_eq(identity.name, "front");
}
END_TEST

/* Names as libvirt writes them: whatever they hold, they come back. */
START_TEST(random_names_come_back)
{
    for (int round = 0; round < 2000; round++) {
        char name[40], option[100], cmdline[200];
        size_t n = testing_random_below(sizeof name), at = 0, len;
        static const char likely[] = ",,,==\"' \\guest";
        for (size_t i = 0; i < n; i++) {
            name[i] = testing_random_below(2) ? likely[testing_random_below(sizeof likely - 1)]
                                              : (char)(1 + testing_random_below(255));
        }
        name[n] = '\0';
        bool process_first = testing_random_below(2);
        at += (size_t)sprintf(option, "%sguest=", process_first ? "process=a,,b," : "");
        for (size_t i = 0; i < n; i++) {
            option[at++] = name[i];
            if (name[i] == ',')
                option[at++] = ',';
        }
        option[at] = '\0';
        len = (size_t)sprintf(cmdline, "qemu-kvm%c-name%c%s%s%c-m%c1G", 0, 0, option,
                              testing_random_below(2) ? ",debug-threads=on" : "", 0, 0) +
              1;

        CLEANUP_ARGUMENTS struct arguments arguments = {0};
        CLEANUP_IDENTITY struct identity identity = {0};
        ck_assert_int_eq(arguments_split(cmdline, len, &arguments), 0);
        ck_assert_int_eq(identity_qemu.read_arguments(&arguments, &identity), 0);
        ck_assert_ptr_nonnull(identity.name);
        ck_assert_str_eq(identity.name, name);
    }
}
END_TEST

START_TEST(splits_arguments)
{
    static const struct {
        const char *bytes;
        size_t len, n;
    } splits[] = {
        {"", 0, 0},     {"a", 1, 1},    {"a\0", 2, 1},      {"\0", 1, 1},
        {"\0\0", 2, 2}, {"a\0b", 3, 2}, {"a\0\0b\0", 5, 3},
    };
    for (size_t i = 0; i < ARRAY_LEN(splits); i++) {
        CLEANUP_ARGUMENTS struct arguments arguments = {0};
        ck_assert_int_eq(arguments_split(splits[i].bytes, splits[i].len, &arguments), 0);
        ck_assert_uint_eq(arguments.n, splits[i].n);
        size_t total = 0;
        for (size_t k = 0; k < arguments.n; k++)
            total += strlen(arguments.items[k]) + 1;
        ck_assert_uint_ge(total, splits[i].len);
    }
}
END_TEST

Suite *suite_identity(void)
{
    Suite *suite = suite_create("identity");
    TCase *tcase = tcase_create("identity");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_loop_test(tcase, reads_names, 0, (int)ARRAY_LEN(cases));
    tcase_add_test(tcase, gone_is_unknown);
    tcase_add_test(tcase, command_line_is_bounded);
    tcase_add_test(tcase, random_names_come_back);
    tcase_add_test(tcase, splits_arguments);
    suite_add_tcase(suite, tcase);
    return suite;
}
