# SPDX-License-Identifier: Apache-2.0
"""CPU time and run-queue wait of vCPUs, held against own readings of /proc/PID/task/TID/schedstat."""

import os
import re
import subprocess
import time
from fractions import Fraction

import kvmfd
import lab
import tap
from exposed import OPENMETRICS, first_sample, series

try:
    import prometheus_client.openmetrics.parser as openmetrics
except ImportError:
    openmetrics = None

t = tap.Tests()

FAST = "scheduler: {interval: 50ms}\n"
BPF = "discovery: {sources: [bpf], rescan: 100ms}\n"


def setup():
    tap.require_kvm()
    tap.require_root()
    with open("/proc/self/schedstat", encoding="ascii") as f:
        if f.read().split()[0] == "0":
            tap.skip("this kernel does not count run-queue wait (CONFIG_SCHED_INFO)")


def require_bpf():
    if not os.path.exists("/sys/kernel/btf/vmlinux"):
        tap.skip("the kernel has no BTF")


def named_threads(pid, pattern=r"CPU (\d+)/KVM"):
    """{number in its name: tid}"""
    found = {}
    for tid, name in lab.of_threads(pid, "comm").items():
        if match := re.fullmatch(pattern, name.rstrip("\n")):
            found[int(match[1])] = tid
    return found


def own(pid, tid):
    """(run, wait) of a thread in seconds, exact."""
    with open(f"/proc/{pid}/task/{tid}/schedstat", encoding="ascii") as f:
        run, wait, _ = f.read().split()
    return Fraction(int(run), 10**9), Fraction(int(wait), 10**9)


def schedstats(daemon, pid):
    """How many files of the process's threads it has open."""
    return sum(link.startswith(f"/proc/{pid}/task/") for link in lab.fd_links(daemon.pid))


def names_of(vm, vcpu):
    labels = f'vm="{vm}"' + ("" if vcpu is None else f',vcpu="{vcpu}"')
    return (f"kvm_vcpu_cpu_seconds_total{{{labels}}}",
            f"kvm_vcpu_runqueue_wait_seconds_total{{{labels}}}")


def exposed(daemon, vm, vcpu, accept=None):
    """(run, wait) as the daemon has it; None where it is absent."""
    shown = series(daemon, accept=accept)
    run, wait = (shown.get(name) for name in names_of(vm, vcpu))
    tap.equal(run is None, wait is None, "one of them alone")
    return None if run is None else (run, wait)


def held(daemon, vm, vcpu, reading, accept=None):
    """What the daemon read between two own readings of threads that run: (before, shown, after)."""
    before = reading()
    shown = tap.wait_for(lambda: (now := exposed(daemon, vm, vcpu, accept)) and now[0] > before[0]
                         and now, every_s=0.01, what=f"a reading of {vm} {vcpu}")
    after = reading()
    for i, what in enumerate(("CPU time", "wait")):
        tap.between(before[i], shown[i], after[i], f"{what} of {vm} {vcpu}")
    return before, shown, after


def busy(name, vcpus=2, **kwargs):
    return lab.DemoVms(vcpus=vcpus, name=name, load="io", rate=0, **kwargs)


@t.test("two busy vCPUs on one core: what they wait is what the kernel says, in both formats")
def _():
    setup()
    with busy("pinned") as demo, lab.Daemon(FAST) as daemon:
        [(_, pid)] = demo.vms
        tids = named_threads(pid)
        core = min(os.sched_getaffinity(0))
        for tid in tids.values():
            os.sched_setaffinity(tid, {core})
        first_sample(daemon, "pinned")
        for vcpu, tid in tids.items():
            begin = time.monotonic()
            first = held(daemon, "pinned", vcpu, lambda tid=tid: own(pid, tid))
            # Long enough for the kernel to have switched between them many times.
            tap.wait_for(lambda first=first, tid=tid: own(pid, tid)[1] > first[2][1] + 1,
                         what="a second of waiting")
            last = held(daemon, "pinned", vcpu, lambda tid=tid: own(pid, tid), OPENMETRICS)
            took = time.monotonic() - begin
            for i in (0, 1):
                increase = last[1][i] - first[1][i]
                tap.between(last[0][i] - first[2][i], increase, last[2][i] - first[0][i], "increase")
            # No more than one of them runs at a time, so that about half of the time each waits; how
            # much of it exactly others on that core decide.
            waited, ran = last[1][1] - first[1][1], last[1][0] - first[1][0]
            tap.check(waited > ran / 4, f"waited {float(waited)}, ran {float(ran)}")
            # The highest of all intervals is no less than what was waited on the average.
            peak = series(daemon)['kvm_vcpu_runqueue_wait_peak_ratio{vm="pinned",window="15s"}']
            tap.check(peak >= (last[0][1] - first[2][1]) / Fraction(took),
                      f"peak {float(peak)}, {float(waited)} s waited in {took} s")


