# SPDX-License-Identifier: Apache-2.0
"""A real QEMU under the daemon. Debian 12's keeps no stats fds, so it is listed, with the reason,
and not read; what stands beside it is read all the same."""

import os
import signal

import lab
import tap

t = tap.Tests()

BORROWING_ONLY = "discovery: {sources: [statsfd]}\n"
# A host's other ways of reading a VM would find these.
STATS_FDS_ONLY = "discovery:\n  sources: [handoff, statsfd]\n"
UUID = "5d1f0a5e-3b7c-4a35-9c8e-0f1f5a6f7b21"
# libvirt allows such names: a comma is doubled on QEMU's command line, all else stands as it is.
ODD_NAME = """a,b "c" d=e,name=x \u00e4\u20ac 'f' {g} \\h"""


def known(daemon):
    """Every VM that the daemon knows, by pid."""
    answer = daemon.get("/api/v1/vms")
    tap.equal(answer.status, 200, "/api/v1/vms")
    return {vm["pid"]: vm for vm in answer.json()["vms"]}


def wait_known(daemon, *pids):
    return tap.wait_for(lambda: (vms := known(daemon)) and all(p in vms for p in pids) and vms,
                        what=f"VMs of {pids} in /api/v1/vms")


def wait_counted(daemon, *pids):
    """The metric counts what the list says, `pids` among it. This machine may run other VMs that
    come and go, so the two need not agree at the first look."""

    def agree():
        unreadable = [pid for pid, vm in known(daemon).items() if vm["reason"] == "no_stats_fd"]
        line = f'kvmstatd_vms_unreadable{{reason="no_stats_fd"}} {len(unreadable)}'
        return set(pids) <= set(unreadable) and line in daemon.metrics().splitlines()

    tap.wait_for(agree, what="as many VMs counted as listed")


def setup():
    tap.require_kvm()
    tap.require_root()


def keeps_stats_fds(qemu):
    return any(link.startswith("anon_inode:kvm-vcpu-stats") for link in lab.fd_links(qemu.pid))


def qemu_without_stats_fds(**kwargs):
    """QEMU 8.1 and later keeps its vCPUs' stats fds: then there is nothing to test here."""
    qemu = lab.Qemu(**kwargs)
    if keeps_stats_fds(qemu):
        qemu.end()
        tap.skip("this QEMU keeps stats fds")
    return qemu


@t.test("a QEMU without stats fds is listed with its name, its uuid and the reason")
def _():
    setup()
    with qemu_without_stats_fds(name="plain", vcpus=2, uuid=UUID) as qemu, \
            lab.Daemon(BORROWING_ONLY) as daemon:
        vm = wait_known(daemon, qemu.pid)[qemu.pid]
        tap.equal(vm["name"], "plain")
        tap.equal(vm["vm"], "plain")
        tap.equal(vm["uuid"], UUID)
        tap.equal(vm["vmm"], "qemu")
        tap.equal(vm["vcpus"], 2)
        tap.equal(vm["vcpus_read"], 0)
        tap.equal(vm["reason"], "no_stats_fd")
        tap.check(vm["detail"], "a person is told what would help")
        wait_counted(daemon, qemu.pid)
        # What cannot be read is absent, not zero.
        series = [line for line in daemon.metrics().splitlines() if line.startswith("kvm_v")]
        tap.check(not [line for line in series if f'pid="{qemu.pid}"' in line], "no kvm_vm_info")
        tap.check(not [line for line in series if '{vm="plain"' in line], "no series")


@t.test("names with commas, quotes, spaces, non-ASCII characters come out as they are")
def _():
    setup()
    with qemu_without_stats_fds(name=ODD_NAME) as qemu, lab.Daemon(STATS_FDS_ONLY) as daemon:
        tap.equal(wait_known(daemon, qemu.pid)[qemu.pid]["name"], ODD_NAME)


@t.test("a name that is no UTF-8 still makes valid JSON, for it and for its neighbours")
def _():
    setup()
    raw = b"bad\xff\xfe\x01name"
    args = [b"-name", raw]
    with qemu_without_stats_fds(name=None, args=args) as qemu, \
            qemu_without_stats_fds(name="good") as good, lab.Daemon(STATS_FDS_ONLY) as daemon:
        vms = wait_known(daemon, qemu.pid, good.pid)
        tap.check(vms[qemu.pid]["name"].startswith("bad\ufffd"), ascii(vms[qemu.pid]["name"]))
        tap.check(vms[qemu.pid]["name"].endswith("name"), ascii(vms[qemu.pid]["name"]))
        tap.equal(vms[good.pid]["name"], "good")


