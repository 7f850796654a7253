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

#define QEMU   "/usr/bin/qemu-system-x86_64"
#define FC     "/firecracker"
#define CH     "/usr/bin/cloud-hypervisor"
#define CROSVM "/usr/bin/crosvm"
#define SHIM   "/opt/kata/bin/containerd-shim-kata-v2"

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
    CASE(QEMU, QEMU "\0-name\0guest=a,guests=b,gues=c,=d\0", "qemu", "a", ""),
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
    CASE(QEMU, QEMU "\0-pidfile\0-name\0real\0-name\0", "qemu", "", ""),
    CASE(QEMU, QEMU "\0-D\0--uuid\0-name\0-append\0-uuid\0u\0", "qemu", "-append", "u"),
    CASE(QEMU, QEMU "\0-no-such-switch\0-name\0a\0", "qemu", "a", ""),
    CASE(QEMU, "-name -uuid guest=a", "qemu", "", ""),
    CASE(QEMU, "-name\0a\0", "qemu", "", ""),
    /* the system's table: Proxmox' and nova's way */
    CASE(QEMU, QEMU "\0-smbios\0type=1,uuid=u1\0", "qemu", "", "u1"),
    CASE(QEMU, QEMU "\0-smbios\0uuid=u1,product=a,,uuid=x,type=1\0", "qemu", "", "u1"),
    CASE(QEMU, QEMU "\0-smbios\0type=11,uuid=u1\0", "qemu", "", ""),
    CASE(QEMU, QEMU "\0-smbios\0type=1,serial=s\0-uuid\0u\0", "qemu", "", "u"),
    CASE(QEMU, QEMU "\0-smbios\0type=1,uuid=u1\0-uuid\0u2\0", "qemu", "", "u2"),
    CASE(QEMU, QEMU "\0-uuid\0u2\0-smbios\0type=1,uuid=u1\0", "qemu", "", "u1"),
    CASE(QEMU, QEMU "\0-smbios\0type=1,base64=1,uuid=u1,manufacturer=QUJD\0", "qemu", "", "u1"),
    CASE(QEMU, QEMU "\0-smbios\0\0-smbios\0,,,\0-smbios\0uuid\0", "qemu", "", ""),
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
    CASE("/usr/bin/qemu-system-x86_64.real", "qemu-system-x86_64\0-name\0a\0", "qemu", "a", ""),
    CASE("/opt/kata/bin/qemu-virtiofs-system-x86_64", "x\0-name\0a\0", "qemu", "a", ""),
    CASE("/usr/bin/kvm-spice", "x\0-name\0a\0", "qemu", "a", ""),
    CASE("/usr/libexec/.qemu-kvm-wrapped", "x\0-name\0a\0", "qemu", "a", ""),
    CASE("/usr/bin/kvmctl", "kvmctl\0-name\0a\0", "kvmctl", "", ""),
    /* the executable is the kernel's word, argv[0] the process's: it names itself, no more */
    CASE("/usr/bin/wrapper", "qemu-system-x86_64\0-name\0a\0", "wrapper", "a", ""),
    CASE("/usr/bin/firecracker", "qemu-system-x86_64\0-name\0a\0", "firecracker", "", ""),
    CASE("/usr/bin/firecracker", "qemu-system-x86_64\0-name\0a\0--id\0b\0", "firecracker", "b", ""),
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
    /* Firecracker */
    CASE(FC, "/firecracker\0--id=abc\0", "firecracker", "abc", ""),
    CASE(FC, "/firecracker\0--id\0abc\0--api-sock\0/run/x.sock\0", "firecracker", "abc", ""),
    CASE(FC, "/firecracker\0--id\0a\0--id\0b\0", "firecracker", "b", ""),
    CASE(FC, "/firecracker\0--id\0a\0--\0--id\0b\0", "firecracker", "a", ""),
    CASE(FC, "/firecracker\0--identity\0a\0-id\0b\0id\0c\0", "firecracker", "", ""),
    CASE(FC, "/firecracker\0--id\0", "firecracker", "", ""),
    CASE(FC, "/firecracker\0--id", "firecracker", "", ""),
    CASE(FC, "/firecracker\0--id=\0", "firecracker", "", ""),
    CASE(FC, "/firecracker\0--id\0\0--api-sock=/run/x.sock\0", "firecracker", "x", ""),
    CASE(FC, "/firecracker\0--id\0--api-sock\0/run/x.sock\0", "firecracker", "--api-sock", ""),
    CASE(FC, "/firecracker\0--id\0a\nb\377\0", "firecracker", "a\nb\377", ""),
    CASE("/x/firecracker-v1.7.0-x86_64", "fc\0--id\0a\0", "firecracker", "a", ""),
    CASE("/x/firecracker_debug", "fc\0--id\0a\0", "firecracker", "a", ""),
    CASE("/x/firecrackers", "fc\0--id\0a\0", "firecrackers", "", ""),
    CASE(NULL, "firecracker-v1.7.0-x86_64\0--id\0a\0", "firecracker", "a", ""),
    /* control sockets */
    CASE(FC, "fc\0--api-sock\0/tmp/web1.socket\0", "firecracker", "web1", ""),
    CASE(FC, "fc\0--api-sock\0web1\0", "firecracker", "web1", ""),
    CASE(FC, "fc\0--api-sock\0web1/\0", "firecracker", "", ""),
    CASE(FC, "fc\0--api-sock\0/vms/web1/api.sock\0", "firecracker", "web1", ""),
    CASE(FC, "fc\0--api-sock\0web1/firecracker.socket\0", "firecracker", "web1", ""),
    CASE(FC, "fc\0--api-sock\0/run/firecracker.socket\0", "firecracker", "firecracker", ""),
    CASE(FC, "fc\0--api-sock\0/run/user/1000/api.sock\0", "firecracker", "api", ""),
    CASE(FC, "fc\0--api-sock\0/api.sock\0", "firecracker", "api", ""),
    CASE(FC, "fc\0--api-sock\0.sock\0", "firecracker", "", ""),
    CASE(FC, "fc\0--api-sock\0\0", "firecracker", "", ""),
    CASE(FC, "fc\0--api-sock\0/\0", "firecracker", "", ""),
    CASE(FC, "fc\0--api-sock\0///\0", "firecracker", "", ""),
    CASE(FC, "fc\0--api-sock\0/run/libvirt/ch/web1-socket\0", "firecracker", "web1", ""),
    /* Kata's directories, whoever the VMM */
    CASE(FC, "fc\0--api-sock\0/run/vc/firecracker/5a/root/run/fc.sock\0", "firecracker",
         "sandbox-5a", ""),
    CASE(FC, "fc\0--api-sock\0/run/kata/firecracker/5a/root/x.sock\0", "firecracker", "sandbox-5a",
         ""),
    CASE(CH, "ch\0--api-socket\0/run/kata/5a/ch-api.sock\0", "cloud-hypervisor", "sandbox-5a", ""),
    CASE(CH, "ch\0--api-socket\0/run/user/1000/run/vc/vm/5a/clh-api.sock\0", "cloud-hypervisor",
         "sandbox-5a", ""),
    CASE(CH, "ch\0--api-socket\0/run/vc/vm/5a\0", "cloud-hypervisor", "5a", ""),
    CASE(CH, "ch\0--api-socket\0/run/vc/vm//x.sock\0", "cloud-hypervisor", "x", ""),
    CASE(CH, "ch\0--api-socket\0/srv/run/vc/vm/5a/x.sock\0", "cloud-hypervisor", "x", ""),
    CASE(SHIM,
         "shim\0-namespace\0k8s.io\0-id\0"
         "5a\0-debug\0",
         "dragonball", "sandbox-5a", ""),
    CASE(SHIM,
         "shim\0-namespace\0-id\0-id\0"
         "5a\0",
         "dragonball", "sandbox-5a", ""),
    CASE(SHIM, "shim\0-namespace\0k8s.io\0-id\0", "dragonball", "", ""),
    CASE(SHIM, "shim\0-id\0\0", "dragonball", "", ""),
    /* Cloud Hypervisor */
    CASE(CH, "ch\0--api-socket\0/run/ch/web1.sock\0", "cloud-hypervisor", "web1", ""),
    CASE(CH, "ch\0--api-socket\0path=/run/ch/web1.sock\0", "cloud-hypervisor", "web1", ""),
    CASE(CH, "ch\0--api-socket=path=\"/run/ch/a,b.sock\"\0", "cloud-hypervisor", "a,b", ""),
    CASE(CH, "ch\0--api-socket\0path=/run/[a,b].sock\0", "cloud-hypervisor", "[a,b]", ""),
    CASE(CH, "ch\0--api-socket\0path=/run/\"a,b\0", "cloud-hypervisor", "a,b", ""),
    CASE(CH, "ch\0--api-socket\0path=\0", "cloud-hypervisor", "", ""),
    CASE(CH, "ch\0--api-socket\0fd=7\0", "cloud-hypervisor", "", ""),
    CASE(CH, "ch\0--api-socket\0fd=7,path=/run/web1.sock\0", "cloud-hypervisor", "", ""),
    CASE(CH, "ch\0--api-socket\0", "cloud-hypervisor", "", ""),
    CASE(CH, "ch\0--api-socket\0]]],,,\"\0", "cloud-hypervisor", "]]],,,\"", ""),
    CASE(CH,
         "ch\0--api-socket\0fd=7\0--event-monitor\0path=/run/libvirt/ch/a b-event-monitor-fifo\0",
         "cloud-hypervisor", "a b", ""),
    CASE(CH, "ch\0--api-socket\0/run/x.sock\0--event-monitor\0path=/run/events\0",
         "cloud-hypervisor", "x", ""),
    CASE(CH, "ch\0--event-monitor\0path=-event-monitor-fifo\0", "cloud-hypervisor", "", ""),
    CASE(CH, "ch\0--event-monitor\0fd=3\0", "cloud-hypervisor", "", ""),
    CASE(CH, "ch\0--platform\0num_pci_segments=1,uuid=u1\0", "cloud-hypervisor", "", "u1"),
    CASE(CH, "ch\0--platform\0oem_strings=[a,uuid=x],system_uuid=u2\0", "cloud-hypervisor", "",
         "u2"),
    CASE("/x/cloud-hypervisor-static", "ch\0--api-socket\0a.sock\0", "cloud-hypervisor", "a", ""),
    /* crosvm */
    CASE(CROSVM, "crosvm\0run\0--name\0a\0--socket\0/run/b.sock\0", "crosvm", "a", ""),
    CASE(CROSVM, "crosvm\0run\0--name=a=b\0", "crosvm", "a=b", ""),
    CASE(CROSVM, "crosvm\0run\0--name\0a\0--name\0b\0", "crosvm", "b", ""),
    CASE(CROSVM, "crosvm\0run\0-p\0--name=x\0--params\0--name\0y\0", "crosvm", "", ""),
    CASE(CROSVM, "crosvm\0run\0-s\0/run/b.sock\0", "crosvm", "b", ""),
    CASE(CROSVM, "crosvm\0run\0-p\0-s\0/run/b.sock\0", "crosvm", "", ""),
    CASE(CROSVM, "crosvm\0run\0--\0--name\0x\0", "crosvm", "", ""),
    CASE(CROSVM, "crosvm\0run\0--socket=/run/vm/vm.Wz/crosvm.sock\0", "crosvm", "vm.Wz", ""),
    CASE(CROSVM, "crosvm\0run\0--name\0", "crosvm", "", ""),
    /* kvmtool */
    CASE("/x/lkvm", "lkvm\0run\0--name\0a\0", "kvmtool", "a", ""),
    CASE("/x/lkvm", "lkvm\0run\0--name=a\0", "kvmtool", "a", ""),
    CASE("/x/lkvm", "lkvm\0run\0-n\0mode=user\0", "kvmtool", "", ""),
    CASE("/x/lkvm", "lkvm\0run\0-p\0--name=x\0-p\0--name\0x\0", "kvmtool", "", ""),
    CASE("/x/lkvm-static", "lkvm\0run\0--name\0a\0", "kvmtool", "a", ""),
    CASE("/x/lkvmx", "lkvm\0run\0--name\0a\0", "lkvmx", "a", ""),
    /* nobody's */
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