@t.test("sums of a VM's vCPUs, and peaks of each vCPU")
def _():
    setup()
    config = FAST + "metrics: {vcpu: false}\nbursts: {windows: [15s, 90s], scope: vcpu}\n"
    with busy("sums", vcpus=3) as demo, lab.Daemon(config) as daemon:
        [(_, pid)] = demo.vms
        tids = named_threads(pid)
        first_sample(daemon, "sums")
        held(daemon, "sums", None, lambda: tuple(
            sum(times) for times in zip(*(own(pid, tid) for tid in tids.values()))))
        tap.equal(exposed(daemon, "sums", 0), None, "series of a vCPU")
        peaks = tap.wait_for(lambda: sorted(
            name for name in series(daemon) if re.match('kvm_vcpu_runqueue.*peak.*vm="sums"', name)),
            what="peaks")
        tap.equal(peaks, [f'kvm_vcpu_runqueue_wait_peak_ratio{{vm="sums",vcpu="{i}",window="{w}"}}'
                          for i in range(3) for w in ("15s", "90s")])


@t.test("by BPF alone: threads without a vCPU's name, that end and are made anew")
def _():
    setup()
    require_bpf()
    with kvmfd.TinyVmm("vm a", "vcpu a 0", "vcpu a 5") as vmm, lab.Daemon(FAST + BPF) as daemon:
        vm = f"pid-{vmm.pid}"
        first_sample(daemon, vm)
        # Nobody has run it: absent, not zero.
        tap.equal(exposed(daemon, vm, 0), None, "a vCPU that never ran")
        tids = {vcpu: int(vmm.tell(f"run a/{vcpu}")) for vcpu in (0, 5)}
        for vcpu, tid in tids.items():
            held(daemon, vm, vcpu, lambda tid=tid: own(vmm.pid, tid))
        for _ in range(3):
            before = exposed(daemon, vm, 5)
            vmm.tell("rest a/5")
            tap.wait_for(lambda: exposed(daemon, vm, 5) is None, what="the thread's end")
            tid = int(vmm.tell("run a/5"))
            # It goes on from what the former one had, with what the new one has had.
            now = tap.wait_for(lambda: exposed(daemon, vm, 5), what="the new thread")
            tap.check(now[0] > before[0] and now[1] >= before[1], f"{before} fell to {now}")
            held(daemon, vm, 0, lambda: own(vmm.pid, tids[0]))
            later = own(vmm.pid, tid)
            tap.wait_for(lambda before=before, later=later:
                         exposed(daemon, vm, 5)[0] >= before[0] + later[0], what="all it has had")


@t.test("by the statistics' ids: a thread that made the vCPU counts if its name is a vCPU thread's")
def _():
    setup()
    config = FAST + "discovery: {sources: [statsfd]}\n"
    with busy("made", vcpus=2) as demo, kvmfd.TinyVmm("vm a", "vcpu a 0", "stats a/0") as vmm, \
            lab.Daemon(config) as daemon:
        [(_, pid)] = demo.vms
        first_sample(daemon, "made")
        for vcpu, tid in named_threads(pid).items():
            held(daemon, "made", vcpu, lambda tid=tid: own(pid, tid))
        # That one's vCPU was made by its main thread, called python3, and another runs it.
        first_sample(daemon, f"pid-{vmm.pid}")
        vmm.tell("run a/0")
        time.sleep(0.3)
        tap.equal(exposed(daemon, f"pid-{vmm.pid}", 0), None, "a thread by guess")


