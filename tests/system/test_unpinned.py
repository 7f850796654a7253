# SPDX-License-Identifier: Apache-2.0
"""A daemon that has CAP_BPF and CAP_PERFMON alone: it may neither list nor borrow any VMM's fds, and
yet reads every VM, by the pass over the host's open files itself."""

import os
import signal
import time

import kvmfd
import lab
import tap
from exposed import OPENMETRICS, first_sample, held_between, row, series, shown

t = tap.Tests()

PERFMON, BPF = 38, 39
PIDFD_GETFD = 438
CONFIG = "sampling: {interval: 10ms}\ndiscovery: {sources: [bpf], rescan: 200ms}\n"


def setup():
    tap.require_kvm()
    tap.require_root()
    if not os.path.exists("/sys/kernel/btf/vmlinux"):
        tap.skip("the kernel has no BTF")


def daemon_with(*capabilities, config=CONFIG):
    return lab.Daemon(config, preexec=lab.keep_capabilities(*capabilities))


def has_no_pins(daemon):
    return not any(link.startswith("anon_inode:kvm") for link in lab.fd_links(daemon.pid))


@t.test("every value lies between two own reads, though the daemon may not even list the VMMs' fds")
def _():
    setup()
    config = CONFIG + "metrics: {histograms: vcpu}\n"
    with lab.DemoVms(vms=3, vcpus=2, name="web", load="mix") as demo, \
            daemon_with(BPF, PERFMON, config=config) as daemon:
        for vm, pid in demo.vms:
            first_sample(daemon, vm)
            for accept in (None, OPENMETRICS):
                moved = held_between(daemon, vm, pid, accept)
                tap.check(moved > 20, f"only {moved} series of a busy guest moved")
            tap.equal(row(daemon, pid)["source"], "bpf")
            tap.equal(row(daemon, pid)["vcpus_read"], 2)
            tap.equal(row(daemon, pid)["vm_scope_read"], True)
        tap.check(has_no_pins(daemon), "it holds an fd of KVM's")


@t.test("with the default configuration, also VMs without stats fds")
def _():
    setup()
    with daemon_with(BPF, PERFMON, config="") as daemon, \
            lab.DemoVms(vcpus=3, name="later", stats_fds="none") as demo:
        first_sample(daemon, "later")
        [(_, pid)] = demo.vms
        tap.wait_for(lambda: row(daemon, pid)["vcpus_read"] == 3, what="three vCPUs")
        key = 'kvm_vcpu_exits_total{vm="later",vcpu="2"}'
        tap.wait_for(lambda: key in series(daemon), what="the first sample of the third")
        before = series(daemon)[key]
        tap.wait_for(lambda: series(daemon)[key] > before,
                     what="the guest's exits")


@t.test("several VMs in one process are told apart, and one that is closed is let go")
def _():
    setup()
    with kvmfd.Uevents() as events, daemon_with(BPF, PERFMON) as daemon, \
            kvmfd.TinyVmm("vm a", "vcpu a 0", "vm b", "vcpu b 0", "vcpu b 1", "vcpu b 2") as vmm:
        label = f"pid-{vmm.pid}"

        def rows():
            return [v for v in daemon.get("/api/v1/vms").json()["vms"] if v["pid"] == vmm.pid]
        tap.wait_for(lambda: sorted(v["vcpus_read"] for v in rows()) == [1, 3], what="both VMs")
        tap.equal(sorted(v["vcpus"] for v in rows()), [1, 3], "vCPUs")
        tap.wait_for(lambda: shown(daemon, label) == 2, what="both VMs in /metrics")
        for name in ("b/0", "b/1", "b/2", "b"):
            vmm.tell("close " + name)
        events.wait("destroy", [vmm.pid])
        tap.wait_for(lambda: shown(daemon, label) == 1, what="one VM to go")
        tap.wait_for(lambda: len(rows()) == 1, what="one row")
        tap.equal(rows()[0]["vcpus_read"], 1)
        vmm.tell("vcpu a 5")
        tap.wait_for(lambda: rows()[0]["vcpus_read"] == 2, what="a later vCPU")


@t.test("a vCPU whose file is closed is let go, the VM goes on; a VM is read by its vCPUs' files too")
def _():
    setup()
    config = "sampling: {interval: 10ms}\ndiscovery: {sources: [bpf], rescan: 1h}\n"
    with kvmfd.TinyVmm("vm a", "vcpu a 0", "vcpu a 1") as vmm, \
            daemon_with(BPF, PERFMON, config=config) as daemon:
        tap.wait_for(lambda: row(daemon, vmm.pid)["vcpus_read"] == 2, what="the VM")
        vmm.tell("close a/1")
        tap.wait_for(lambda: row(daemon, vmm.pid)["vcpus_read"] == 1, what="one vCPU less")
        vmm.tell("close a")
        label = f"pid-{vmm.pid}"
        end = time.monotonic() + 1
        while time.monotonic() < end:
            tap.equal(shown(daemon, label), 1, "the VM, whose vCPU keeps it")
            tap.check(any(k.startswith("kvm_vm_") and f'vm="{label}"' in k and "info" not in k
                          for k in series(daemon)), "the VM's own statistics")