/* Names by the control group, where the command line gives none. */
static const struct {
    const char *exe, *argument, *cgroup, *vmm, *name, *machine, *unit;
} managed[] = {
    {"/usr/bin/kvm", "-S", "0::/machine.slice/machine-qemu\\x2d7\\x2dweb\\x2d1.scope\n", "qemu",
     "web-1", "qemu-7-web-1", "machine-qemu\\x2d7\\x2dweb\\x2d1.scope"},
    {"/usr/bin/kvm", "-S", "5:cpu:/machine/qemu-7-web1.libvirt-qemu\n", "qemu", "web1",
     "qemu-7-web1", ""},
    {"/usr/bin/kvm", "-S", "0::/machine-qemu\\x2dembed\\x2d0123abcd\\x2d7\\x2dweb1.scope\n", "qemu",
     "web1", "qemu-embed-0123abcd-7-web1",
     "machine-qemu\\x2dembed\\x2d0123abcd\\x2d7\\x2dweb1.scope"},
    {"/usr/bin/kvm", "-S", "5:cpu:/machine/qemu-embed-0123abcg-7-web1.libvirt-qemu\n", "qemu",
     "embed-0123abcg-7-web1", "qemu-embed-0123abcg-7-web1", ""},
    {"/usr/bin/kvm", "-S", "5:cpu:/machine/qemu-web1.libvirt-qemu\n", "qemu", "web1", "qemu-web1",
     ""},
    {"/usr/bin/kvm", "-S", "5:cpu:/machine/qemu-10web.libvirt-qemu\n", "qemu", "10web",
     "qemu-10web", ""},
    {"/usr/bin/kvm", "-S", "5:cpu:/machine/qemu-7-.libvirt-qemu\n", "qemu", "", "qemu-7-", ""},
    {"/usr/bin/kvm", "-S", "5:cpu:/machine/qemu-.libvirt-qemu\n", "qemu", "", "qemu-", ""},
    {CH, "-v", "0::/machine.slice/machine-ch\\x2d7\\x2dweb1.scope\n", "cloud-hypervisor", "web1",
     "ch-7-web1", "machine-ch\\x2d7\\x2dweb1.scope"},
    {"/usr/bin/kvm", "-S", "0::/machine.slice/machine-other.scope\n", "qemu", "", "other",
     "machine-other.scope"},
    {"/usr/bin/kvm", "-S", "0::/qemu.slice/400.scope\n", "qemu", "vm400", "", "400.scope"},
    {"/usr/bin/kvm", "-S", "0::/other.slice/400.scope\n", "qemu", "", "", "400.scope"},
    {"/usr/bin/kvm", "-S", "0::/qemu.slice/400x.scope\n", "qemu", "", "", "400x.scope"},
    {"/usr/bin/kvm", "-S", "0::/qemu.slice/400.service\n", "qemu", "", "", "400.service"},
    {"/usr/bin/kvm", "-S", "0::/qemu.slice/12345678901.scope\n", "qemu", "", "",
     "12345678901.scope"},
    /* before the guess by the socket */
    {"/firecracker", "--api-sock=/run/x.sock", "0::/machine-qemu\\x2d1\\x2da.scope\n",
     "firecracker", "a", "qemu-1-a", "machine-qemu\\x2d1\\x2da.scope"},
    /* broken escapes: the unit is as it is, there is no machine */
    {"/usr/bin/kvm", "-S", "0::/machine-qemu\\x2d1\\x2da\\xzz.scope\n", "qemu", "", "",
     "machine-qemu\\x2d1\\x2da\\xzz.scope"},
    {"/usr/bin/kvm", "-S", "0::/machine-qemu\\x2d1\\x2.scope\n", "qemu", "", "",
     "machine-qemu\\x2d1\\x2.scope"},
};