@t.test("it can be switched off and on while it runs, and changes its windows")
def _():
    setup()
    peak = 'kvm_vcpu_runqueue_wait_peak_ratio{vm="switched",window="%s"}'
    with busy("switched", vcpus=1) as demo, lab.Daemon(FAST) as daemon:
        [(_, pid)] = demo.vms
        [tid] = named_threads(pid).values()
        first_sample(daemon, "switched")
        before = held(daemon, "switched", 0, lambda: own(pid, tid))[1]
        tap.check(schedstats(daemon, pid) == 1, "its file is kept open")
        tap.wait_for(lambda: peak % "15s" in series(daemon), what="the peak")
        daemon.reload("scheduler: {interval: off}\n")
        tap.wait_for(lambda: exposed(daemon, "switched", 0) is None, what="nothing")
        tap.check(peak % "15s" not in series(daemon), "its peak")
        tap.equal(schedstats(daemon, pid), 0, "its files that are open")
        daemon.reload(FAST + "bursts: {windows: [30s]}\n")
        now = held(daemon, "switched", 0, lambda: own(pid, tid))[1]
        tap.check(now[0] > before[0], "it went on")
        tap.wait_for(lambda: peak % "30s" in series(daemon), what="the peak of the other window")
        tap.check(peak % "15s" not in series(daemon), "the former window")


@t.test("a VM that has ended is gone at once, and its files with it")
def _():
    setup()
    name = f"ending{os.getpid()}"
    with lab.Daemon("scheduler: {interval: 1h}\n") as daemon:
        for _ in range(3):
            with busy(name, vcpus=2) as demo:
                [(_, pid)] = demo.vms
                first_sample(daemon, name)
                # New VMs do not wait for the next tick, which is an hour off.
                tap.wait_for(lambda: exposed(daemon, name, 1), what="its first reading")
                tap.equal(schedstats(daemon, pid), 2, "its files")
            tap.wait_for(lambda: name not in daemon.metrics(), what="its end")
            tap.wait_for(lambda pid=pid: schedstats(daemon, pid) == 0,
                         what="its files to be closed")


@t.test("with --once, too, and both formats pass the parsers of others")
def _():
    setup()
    with busy("parsed", vcpus=2) as demo, lab.Daemon(FAST) as daemon:
        [(_, pid)] = demo.vms
        out = subprocess.run([lab.program("kvmstatd"), "--once"], check=True, timeout=lab.TIMEOUT_S,
                             stdout=subprocess.PIPE).stdout.decode()
        tap.check(names_of("parsed", 1)[0] in out, "--once")
        first_sample(daemon, "parsed")
        tap.wait_for(lambda: "peak_ratio{" in daemon.metrics(), what="peaks")
        if openmetrics is not None:
            families = {f.name: f for f in openmetrics.text_string_to_metric_families(
                daemon.metrics(accept=OPENMETRICS))}
            for name, kind, unit in (("cpu_seconds", "counter", "seconds"),
                                     ("runqueue_wait_seconds", "counter", "seconds"),
                                     ("runqueue_wait_peak_ratio", "gauge", "")):
                family = families["kvm_vcpu_" + name]
                tap.equal((family.type, family.unit), (kind, unit), name)
                tap.check(family.documentation and family.samples, name)
        promtool = tap.require_tool("promtool")
        text = daemon.metrics()
        ours = "".join(line + "\n" for line in text.splitlines()
                       if re.match("(# .... )?kvm_vcpu_(cpu_seconds|runqueue)", line))
        result = subprocess.run([promtool, "check", "metrics"], input=ours.encode(), timeout=60,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        tap.equal((result.returncode, result.stdout.decode()), (0, ""))
        tap.check(os.path.exists(f"/proc/{pid}"))


t.main()
