/* SPDX-License-Identifier: Apache-2.0 */
/* Processes of tests/fixtures/proc, each read through a /proc of its own. */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "identity/identity.h"
#include "suites.h"
#include "tree.h"

enum {
    PID = 4242,
    FILE_BYTES_MAX = 16384,
    PATH_BYTES = 1024,
};

#define FIXTURES TEST_SOURCE_DIR "/tests/fixtures/proc"

/* Returns the length, -1 where there is no such file. */
static ssize_t read_file(const char *folder, const char *name, char bytes[FILE_BYTES_MAX])
{
    char path[PATH_BYTES];
    (void)snprintf(path, sizeof path, FIXTURES "/%s/%s", folder, name);
    FILE *f = fopen(path, "rb");
    if (!f)
        return -1;
    size_t len = fread(bytes, 1, FILE_BYTES_MAX - 1, f);
    ck_assert_int_ne(feof(f), 0);
    (void)fclose(f);
    bytes[len] = '\0';
    return (ssize_t)len;
}

static void rebuild(const struct tree *tree, const char *folder)
{
    static const char *const names[] = {"cmdline", "comm", "cgroup"};
    char bytes[FILE_BYTES_MAX], path[PATH_BYTES], target[PATH_BYTES];

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        ssize_t len = read_file(folder, names[i], bytes);
        if (len >= 0)
            tree_file(tree, PID, names[i], bytes, (size_t)len);
    }
    (void)snprintf(path, sizeof path, FIXTURES "/%s/exe", folder);
    ssize_t len = readlink(path, target, sizeof target - 1);
    if (len >= 0) {
        target[len] = '\0';
        tree_link(tree, PID, "exe", target);
    }
}

static void check(const char *folder)
{
    CLEANUP_IDENTITY struct identity identity = {0};
    CLEANUP_FREE char *found = NULL;
    char expected[FILE_BYTES_MAX];
    struct tree tree;
    struct proc proc;

    tree_make(&tree, 1);
    rebuild(&tree, folder);
    ck_assert_int_eq(proc_open(tree.root, &proc), 0);
    ck_assert_int_eq(identity_read(&proc, PID, &identity), 0);
    proc_close(&proc);
    tree_remove(&tree);
    ck_assert_int_ge(asprintf(&found, "vmm=%s\nname=%s\nuuid=%s\nmachine=%s\nunit=%s\n",
                              identity.vmm, identity.name, identity.uuid, identity.machine,
                              identity.unit),
                     0);
    ck_assert_msg(read_file(folder, "expected", expected) > 0, "%s: no file `expected`", folder);
    ck_assert_msg(strcmp(found, expected) == 0, "%s:\nfound\n%sexpected\n%s", folder, found,
                  expected);
}

START_TEST(recorded_processes)
{
    unsigned n = 0;
    struct dirent *entry;
    DIR *dir = opendir(FIXTURES);
    ck_assert_ptr_nonnull(dir);
    while ((entry = readdir(dir))) {
        if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
            continue;
        check(entry->d_name);
        n++;
    }
    (void)closedir(dir);
    ck_assert_uint_ge(n, 30);
}
END_TEST

Suite *suite_identity_recorded(void)
{
    Suite *suite = suite_create("identity_recorded");
    TCase *tcase = tcase_create("recorded");
    tcase_add_test(tcase, recorded_processes);
    suite_add_tcase(suite, tcase);
    return suite;
}