START_TEST(asks_the_manager)
{
    CLEANUP_IDENTITY struct identity identity;
    char cmdline[64];
    int len = sprintf(cmdline, "vmm%c%s%c", 0, managed[_i].argument, 0);
    tree_link(&tree, 42, "exe", managed[_i].exe);
    tree_file(&tree, 42, "cmdline", cmdline, (size_t)len);
    tree_file(&tree, 42, "cgroup", managed[_i].cgroup, strlen(managed[_i].cgroup));
    ck_assert_int_eq(identity_read(&proc, 42, &identity), 0);
    ck_assert_str_eq(identity.vmm, managed[_i].vmm);
    ck_assert_str_eq(identity.name, managed[_i].name);
    ck_assert_str_eq(identity.machine, managed[_i].machine);
    ck_assert_str_eq(identity.unit, managed[_i].unit);
}
END_TEST

/* Nothing but comm can be read: a process that has cleared its arguments. */
START_TEST(comm_is_the_last_resort)
{
    CLEANUP_IDENTITY struct identity identity;
    tree_file(&tree, 42, "comm", "qemu-system-x86\n", 16);
    ck_assert_int_eq(identity_read(&proc, 42, &identity), 0);
    ck_assert_str_eq(identity.vmm, "qemu");
    identity_free(&identity);
    tree_file(&tree, 42, "comm", "firecracker\n", 12);
    tree_file(&tree, 42, "cmdline", "\0\0\0", 3);
    ck_assert_int_eq(identity_read(&proc, 42, &identity), 0);
    ck_assert_str_eq(identity.vmm, "firecracker");
}
END_TEST

