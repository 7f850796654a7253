# SPDX-License-Identifier: Apache-2.0
"""The built daemon over real VMs: every value it shows is held against own reads of the same fds."""

import os
import re
import shutil
import signal
import sys
import tempfile
import time
from fractions import Fraction

import kvmfd
import lab
import tap
from exposed import (OPENMETRICS, first_sample, held_between, resident_kib, row, samples, series,
                     shown)

t = tap.Tests()

FAST = "sampling:\n  interval: 10ms\n"


def only(prefix, interval="10ms"):
    """A configuration that reads the VMs whose names begin so, and none of others' on this host."""
    return f"""
sampling:
  interval: {interval}
  rules:
    - match: {{vm: "{prefix}*"}}
      enabled: true
    - match: {{vm: "*"}}
      enabled: false
"""


def setup():
    tap.require_kvm()
    tap.require_root()


@t.test("every value lies between two own reads of the same fd, in both formats")
def _():
    setup()
    config = "metrics:\n  histograms: vcpu\n"
    with lab.DemoVms(vms=2, vcpus=2, name="web", load="mix") as demo, lab.Daemon(config) as daemon:
        for vm, pid in demo.vms:
            first_sample(daemon, vm)
            for accept in (None, OPENMETRICS):
                moved = held_between(daemon, vm, pid, accept)
                tap.check(moved > 20, f"only {moved} series of a busy guest moved")


@t.test("sums over vCPUs are the sums of what the fds say")
def _():
    setup()
    config = "metrics:\n  vcpu: false\n"
    with lab.DemoVms(vcpus=3, name="web", load="mix") as demo, lab.Daemon(config) as daemon:
        [(vm, pid)] = demo.vms
        first_sample(daemon, vm)
        files = [kvmfd.StatsFile(pid, fd) for n, fd in kvmfd.stats_fds(pid).items() if n >= 0]
        tap.equal(len(files), 3)

        def own():
            return sum(f.read()["io_exits"][0] for f in files)
        low, started = own(), time.time()
        tap.wait_for(lambda: series(daemon)[f'kvm_vm_last_sample_timestamp_seconds{{vm="{vm}"}}'] >
                     Fraction(started), what="a fresh sample")
        text = daemon.metrics()
        tap.between(low, samples(text)[f'kvm_vcpu_io_exits_total{{vm="{vm}"}}'], own(), "io_exits")
        tap.check('vcpu="' not in text, "a per-vCPU series in spite of vcpu: false")


@t.test("several rates at once, each kept, by the rules of the configuration")
def _():
    setup()
    config = """
sampling:
  interval: 200ms
  rules:
    - match: {vm: "fast*"}
      interval: 5ms
    - match: {vm: "off*"}
      enabled: false
"""
    with lab.DemoVms(name="fast") as _a, lab.DemoVms(name="slow") as _b, \
            lab.DemoVms(name="off") as _c, lab.Daemon(config) as daemon:
        first_sample(daemon, "fast")
        first_sample(daemon, "slow")
        seen = {"fast": set(), "slow": set()}
        begin = time.monotonic()
        while time.monotonic() < begin + 2:
            now = series(daemon)
            for vm in seen:
                seen[vm].add(now[f'kvm_vm_last_sample_timestamp_seconds{{vm="{vm}"}}'])
        # Never more often than due; how much less a busy machine lets us see is another matter.
        most = (time.monotonic() - begin) / 0.2 + 2
        tap.between(2, len(seen["slow"]), most, "ticks of the slow group")
        tap.check(len(seen["fast"]) > len(seen["slow"]), f"{len(seen['fast'])} ticks of the fast one")
        tap.check('vm="off' not in daemon.metrics(), "a disabled VM is shown")
        rows = {v["vm"]: v for v in daemon.get("/api/v1/vms").json()["vms"]}
        tap.equal(rows["off"]["reason"], "disabled")


