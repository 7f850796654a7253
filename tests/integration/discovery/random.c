/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VMMs that do anything in any order, against a model that knows what they did: after each step
 * every VM is known once, and what is read is what can be read.
 */
#include <stdio.h>
#include <string.h>

#include "kvmtest.h"
#include "rig.h"
#include "suites.h"
#include "vmm.h"

enum {
    PROCESSES = 4,
    FILES_MAX = 64, /* a process */
    VMS_MAX = 200,
    VCPUS_MAX = 8, /* a VM */
    STEPS = 250,
};

struct model_file {
    int fd;
    enum kvm_file_kind kind;
    int vm;
    int vcpu;
};

struct model_process {
    struct vmm_process vmm;
    size_t n;
    struct model_file files[FILES_MAX];
};

static struct rig rig;
static struct model_process processes[PROCESSES];
static int n_vms;
static struct {
    pid_t maker; /* the only one whose ioctls KVM takes */
    int n_vcpus;
} vms[VMS_MAX];

static void setup(void)
{
    kvmtest_require_kvm();
    rig_setup(&rig, "{}");
}

static void teardown(void)
{
    rig_teardown(&rig);
}

#define BIT(kind) (1u << (kind))
#define ANY       0xfu

static void begin(struct model_process *p)
{
    *p = (struct model_process){.vmm = vmm_start()};
    rig_made(&rig, p->vmm.pid);
}

static void end(struct model_process *p)
{
    for (unsigned i = 0; i < rig.n_pids; i++) {
        if (rig.pids[i] == p->vmm.pid)
            rig.pids[i--] = rig.pids[--rig.n_pids];
    }
    vmm_kill(&p->vmm);
}

static void add(struct model_process *p, int fd, enum kvm_file_kind kind, int vm, int vcpu)
{
    p->files[p->n++] = (struct model_file){fd, kind, vm, vcpu};
}

static struct model_file *any_of(struct model_process *p, unsigned kinds)
{
    struct model_file *found[FILES_MAX];
    size_t n = 0;
    for (size_t i = 0; i < p->n; i++) {
        if (kinds & BIT(p->files[i].kind))
            found[n++] = &p->files[i];
    }
    return n ? found[testing_random_below(n)] : NULL;
}

static unsigned count(const struct model_process *p, int vm, unsigned kinds)
{
    unsigned n = 0;
    for (size_t i = 0; i < p->n; i++)
        n += (kinds & BIT(p->files[i].kind)) && (vm < 0 || p->files[i].vm == vm);
    return n;
}

static void close_file(struct model_process *p, struct model_file *file)
{
    (void)vmm_do(&p->vmm, VMM_CLOSE, file->fd, 0);
    *file = p->files[--p->n];
}

/* With a process's last kvm-vm fd of a VM go all its files of that VM. */
static void close_any(struct model_process *p, struct model_file *file)
{
    int vm = file->vm;
    if (file->kind != KVM_FILE_VM || count(p, vm, BIT(KVM_FILE_VM)) > 1) {
        close_file(p, file);
        return;
    }
    for (size_t i = p->n; i-- > 0;) {
        if (p->files[i].vm == vm)
            close_file(p, &p->files[i]);
    }
}

/* Takes another's kvm-vm fd and perhaps more files of that VM. */
static void pass_on(struct model_process *from, struct model_process *to, int vm)
{
    for (size_t i = 0; i < from->n && to->n < FILES_MAX; i++) {
        const struct model_file *file = &from->files[i];
        bool have = count(to, vm, BIT(KVM_FILE_VM)) > 0;
        if (file->vm != vm || (!have && file->kind != KVM_FILE_VM) ||
            (have && testing_random_below(2)))
            continue;
        int fd = vmm_do(&to->vmm, VMM_BORROW, from->vmm.pid, file->fd);
        add(to, fd, file->kind, file->vm, file->vcpu);
    }
}

static void make(struct model_process *p)
{
    struct model_file *file = any_of(p, BIT(KVM_FILE_VM) | BIT(KVM_FILE_VCPU));
    if (p->n == FILES_MAX)
        return;
    if (!file || testing_random_below(6) == 0) {
        if (n_vms == VMS_MAX)
            return;
        vms[n_vms].maker = p->vmm.pid;
        add(p, vmm_do(&p->vmm, VMM_MAKE_VM, 0, 0), KVM_FILE_VM, n_vms++, -1);
    } else if (vms[file->vm].maker != p->vmm.pid) {
        add(p, vmm_do(&p->vmm, VMM_DUP, file->fd, 0), file->kind, file->vm, file->vcpu);
    } else if (file->kind == KVM_FILE_VM && vms[file->vm].n_vcpus < VCPUS_MAX &&
               testing_random_below(2)) {
        int id = vms[file->vm].n_vcpus++;
        add(p, vmm_do(&p->vmm, VMM_MAKE_VCPU, file->fd, id), KVM_FILE_VCPU, file->vm, id);
    } else {
        add(p, vmm_do(&p->vmm, VMM_STATS, file->fd, 0),
            file->kind == KVM_FILE_VM ? KVM_FILE_VM_STATS : KVM_FILE_VCPU_STATS, file->vm,
            file->vcpu);
    }
}

static void step(void)
{
    struct model_process *p = &processes[testing_random_below(PROCESSES)];
    struct model_process *other = &processes[testing_random_below(PROCESSES)];
    struct model_file *file = any_of(p, ANY), *theirs = any_of(other, BIT(KVM_FILE_VM));
    unsigned choice = (unsigned)testing_random_below(20);

    if (choice == 0) {
        end(p);
        begin(p);
    } else if (choice <= 10) {
        make(p);
    } else if (choice <= 12 && file && p->n < FILES_MAX) {
        add(p, vmm_do(&p->vmm, VMM_DUP, file->fd, 0), file->kind, file->vm, file->vcpu);
    } else if (choice <= 17 && file) {
        close_any(p, file);
    } else if (other != p && theirs) {
        pass_on(other, p, theirs->vm);
    }
}