@t.test("VMMs killed in the middle of passes: every VM is destroyed, the others go on")
def _():
    setup()
    config = ("sampling:\n  interval: 1ms\n  rules:\n"
              "    - match: {vm: \"own-*\"}\n      enabled: true\n"
              "    - match: {vm: \"*\"}\n      enabled: false\n"
              "discovery: {sources: [bpf]}\n")
    with lab.DemoVms(name="own-stays", vcpus=2, stats_fds="none"), \
            daemon_with(BPF, PERFMON, config=config) as daemon:
        first_sample(daemon, "own-stays")
        fds = daemon.n_fds()
        for _ in range(5):
            with kvmfd.Uevents() as events, \
                    lab.DemoVms(vms=20, vcpus=2, name="own-dies", stats_fds="none") as demo:
                tap.wait_for(lambda: shown(daemon, "own-dies") == 20, what="20 VMs")
                for _, pid in demo.vms:
                    os.kill(pid, signal.SIGKILL)
                events.wait("destroy", [pid for _, pid in demo.vms])
            tap.wait_for(lambda: shown(daemon, "own-dies") == 0, what="the dead VMs to go")
        before = series(daemon)['kvm_vcpu_exits_total{vm="own-stays",vcpu="0"}']
        tap.wait_for(lambda: series(daemon)['kvm_vcpu_exits_total{vm="own-stays",vcpu="0"}'] > before,
                     what="the one that stays to go on")
        tap.wait_for(lambda: daemon.n_fds() <= fds + 2, what="all fds to be closed")
        tap.check("cannot be read" not in daemon.errors() and daemon.running(), daemon.errors())


@t.test("of VMMs that are killed every VM is dumped, whoever is first to see that it has gone")
def _():
    setup()
    config = ("sampling:\n  interval: 1ms\n  rules:\n"
              "    - match: {vm: \"own-*\"}\n      enabled: true\n"
              "    - match: {vm: \"*\"}\n      enabled: false\n"
              "recorder: {directory: @DIR@/dumps}\n"
              "discovery: {sources: [bpf], rescan: 100ms}\n")
    with daemon_with(BPF, PERFMON, config=config) as daemon:
        for n in range(1, 5):
            with lab.DemoVms(vms=10, name="own-dies", stats_fds="none") as demo:
                tap.wait_for(lambda: shown(daemon, "own-dies") == 10, what="10 VMs")
                for _, pid in demo.vms:
                    os.kill(pid, signal.SIGKILL)
            tap.wait_for(lambda: shown(daemon, "own-dies") == 0, what="the dead VMs to go")
            tap.wait_for(lambda n=n: series(daemon)['kvmstatd_dumps_total{result="written"}'] == 10 * n,
                         what=f"{10 * n} dumps")


@t.test("fds that may be listed but not borrowed: the VM is read all the same")
def _():
    setup()
    config = "sampling: {interval: 10ms}\nmetrics: {histograms: vcpu}\n"  # stats fds first
    with lab.DemoVms(vms=2, vcpus=2, name="web", load="mix") as demo, \
            lab.Daemon(config, preexec=lab.forbid_call(PIDFD_GETFD)) as daemon:
        for vm, pid in demo.vms:
            first_sample(daemon, vm)
            tap.check(held_between(daemon, vm, pid, None) > 20, "the guest is busy")
        tap.check(has_no_pins(daemon), "it holds an fd of KVM's")
        with kvmfd.Uevents() as events:
            os.kill(demo.vms[0][1], signal.SIGKILL)
            events.wait("destroy", [demo.vms[0][1]])
        tap.wait_for(lambda: shown(daemon, "web") == 1, what="the dead VM to go")


@t.test("without BPF either, it says why a VM is not read")
def _():
    setup()
    with daemon_with(config="discovery: {rescan: 200ms}\n") as daemon, \
            lab.DemoVms(name="dark") as demo:
        [(_, pid)] = demo.vms
        tap.wait_for(lambda: row(daemon, pid)["reason"] == "permission", what="the VM's row")
        for word in ("CAP_SYS_PTRACE", "CAP_BPF"):
            tap.check(word in row(daemon, pid)["detail"], row(daemon, pid)["detail"])


if __name__ == "__main__":
    t.main()
