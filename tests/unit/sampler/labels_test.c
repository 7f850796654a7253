/* SPDX-License-Identifier: Apache-2.0 */
/* What VMs are called, where several have one name. */
#include <stdio.h>
#include <string.h>

#include "rig.h"
#include "suites.h"
#include "text.h"

static const char fast[] = "sampling: {interval: 2ms}\n";

START_TEST(namesakes_are_told_apart)
{
    struct rig rig;
    char expected[64];
    rig_prepare(&rig, fast);
    struct fake_vm a = fake_vm_start(&rig, "db"), b = fake_vm_start(&rig, "db");
    ck_assert_int_eq(planner_commit(rig.planner), 0);
    snprintf(expected, sizeof expected, "db@%d", a.pid);
    ck_assert_str_eq(planner_vm_label(a.planned), expected);
    struct fake_vm c = fake_vm_start(&rig, expected); /* a name that looks like another's label */
    ck_assert_int_eq(planner_commit(rig.planner), 0);
    ck_assert_str_ne(planner_vm_label(a.planned), planner_vm_label(c.planned));
    planner_vm_remove(rig.planner, a.planned);
    planner_vm_remove(rig.planner, c.planned);
    ck_assert_int_eq(planner_commit(rig.planner), 0);
    ck_assert_str_eq(planner_vm_label(b.planned), "db");
    rig_stop(&rig);
    fake_vm_kill(&a);
    fake_vm_kill(&b);
    fake_vm_kill(&c);
}
END_TEST

/* They differ where nobody looks: of names that long the end is cut, but not what tells them apart.
 */
START_TEST(long_namesakes_are_told_apart)
{
    struct rig rig;
    struct fake_vm vms[3];
    char name[TEXT_BYTES_MAX + 16], suffix[32];
    rig_prepare(&rig, fast);
    memset(name, 'n', sizeof name);
    for (size_t i = 0; i < ARRAY_LEN(vms); i++) {
        (void)snprintf(name + TEXT_BYTES_MAX, 16, "%zu", i);
        vms[i] = fake_vm_start(&rig, name);
    }
    ck_assert_int_eq(planner_commit(rig.planner), 0);
    for (size_t i = 0; i < ARRAY_LEN(vms); i++) {
        const char *label = planner_vm_label(vms[i].planned);
        (void)snprintf(suffix, sizeof suffix, "@%d", vms[i].pid);
        ck_assert_ptr_nonnull(strchr(label, '@'));
        ck_assert_str_eq(strchr(label, '@'), suffix);
        ck_assert_uint_le(strlen(label), TEXT_BYTES_MAX);
    }
    /* Of one process, too: then it is their number. */
    const struct planned_vm_spec twin = {.name = name, .pid = vms[0].pid};
    struct planned_vm *planned;
    ck_assert_int_eq(planner_vm_add(rig.planner, &twin, dup(0), &planned), 0);
    ck_assert_int_eq(planner_commit(rig.planner), 0);
    ck_assert_str_ne(planner_vm_label(planned), planner_vm_label(vms[0].planned));
    rig_stop(&rig);
    for (size_t i = 0; i < ARRAY_LEN(vms); i++)
        fake_vm_kill(&vms[i]);
}
END_TEST

Suite *labels_suite(void)
{
    Suite *suite = suite_create("labels");
    TCase *tc = tcase_create("labels");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, namesakes_are_told_apart);
    tcase_add_test(tc, long_namesakes_are_told_apart);
    suite_add_tcase(suite, tc);
    return suite;
}
