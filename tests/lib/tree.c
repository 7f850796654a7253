/* SPDX-License-Identifier: Apache-2.0 */
#include "tree.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "testing.h"

enum {
    PATH_BYTES = 512,
};

static void make_parents(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(path, 0700);
        *slash = '/';
    }
}

static void write_file(char *path, const void *bytes, size_t len)
{
    make_parents(path);
    FILE *f = fopen(path, "wb");
    ck_assert_msg(f != NULL, "cannot write %s", path);
    ck_assert_uint_eq(fwrite(bytes, 1, len, f), len);
    ck_assert_int_eq(fclose(f), 0);
}

static void path_of(const struct tree *tree, pid_t pid, const char *name, char path[PATH_BYTES])
{
    int n = snprintf(path, PATH_BYTES, "%s/proc/%d/%s", tree->root, (int)pid, name);
    ck_assert(n > 0 && n < PATH_BYTES);
}

void tree_make(struct tree *tree, long long boot_s)
{
    char path[PATH_BYTES], text[256];
    (void)snprintf(tree->root, sizeof tree->root, "/tmp/kvmstatd-tree-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(tree->root));
    (void)snprintf(path, sizeof path, "%s/proc/stat", tree->root);
    (void)snprintf(text, sizeof text, "cpu  1 2 3\nintr 5 0\nctxt 7\nbtime %lld\nprocesses 9\n",
                   boot_s);
    write_file(path, text, strlen(text));
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

void tree_remove(struct tree *tree)
{
    (void)nftw(tree->root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

void tree_file(const struct tree *tree, pid_t pid, const char *name, const void *bytes, size_t len)
{
    char path[PATH_BYTES];
    path_of(tree, pid, name, path);
    write_file(path, bytes, len);
}

void tree_link(const struct tree *tree, pid_t pid, const char *name, const char *target)
{
    char path[PATH_BYTES];
    path_of(tree, pid, name, path);
    make_parents(path);
    ck_assert_msg(symlink(target, path) == 0, "cannot link %s", path);
}

void tree_directory(const struct tree *tree, pid_t pid, const char *name)
{
    char path[PATH_BYTES];
    path_of(tree, pid, name, path);
    make_parents(path);
    (void)mkdir(path, 0700);
}