/* A name goes into every sample of its VM. */
START_TEST(names_are_bounded)
{
    enum {
        LONG = 200000
    };
    static char cmdline[LONG + 100];
    for (int shift = 0; shift < 3; shift++) {
        CLEANUP_IDENTITY struct identity identity;
        size_t at = (size_t)sprintf(cmdline, "kvm%c-name%c%.*s", 0, 0, shift, "ab");
        while (at < LONG)
            at = (size_t)((char *)mempcpy(cmdline + at, "\342\202\254", 3) - cmdline); /* a euro */
        tree_link(&tree, 42 + shift, "exe", QEMU);
        tree_file(&tree, 42 + shift, "cmdline", cmdline, at);
        ck_assert_int_eq(identity_read(&proc, 42 + shift, &identity), 0);
        size_t len = strlen(identity.name);
        ck_assert_uint_le(len, IDENTITY_BYTES_MAX);
        ck_assert_uint_gt(len, IDENTITY_BYTES_MAX - 3);
        ck_assert_uint_eq((len - (size_t)shift) % 3, 0); /* no piece of a character */
        ck_assert_int_eq(memcmp(identity.name, cmdline + 10, len), 0);
    }
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
    size_t len = 10 << 20;
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

START_TEST(only_nuls)
{
    CLEANUP_IDENTITY struct identity identity;
    CLEANUP_FREE char *bytes = calloc(1, 10 << 20);
    tree_link(&tree, 42, "exe", QEMU);
    tree_file(&tree, 42, "cmdline", bytes, 10 << 20);
    ck_assert_int_eq(identity_read(&proc, 42, &identity), 0);
    ck_assert_str_eq(identity.vmm, "qemu");
    ck_assert_str_eq(identity.name, "");
}
END_TEST

/* One argument of 10 MB: it is argv[0]. */
START_TEST(no_nuls)
{
    CLEANUP_IDENTITY struct identity identity;
    CLEANUP_FREE char *bytes = malloc(10 << 20);
    memset(bytes, '-', 10 << 20);
    tree_file(&tree, 42, "cmdline", bytes, 10 << 20);
    ck_assert_int_eq(identity_read(&proc, 42, &identity), 0);
    ck_assert_uint_eq(strlen(identity.vmm), IDENTITY_BYTES_MAX);
    ck_assert_str_eq(identity.name, "");
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
    tcase_add_loop_test(tcase, asks_the_manager, 0, (int)ARRAY_LEN(managed));
    tcase_add_test(tcase, comm_is_the_last_resort);
    tcase_add_test(tcase, names_are_bounded);
    tcase_add_test(tcase, only_nuls);
    tcase_add_test(tcase, no_nuls);
    tcase_add_test(tcase, gone_is_unknown);
    tcase_add_test(tcase, command_line_is_bounded);
    tcase_add_test(tcase, random_names_come_back);
    tcase_add_test(tcase, splits_arguments);
    suite_add_tcase(suite, tcase);
    return suite;
}