@t.test("a vCPU that comes later is found, one whose fd is closed goes, and sums never fall")
def _():
    setup()
    config = "sampling: {interval: 5ms}\ndiscovery: {rescan: 200ms, sources: [statsfd]}\nmetrics: {vcpu: false}\n"
    with kvmfd.TinyVmm("vm a", "stats a", "vcpu a 0", "stats a/0") as vmm, \
            lab.Daemon(config) as daemon:
        vm = f"pid-{vmm.pid}"
        first_sample(daemon, vm)
        vmm.tell("vcpu a 1")
        vmm.tell("stats a/1")
        tap.wait_for(lambda: f'kvm_vm_vcpus{{vm="{vm}"}} 2' in daemon.metrics(), what="vCPU 1")
        tap.wait_for(lambda: row(daemon, vmm.pid)["vcpus_read"] == 2, what="vCPU 1 as a target")
        key = f'kvm_vcpu_halt_wait_hist_seconds_count{{vm="{vm}"}}'
        before = series(daemon)[key]
        vmm.tell("close a/1:stats")
        tap.wait_for(lambda: row(daemon, vmm.pid)["vcpus_read"] == 1, what="vCPU 1 to go")
        tap.check(series(daemon)[key] >= before, "the sum fell")


@t.test("one VM once: dups, a forked child that shares its fds, and the owner's end")
def _():
    setup()
    config = FAST + "discovery: {rescan: 200ms}\n"
    with kvmfd.TinyVmm("vm a", "dup a b", "vcpu a 0", "stats a/0", "dup a/0:stats c") as vmm:
        child = int(vmm.tell("fork"))
        with lab.Daemon(config) as daemon:
            first_sample(daemon, f"pid-{vmm.pid}")
            time.sleep(0.6)  # two rescans
            tap.equal(shown(daemon, f"pid-{vmm.pid}\""), 1, "VMs shown of the owner")
            tap.equal(shown(daemon, f"pid-{child}\""), 0, "VMs shown of the child")
            rows = [v for v in daemon.get("/api/v1/vms").json()["vms"]
                    if v["pid"] in (vmm.pid, child)]
            tap.equal(len(rows), 1, "VMs listed")
            os.kill(child, 0)
            vmm.kill()
            vmm.wait()
            tap.wait_for(lambda: f'vm="pid-{vmm.pid}"' not in daemon.metrics(), what="its end")


@t.test("several VMs in one process cannot be told apart and are not guessed")
def _():
    setup()
    commands = ("vm a", "vcpu a 0", "stats a/0", "vm b", "vcpu b 0", "stats b/0")
    config = FAST + "discovery: {sources: [statsfd]}\n"
    with kvmfd.TinyVmm(*commands) as vmm, lab.Daemon(config) as daemon:
        def reasons():
            return [v["reason"] for v in daemon.get("/api/v1/vms").json()["vms"]
                    if v["pid"] == vmm.pid]
        tap.wait_for(lambda: reasons() == ["ambiguous", "ambiguous"], what="both to be reported")
        counted = series(daemon)['kvmstatd_vms_unreadable{reason="ambiguous"}']
        tap.check(counted >= 2, f"{counted} ambiguous VMs are counted")
        tap.equal(shown(daemon, f"pid-{vmm.pid}"), 0, "ambiguous VMs shown")


@t.test("a VM without stats fds is reported, not shown; it is read once it has some")
def _():
    setup()
    config = FAST + "discovery: {rescan: 200ms, sources: [statsfd]}\n"
    with kvmfd.TinyVmm("vm a", "vcpu a 0") as vmm, lab.Daemon(config) as daemon:
        tap.wait_for(lambda: row(daemon, vmm.pid)["reason"] == "no_stats_fd", what="the report")
        tap.check(series(daemon)['kvmstatd_vms_unreadable{reason="no_stats_fd"}'] >= 1)
        tap.equal(shown(daemon, f"pid-{vmm.pid}"), 0, "VMs shown")
        vmm.tell("stats a/0")
        first_sample(daemon, f"pid-{vmm.pid}")
        tap.equal(row(daemon, vmm.pid)["reason"], None, "reason")


@t.test("a VM closed by a VMM that lives on is let go: the kernel says destroy")
def _():
    setup()
    config = FAST + "discovery: {rescan: 200ms}\n"
    with kvmfd.Uevents() as events, \
            kvmfd.TinyVmm("vm a", "stats a", "vcpu a 0", "stats a/0") as vmm, \
            lab.Daemon(config) as daemon:
        first_sample(daemon, f"pid-{vmm.pid}")
        fds = daemon.n_fds()
        for name in ("a:stats", "a/0:stats", "a/0", "a"):
            vmm.tell(f"close {name}")
        events.wait("destroy", [vmm.pid])
        tap.check(f"pid-{vmm.pid}" not in daemon.metrics())
        tap.wait_for(lambda: daemon.n_fds() < fds, what="its fds to be closed")