/* --- what must then be so --- */

/* How many processes hold the VM; the last of them in *ret_process. */
static unsigned holders(int vm, struct model_process **ret_process)
{
    unsigned n = 0;
    for (int i = 0; i < PROCESSES; i++) {
        if (count(&processes[i], vm, BIT(KVM_FILE_VM)) > 0) {
            *ret_process = &processes[i];
            n++;
        }
    }
    return n;
}

static unsigned vms_held(const struct model_process *p)
{
    unsigned n = 0;
    for (int vm = 0; vm < n_vms; vm++)
        n += count(p, vm, BIT(KVM_FILE_VM)) > 0;
    return n;
}

/* A process that holds one VM, which nobody else holds: all is known of it. */
static void check_alone(const struct model_process *p)
{
    const unsigned stats = BIT(KVM_FILE_VM_STATS) | BIT(KVM_FILE_VCPU_STATS);
    bool vm_scope = count(p, -1, BIT(KVM_FILE_VM_STATS)) > 0;
    bool has[VCPUS_MAX] = {false}, has_stats[VCPUS_MAX] = {false};
    uint32_t n_vcpus = 0;
    for (size_t i = 0; i < p->n; i++) {
        if (p->files[i].kind == KVM_FILE_VCPU)
            has[p->files[i].vcpu] = true;
        if (p->files[i].kind == KVM_FILE_VCPU_STATS)
            has_stats[p->files[i].vcpu] = true;
    }
    RIG_ASSERT_REASON(&rig, p->vmm.pid,
                      count(p, -1, stats) ? UNREADABLE_NOT : UNREADABLE_NO_STATS_FD);
    const struct discovery_handle *vm = rig_vm(&rig, p->vmm.pid);
    ck_assert_int_eq(vm != NULL, count(p, -1, stats) > 0);
    for (int id = 0; id < VCPUS_MAX; id++) {
        n_vcpus += has[id];
        ck_assert_int_eq(vm && vm->fds[1 + id] >= 0, has_stats[id]);
    }
    ck_assert_int_eq(vm && vm->fds[0] >= 0, vm_scope);
    if (vm)
        ck_assert_uint_eq(vm->n_vcpus, n_vcpus);
}

/* For whoever has to find out what went wrong. */
static void tell(void)
{
    const struct discovery *d = rig.discovery;
    for (int i = 0; i < PROCESSES; i++) {
        printf("# process %d holds", (int)processes[i].vmm.pid);
        for (size_t k = 0; k < processes[i].n; k++) {
            const struct model_file *file = &processes[i].files[k];
            printf(" %d:%c%d", file->fd, "MCms"[file->kind], file -> vm);
        }
        printf("\n");
    }
    for (size_t i = 0; i < d->n_processes; i++) {
        const struct vmm *vmm = d->processes[i].vmm;
        for (size_t k = 0; vmm && k < vmm->n_holdings; k++)
            printf("# process %d is known to hold %llu by %d\n", (int)vmm->pid,
                   (unsigned long long)vmm->holdings[k].vm->id, vmm->holdings[k].fd);
    }
    for (size_t i = 0; i < d->n_vms; i++)
        printf("# VM %llu of %d, key %d\n", (unsigned long long)d->vms[i]->id,
               (int)d->vms[i]->owner->pid, d->vms[i]->key_fd);
    fflush(stdout);
}

static void check(void)
{
    unsigned alive = 0, known = 0;
    for (int vm = 0; vm < n_vms; vm++) {
        struct model_process *holder = NULL;
        unsigned n = holders(vm, &holder);
        alive += n > 0;
    }
    for (int i = 0; i < PROCESSES; i++) {
        enum unreadable_reason reason;
        known += rig_roster(&rig, processes[i].vmm.pid, &reason);
        if (vms_held(&processes[i]) > 1)
            ck_assert_ptr_null(rig_vm(&rig, processes[i].vmm.pid));
    }
    if (known != alive)
        tell();
    ck_assert_uint_eq(known, alive);
    for (int vm = 0; vm < n_vms; vm++) {
        struct model_process *holder = NULL;
        unsigned n = holders(vm, &holder);
        if (n == 1 && vms_held(holder) == 1)
            check_alone(holder);
    }
}

START_TEST(anything_in_any_order)
{
    /* Each round is a process of its own that starts from the same seed. */
    for (int i = 0; i < _i; i++)
        (void)testing_random();
    for (int i = 0; i < PROCESSES; i++)
        begin(&processes[i]);
    for (int i = 0; i < STEPS; i++) {
        for (uint64_t n = 1 + testing_random_below(4); n > 0; n--)
            step();
        rig_look_at_all(&rig); /* marks cannot show everything */
        check();
    }
    for (int i = 0; i < PROCESSES; i++)
        end(&processes[i]);
    rig_look_at_all(&rig);
    ck_assert_ptr_null(rig.vms);
    ck_assert_uint_eq(rig.added, rig.removed);
}
END_TEST

Suite *suite_random(void)
{
    Suite *suite = suite_create("random");
    TCase *tcase = tcase_create("random");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 120);
    tcase_add_loop_test(tcase, anything_in_any_order, 0, 3);
    suite_add_tcase(suite, tcase);
    return suite;
}
