/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Without arguments: properties that need no parser. With some, the other half of
 * tests/property/test_exposition_parsers.py:
 *
 *     property-exposition views FORMAT N    N ticks of one random view in openmetrics, text or
 * protobuf: JSON, then "exposition LENGTH" and its bytes, again and again property-exposition x86
 * 0.0.4 of VMs with the statistics of Linux on x86
 */
#include <ctype.h>
#include <string.h>

#include "model.h"
#include "testing.h"

/* Each series once, families in one piece, metadata first: told by lines alone. */
static void check_lines(char *text)
{
    char *family = NULL;
    size_t n_families = 0, cap = 4096;
    CLEANUP_FREE char **families = calloc(cap, sizeof *families);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        if (strncmp(line, "# TYPE ", 7) == 0) {
            family = line + 7;
            *strchr(family, ' ') = '\0';
            for (size_t i = 0; i < n_families; i++)
                ck_assert_str_ne(families[i], family);
            ck_assert_uint_lt(n_families, cap);
            families[n_families++] = family;
        } else if (line[0] != '#') {
            ck_assert_ptr_nonnull(family);
            ck_assert_msg(strncmp(line, family, strlen(family)) == 0, "%s in family %s", line,
                          family);
            ck_assert(isdigit((unsigned char)line[strlen(line) - 1]));
        } else {
            ck_assert(strncmp(line, "# HELP ", 7) == 0 || strncmp(line, "# UNIT ", 7) == 0 ||
                      strcmp(line, "# EOF") == 0);
        }
    }
}

/* libcheck forks each test, so random tests that shall differ are one test. */
START_TEST(shape)
{
    for (int round = 0; round < 60; round++) {
        struct model model;
        model_init(&model);
        for (int tick = 0; tick < 3; tick++) {
            CLEANUP_FREE char *text =
                stage_render(&model.stage, model.exposition, &model.roster, (unsigned)_i);
            check_lines(text);
            model_tick(&model);
        }
        model_deinit(&model);
    }
}
END_TEST

static Suite *shape_suite(void)
{
    Suite *suite = suite_create("exposition");
    TCase *tc = tcase_create("shape");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, shape, EXPOSITION_TEXT, EXPOSITION_OPENMETRICS + 1);
    suite_add_tcase(suite, tc);
    return suite;
}

static int print_views(enum exposition_format format, int n)
{
    struct model model;
    model_init(&model);
    for (int i = 0; i < n; i++) {
        if (i > 0)
            model_tick(&model);
        size_t len;
        CLEANUP_FREE char *bytes =
            stage_render_bytes(&model.stage, model.exposition, &model.roster, format, &len);
        model_print(&model, stdout);
        printf("exposition %zu\n", len);
        (void)fwrite(bytes, 1, len, stdout);
    }
    model_deinit(&model);
    return 0;
}

static int print_x86(void)
{
    struct stage stage;
    struct roster roster = {.kernel_vms = 2, .read = 2};
    struct vm_identity_spec spec = {.vm = "web1", .vmm = "qemu", .source = "statsfd", .pid = 7};
    stage_init(&stage);
    const struct schema *vm = stage_x86_schema(&stage, SCOPE_VM);
    const struct schema *vcpu = stage_x86_schema(&stage, SCOPE_VCPU);
    spec.start_wall_ns = 1700000000000000000;
    stage_vm_add(&stage, &spec, 0, vm, vcpu, 2);
    spec.vm = "db \"1\"";
    stage_vm_add(&stage, &spec, 0, vm, vcpu, 1);
    stage_layout(&stage, 0);
    stage.store->self.config_reload_ok_wall_ns = 1700000000000000000;
    struct exposition *exposition = stage_exposition(&stage);
    CLEANUP_FREE char *text = stage_render(&stage, exposition, &roster, EXPOSITION_TEXT);
    fputs(text, stdout);
    exposition_free(exposition);
    stage_deinit(&stage);
    return 0;
}

static enum exposition_format format_named(const char *name)
{
    if (strcmp(name, "protobuf") == 0)
        return EXPOSITION_PROTOBUF;
    return strcmp(name, "text") == 0 ? EXPOSITION_TEXT : EXPOSITION_OPENMETRICS;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "x86") == 0)
        return print_x86();
    if (argc == 4 && strcmp(argv[1], "views") == 0)
        return print_views(format_named(argv[2]), atoi(argv[3]));
    return testing_run(shape_suite(), (Suite *)NULL);
}
