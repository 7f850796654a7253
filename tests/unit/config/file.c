/* SPDX-License-Identifier: Apache-2.0 */
/* Files: the default one in conf/, and all that open(2) may meet. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "schema.h"
#include "suites.h"

START_TEST(default_file_is_the_defaults)
{
    struct config *defaults = NULL, *config = NULL;
    struct config_error error = {{0}};
    int r = config_load(DEFAULT_FILE, false, &config, &error);
    ck_assert_msg(r == 0, "%s", error.message);
    ck_assert_int_eq(config_defaults(&defaults), 0);
    ck_assert(config_equal(config, defaults));
    config_unref(config);
    config_unref(defaults);
}
END_TEST

/* Whether "NAME:" stands in the text as a word of its own. */
static bool mentions(const char *text, const char *name)
{
    size_t len = strlen(name);
    for (const char *at = text; (at = strstr(at, name)); at++) {
        bool begins = at == text || strchr(" \n#{", at[-1]);
        if (begins && at[len] == ':')
            return true;
    }
    return false;
}

static void assert_mentioned(const char *text, const struct key_table *table)
{
    for (size_t i = 0; i < table->n; i++) {
        ck_assert_msg(mentions(text, table->keys[i].name), "%s: not in %s", table->keys[i].name,
                      DEFAULT_FILE);
        if (table->keys[i].keys)
            assert_mentioned(text, table->keys[i].keys);
    }
}

/* From "NAME:" at the beginning of a line to the next line that begins with a letter. */
static char *section_of(const char *text, const char *name)
{
    char head[64];
    snprintf(head, sizeof head, "\n%s:\n", name);
    const char *start = strstr(text, head);
    ck_assert_msg(start != NULL, "%s: no such section", name);
    const char *end = start + strlen(head);
    while (*end && !(end[-1] == '\n' && *end >= 'a' && *end <= 'z'))
        end++;
    return strndup(start, (size_t)(end - start));
}

START_TEST(default_file_mentions_every_key)
{
    char *text = default_file();
    for (size_t i = 0; i < schema_root.n; i++) {
        char *section = section_of(text, schema_root.keys[i].name);
        assert_mentioned(section, schema_root.keys[i].keys);
        free(section);
    }
    free(text);
}
END_TEST

/* A key that is commented out has "  #" before its name and no space between. */
START_TEST(default_file_examples_are_right)
{
    char *text = default_file();
    char *out = calloc(1, strlen(text) + 1), *rest = text;
    bool in_rules = false;
    size_t n = 0;
    for (char *line; (line = strsep(&rest, "\n"));) {
        bool is_key = strncmp(line, "  #", 3) == 0 && line[3] >= 'a' && line[3] <= 'z';
        in_rules = strncmp(line, "  #rules:", 9) == 0 || (in_rules && line[0] == ' ');
        if (is_key || in_rules) {
            line[2] = ' ';
            memmove(line, line + 1, strlen(line));
            n++;
        }
        strcat(out, line);
        strcat(out, "\n");
    }
    ck_assert_uint_ge(n, 8);
    struct config *config = config_of(out);
    ck_assert_uint_eq(config->sampling.n_cpus, 2);
    ck_assert_uint_eq(config->sampling.n_rules, 3);
    config_unref(config);
    free(out);
    free(text);
}
END_TEST

static void assert_load(const char *path, int want, const char *message)
{
    struct config *config = NULL;
    struct config_error error = {{0}};
    int r = config_load(path, false, &config, &error);
    ck_assert_msg(r == want, "%s: %d %s", path, r, error.message);
    if (message)
        ck_assert_str_eq(error.message, message);
    config_unref(config);
}

static void write_file(const char *path, size_t len)
{
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    for (size_t i = 0; i < len; i++)
        fputc('\n', file);
    ck_assert_int_eq(fclose(file), 0);
}

START_TEST(loading)
{
    char directory[] = "/tmp/kvmstatd-config-XXXXXX";
    ck_assert_ptr_nonnull(mkdtemp(directory));
    ck_assert_int_eq(chdir(directory), 0);

    assert_load("none.yaml", -ENOENT, "none.yaml: cannot be opened: No such file or directory");
    assert_load("", -ENOENT, NULL);
    assert_load(".", -EISDIR, ".: a directory; name a file in it, for example kvmstatd.yaml");
    assert_load("/dev/null", 0, NULL);
    assert_load("/dev/zero", -EINVAL,
                "/dev/zero: larger than 1 MiB, which is no configuration; write at most 1048576 "
                "bytes");
    ck_assert_int_eq(symlink("loop", "loop"), 0);
    assert_load("loop", -ELOOP, NULL);
    write_file("most", CONFIG_FILE_MAX_BYTES);
    assert_load("most", 0, NULL);
    write_file("more", CONFIG_FILE_MAX_BYTES + 1);
    assert_load("more", -EINVAL, NULL);
}
END_TEST

/* What `--config <(…)` gives. */
START_TEST(loading_from_a_pipe)
{
    int fds[2];
    char path[64];
    static const char text[] = "sampling: {interval: 1}\n";
    ck_assert_int_eq(pipe(fds), 0);
    ck_assert_int_eq(write(fds[1], text, strlen(text)), strlen(text));
    close(fds[1]);
    snprintf(path, sizeof path, "/dev/fd/%d", fds[0]);
    struct config *config = NULL;
    struct config_error error = {{0}};
    ck_assert_int_eq(config_load(path, false, &config, &error), -EINVAL);
    ck_assert_ptr_nonnull(strstr(error.message, ":1:22: sampling.interval: \"1\" has no unit"));
    close(fds[0]);
}
END_TEST

/* The next free fd is the same before and after, whatever happened. */
START_TEST(loading_leaves_no_fd)
{
    int before = open("/dev/null", O_RDONLY);
    close(before);
    assert_load(DEFAULT_FILE, 0, NULL);
    assert_load("/", -EISDIR, NULL);
    assert_load("/dev/zero", -EINVAL, NULL);
    int after = open("/dev/null", O_RDONLY);
    close(after);
    ck_assert_int_eq(before, after);
}
END_TEST

Suite *suite_file(void)
{
    Suite *suite = suite_create("file");
    TCase *tc = tcase_create("file");
    tcase_add_test(tc, default_file_is_the_defaults);
    tcase_add_test(tc, default_file_mentions_every_key);
    tcase_add_test(tc, default_file_examples_are_right);
    tcase_add_test(tc, loading);
    tcase_add_test(tc, loading_from_a_pipe);
    tcase_add_test(tc, loading_leaves_no_fd);
    suite_add_tcase(suite, tc);
    return suite;
}