@t.test("VMMs killed in the middle of sweeps: every VM is destroyed, the others go on")
def _():
    setup()
    with lab.DemoVms(name="own-stays", vcpus=2) as _stays, \
            lab.Daemon(only("own-", "1ms")) as daemon:
        first_sample(daemon, "own-stays")
        fds = daemon.n_fds()
        for _ in range(5):
            with kvmfd.Uevents() as events, lab.DemoVms(vms=20, vcpus=2, name="own-dies") as demo:
                # The vCPU threads make the vCPUs, but the process's first thread makes the VM.
                for vm, _ in demo.vms:
                    first_sample(daemon, vm)
                for _, pid in demo.vms:
                    os.kill(pid, signal.SIGKILL)
                events.wait("destroy", [pid for _, pid in demo.vms])
            text = daemon.metrics()
            tap.check('vm="own-dies' not in text, "a dead VM is shown")
        first_sample(daemon, "own-stays")
        tap.wait_for(lambda: daemon.n_fds() <= fds, what="all fds to be closed")
        tap.check(daemon.running(), daemon.errors())


@t.test("1,000 starts and stops leave no fd, no thread and no growth behind")
def _():
    setup()
    with lab.Daemon(only("round-")) as daemon:
        def rounds(n):
            for _ in range(n):
                with lab.DemoVms(vms=50, vcpus=1, name="round", load="idle") as demo:
                    tap.wait_for(lambda: shown(daemon, "round-") == 50, what="50 VMs")
                    for _, pid in demo.vms:
                        os.kill(pid, signal.SIGKILL)
                    tap.wait_for(lambda: shown(daemon, "round-") == 0, what="their end")
        rounds(4)
        tap.wait_for(lambda: daemon.n_fds(), what="fds")
        time.sleep(0.5)
        before = daemon.n_fds(), daemon.n_threads(), resident_kib(daemon.pid)
        rounds(20)
        tap.wait_for(lambda: daemon.n_fds() <= before[0], what="all fds to be closed")
        tap.equal(daemon.n_threads(), before[1], "threads")
        if not lab.sanitized():  # they keep what was freed
            grown = resident_kib(daemon.pid) - before[2]
            tap.check(grown < 1024, f"grew by {grown} KiB")
        lines = daemon.errors().count("\n")
        tap.check(lines < 3 * 1200 + 50, f"{lines} lines in the log")


@t.test("two VMs of one name are told apart, and one alone has its name")
def _():
    setup()
    with lab.Daemon(FAST) as daemon, lab.DemoVms(name="db") as first:
        first_sample(daemon, "db")
        with lab.DemoVms(name="db") as second:
            first_sample(daemon, f"db@{first.vms[0][1]}")
            first_sample(daemon, f"db@{second.vms[0][1]}")
            tap.check('vm="db"' not in daemon.metrics())
        tap.wait_for(lambda: 'kvm_vm_info{vm="db",' in daemon.metrics(), what="the plain name")


class NamedVmm(kvmfd.TinyVmm):
    """One that is taken for kvmtool, which lets a VM have any name."""

    def __init__(self, folder, name):  # pylint: disable=super-init-not-called
        lab.Process.__init__(self, [f"{folder}/lkvm", kvmfd.__file__, "--name", name])
        try:
            for command in ("vm a", "vcpu a 0", "stats a/0"):
                self.tell(command)
        except BaseException:
            self.end()
            raise


@t.test("two VMs of one name that is longer than a label are told apart, read or not")
def _():
    setup()
    name = f"long-{os.getpid()}-".ljust(1100, "x")
    off = FAST + "  rules: [{match: {vm: 'long-*'}, enabled: false}]\n"
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(sys.executable, f"{folder}/lkvm")
        with NamedVmm(folder, name) as first, NamedVmm(folder, name) as second, \
                lab.Daemon(FAST) as daemon:
            wanted = {first.pid, second.pid}

            def ends(reason):
                """What is behind the last @ in the names of these VMs in the list."""
                return {int(v["vm"].rpartition("@")[2])
                        for v in daemon.get("/api/v1/vms").json()["vms"]
                        if v["pid"] in wanted and v["reason"] == reason and "@" in v["vm"]}
            tap.wait_for(lambda: ends(None) == wanted, what="both, read")
            tap.wait_for(lambda: {int(pid) for pid in re.findall(
                r'^kvm_vm_info[{]vm="long-[^"]*@(\d+)"', daemon.metrics(), re.M)} == wanted,
                         what="their labels")
            daemon.reload(off)
            tap.wait_for(lambda: ends("disabled") == wanted, what="both, not read")


if __name__ == "__main__":
    t.main()
