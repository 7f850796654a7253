# SPDX-License-Identifier: Apache-2.0
"""The threads of Debian's QEMU: whose CPU time and run-queue wait it is, held against what QEMU says
of its own threads (query-cpus-fast) and against the kernel's schedstat of them."""

import os
import time
from fractions import Fraction

import lab
import qmp
import tap
from exposed import first_sample, series

t = tap.Tests()

CONFIG = "discovery: {sources: [bpf], rescan: 200ms}\nscheduler: {interval: 50ms}\n"
NAMED = ("-name", "debug-threads=on")
VCPUS = 3


def setup():
    tap.require_kvm()
    tap.require_root()
    if not os.path.exists("/sys/kernel/btf/vmlinux"):
        tap.skip("the kernel has no BTF")
    with open("/proc/self/schedstat", encoding="ascii") as f:
        if f.read().split()[0] == "0":
            tap.skip("this kernel does not count run-queue wait (CONFIG_SCHED_INFO)")


def qemu(name, *args):
    return lab.Qemu(name=name, vcpus=VCPUS, args=qmp.ARGS + args)


def threads(monitor):
    """{APIC id: tid}: a socket's cores have numbers up to the next power of two."""
    cpus = monitor.do("query-cpus-fast")
    return {4 * cpu["props"].get("socket-id", 0) + cpu["props"].get("core-id", 0): cpu["thread-id"]
            for cpu in cpus}


def own(pid, tid):
    with open(f"/proc/{pid}/task/{tid}/schedstat", encoding="ascii") as f:
        run, wait, _ = f.read().split()
    return Fraction(int(run), 10**9), Fraction(int(wait), 10**9)


def exposed(daemon, vm):
    """{vcpu: (run, wait)}"""
    shown = series(daemon)
    names = {v: [f'kvm_vcpu_{what}_seconds_total{{vm="{vm}",vcpu="{v}"}}'
                 for what in ("cpu", "runqueue_wait")] for v in range(8)}
    return {v: tuple(shown[n] for n in pair) for v, pair in names.items() if pair[0] in shown}


def held(daemon, vm, pid, tids):
    """Each vCPU has its own thread's times: those of the others lie elsewhere."""
    before = {v: own(pid, tid) for v, tid in tids.items()}
    shown = tap.wait_for(lambda: (now := exposed(daemon, vm)) and len(now) == len(tids) and all(
        now[v][0] >= before[v][0] for v in tids) and now, what="readings")
    after = {v: own(pid, tid) for v, tid in tids.items()}
    for v in tids:
        for i, what in enumerate(("CPU time", "wait")):
            tap.between(before[v][i], shown[v][i], after[v][i], f"{what} of vCPU {v}")
    runs = [shown[v][0] for v in tids]
    tap.equal(len(set(runs)), len(runs), "different times")


@t.test("threads that all have QEMU's name are told apart by the kernel's word")
def _():
    setup()
    with qemu("nameless") as guest, qmp.Qmp(guest) as monitor, lab.Daemon(CONFIG) as daemon:
        first_sample(daemon, "nameless")
        tids = threads(monitor)
        with open(f"/proc/{guest.pid}/task/{tids[0]}/comm", encoding="ascii") as f:
            tap.check("KVM" not in f.read(), "this QEMU names its threads")
        held(daemon, "nameless", guest.pid, tids)


@t.test("a guest that was never started: absent without names, and there once it runs")
def _():
    setup()
    with qemu("paused", "-S") as guest, qmp.Qmp(guest) as monitor, lab.Daemon(CONFIG) as daemon:
        first_sample(daemon, "paused")
        time.sleep(0.5)  # some rescans, some ticks
        tap.equal(exposed(daemon, "paused"), {}, "what nobody knows")
        monitor.do("cont")
        held(daemon, "paused", guest.pid, threads(monitor))


@t.test("a guest that was never started: by the names of its threads")
def _():
    setup()
    with qemu("named", "-S", *NAMED) as guest, qmp.Qmp(guest) as monitor, \
            lab.Daemon(CONFIG) as daemon:
        first_sample(daemon, "named")
        tids = threads(monitor)
        held(daemon, "named", guest.pid, tids)
        monitor.do("cont")
        held(daemon, "named", guest.pid, tids)


@t.test("vCPUs that are plugged in while the guest runs, whose ids have holes")
def _():
    setup()
    smp = ("-smp", "1,maxcpus=6,sockets=2,cores=3,threads=1")
    with lab.Qemu(name="plugged", vcpus=1, args=qmp.ARGS + smp) as guest, \
            qmp.Qmp(guest) as monitor, lab.Daemon(CONFIG) as daemon:
        first_sample(daemon, "plugged")
        held(daemon, "plugged", guest.pid, threads(monitor))
        for socket, core in ((1, 1), (0, 2)):
            cpu = next(c for c in monitor.do("query-hotpluggable-cpus")
                       if (c["props"]["socket-id"], c["props"]["core-id"]) == (socket, core))
            monitor.do("device_add", driver=cpu["type"], id=f"cpu{socket}{core}", **cpu["props"])
            held(daemon, "plugged", guest.pid, threads(monitor))
        tap.equal(sorted(exposed(daemon, "plugged")), [0, 2, 5], "vCPUs by APIC id")


t.main()