@t.test("an unnamed QEMU goes by its uuid, else by its pid")
def _():
    setup()
    with qemu_without_stats_fds(name=None, uuid=UUID) as with_uuid, \
            qemu_without_stats_fds(name=None) as without, lab.Daemon(STATS_FDS_ONLY) as daemon:
        vms = wait_known(daemon, with_uuid.pid, without.pid)
        tap.equal(vms[with_uuid.pid]["vm"], UUID)
        tap.equal(vms[without.pid]["vm"], f"pid-{without.pid}")


@t.test("two QEMUs of one name are told apart by their pids")
def _():
    setup()
    with qemu_without_stats_fds(name="twin") as a, qemu_without_stats_fds(name="twin") as b, \
            lab.Daemon(STATS_FDS_ONLY) as daemon:
        vms = wait_known(daemon, a.pid, b.pid)
        tap.equal({vms[a.pid]["vm"], vms[b.pid]["vm"]}, {f"twin@{a.pid}", f"twin@{b.pid}"})


@t.test("a VM beside it is read; the QEMU killed, it is gone and the other still read")
def _():
    setup()
    with lab.Daemon(BORROWING_ONLY) as daemon, lab.DemoVms(vms=1, vcpus=2, name="beside") as demo, \
            qemu_without_stats_fds(name="doomed") as qemu:
        _, demo_pid = demo.vms[0]
        tap.wait_for(lambda: wait_known(daemon, demo_pid)[demo_pid]["vcpus_read"] == 2,
                     what="both vCPUs of the demo VM")
        vms = wait_known(daemon, demo_pid, qemu.pid)
        tap.equal(vms[demo_pid]["reason"], None, vms[demo_pid]["detail"])
        tap.equal(vms[qemu.pid]["reason"], "no_stats_fd")
        tap.wait_for(lambda: 'kvm_vcpu_exits_total{vm="beside",vcpu="1"}' in daemon.metrics(),
                     what="the demo VM's samples")
        qemu.kill(signal.SIGKILL)
        qemu.wait()
        tap.wait_for(lambda: qemu.pid not in known(daemon), what="the killed QEMU to be gone")
        wait_counted(daemon)
        tap.equal(known(daemon)[demo_pid]["reason"], None)
        tap.check(os.path.exists(f"/proc/{demo_pid}"), "the demo VM lives")


@t.test("where BPF works, a QEMU that keeps nothing open is read whole, and let go when killed")
def _():
    setup()
    name = f"whole-{os.getpid()}"
    with lab.Daemon() as daemon, qemu_without_stats_fds(name=name, vcpus=2) as qemu:

        def settled():
            vm = known(daemon).get(qemu.pid, {"reason": None, "vcpus_read": 0})
            return vm if vm["reason"] or vm["vcpus_read"] == 2 else None

        vm = tap.wait_for(settled, lab.TIMEOUT_S, 0.05, "what becomes of the VM")
        if vm["reason"]:
            tap.skip(vm["detail"])
        tap.equal(vm["source"], "bpf")
        tap.check(vm["vm_scope_read"], "the VM's own statistics are read")

        def exits():
            head = f'kvm_vcpu_exits_total{{vm="{name}",vcpu="0"}} '
            found = [l for l in daemon.metrics().splitlines() if l.startswith(head)]
            return int(found[0][len(head):]) if found else 0

        # The firmware waits for a disk that is not there: it goes on making exits.
        first = tap.wait_for(exits, lab.TIMEOUT_S, 0.05, "its first samples")
        tap.wait_for(lambda: exits() > first, lab.TIMEOUT_S, 0.05, "more exits")
        qemu.kill(signal.SIGKILL)
        qemu.wait()
        tap.wait_for(lambda: f'"{name}"' not in daemon.metrics(), what="the end of its series")
        # No pin without a VM: the kernel could not destroy it otherwise.
        def pins():
            return lab.fd_links(daemon.pid).count("anon_inode:kvm-vm")

        tap.wait_for(lambda: pins() <= len(known(daemon)), what="its pin to be let go")


t.main()
