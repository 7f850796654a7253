# SPDX-License-Identifier: Apache-2.0
"""Judges what a lab machine has brought home, by the contract and the kernel's own words alone: what
was exposed is held against the raw bytes of the statistics files before and after the scrape."""

import glob
import json
import os
import re
from fractions import Fraction

import exposed
import kvmfd
import tap

FORMATS = {"prometheus": "text 0.0.4", "openmetrics": "OpenMetrics"}
# What counts all exits of a vCPU, by architecture.
EXITS = ("exits", "sum_exits")


class Results:
    """The files of one way of reading VMs; see scenario.sh."""

    def __init__(self, folder, way):
        self.folder = os.path.join(folder, way)
        self.way = way
        with open(os.path.join(folder, "uevents"), encoding="utf-8") as f:
            self.events = [line.split() for line in f]

    def text(self, name):
        try:
            with open(os.path.join(self.folder, name), encoding="utf-8") as f:
                return f.read()
        except FileNotFoundError as e:
            raise AssertionError(f"the machine has not brought {self.way}/{name}; "
                                 f"its daemon said:\n{self._log()}") from e

    def _log(self):
        path = os.path.join(self.folder, "daemon.log")
        if not os.path.exists(path):
            return "nothing"
        with open(path, encoding="utf-8", errors="replace") as f:
            return f.read()[-2000:]

    def pid(self, vm):
        return self.text(f"{vm}.pid").strip()

    def files(self, when):
        """{-1: the VM's statistics file, vcpu: that vCPU's} as they were read by the machine."""
        found = {}
        for path in glob.glob(os.path.join(self.folder, when, "v*")):
            name = os.path.basename(path)
            found[-1 if name == "vm" else int(name.removeprefix("vcpu-"))] = \
                kvmfd.SavedStatsFile(path)
        tap.check(-1 in found and len(found) == 3, f"statistics files of one VM, two vCPUs: {found}")
        return found

    def values(self, when, vm="kept"):
        return exposed.expected_of(vm, None, self.files(when))

    def vms(self, when):
        return {v["vm"]: v for v in json.loads(self.text(f"{when}.vms"))["vms"]}

    def times(self, when):
        return [Fraction(t) for t in self.text(f"{when}/time").split()]


def _values(results, suffix):
    """The scrape was sampled after the first own read, and its values lie between the two."""
    shown = exposed.samples(results.text(f"alive.{suffix}"))
    sampled = shown.get('kvm_vm_last_sample_timestamp_seconds{vm="kept"}')
    tap.check(sampled is not None, f"the VM is not shown; the daemon said:\n{results._log()}")
    tap.check(sampled >= results.times("before")[1], "the sample is older than the first own read")
    exposed.compare("kept", results.values("before"), shown, results.values("after"))


def _source(results):
    for vm in ("kept", "killed"):
        info = re.search(f'^kvm_vm_info{{vm="{vm}",.*pid="{results.pid(vm)}".*source="([a-z]+)"}} 1$',
                         results.text("alive.prometheus"), re.M)
        tap.check(info, f"no kvm_vm_info of {vm}")
        tap.equal(info[1], results.way, f"source of {vm}")


def _bare(results):
    """A VM whose VMM keeps no statistics fds open: read in full, or known and not read."""
    row = results.vms("alive").get("bare")
    tap.check(row, "the VM is not known")
    shown = exposed.samples(results.text("alive.prometheus"))
    got = {k for k in shown if 'vm="bare"' in k and not exposed.NOT_THE_KERNELS.match(k)}
    if results.way == "statsfd":
        tap.equal((row["reason"], got), ("no_stats_fd", set()), "reason, series")
        return
    want = {k.replace('vm="kept"', 'vm="bare"') for k in shown
            if 'vm="kept"' in k and not exposed.NOT_THE_KERNELS.match(k)}
    tap.check(want, "nothing to compare with")
    tap.equal(got ^ want, set(), "series missing or too many")


def _killed(results):
    pid = results.pid("killed")
    tap.check(["destroy", pid] in [e[:2] for e in results.events],
              f"no destroy event of VM {pid} among {results.events}")
    tap.check(os.path.exists(os.path.join(results.folder, "destroyed")),
              "the destroy event came only after the daemon had ended")
    for suffix in FORMATS:
        after = results.text(f"killed.{suffix}")
        tap.check('vm="kept"' in after, "the VM that was left alone is gone as well")
        tap.check('vm="killed"' not in after, "the killed VM still is in the next scrape")


def _stopped(results):
    tap.equal(results.text("status").strip(), "0", f"exit status; it said:\n{results._log()}\n")


def exits(results, when):
    """What the statistics files say of exits, all vCPUs together."""
    total = 0
    for vcpu, stats_file in results.files(when).items():
        values = stats_file.read()
        total += sum(values[name][0] for name in EXITS if vcpu >= 0 and name in values)
    return total


def _guest(results):
    before, after = exits(results, "before"), exits(results, "after")
    tap.check(after > before, f"the guest makes no exits: {before} before, {after} after")


def of_way(folder, way):
    """[(name, function that raises)] for one way of reading VMs."""
    results = Results(folder, way)
    return [(f"{way}: {name}", function) for name, function in (
        *((f"each statistic lies between two own reads, {title}",
           lambda s=suffix: _values(results, s)) for suffix, title in FORMATS.items()),
        ("kvm_vm_info says so", lambda: _source(results)),
        ("a VMM that keeps no statistics fds", lambda: _bare(results)),
        ("a killed VMM's VM is destroyed at once, and gone from the next scrape",
         lambda: _killed(results)),
        ("the guest runs", lambda: _guest(results)),
        ("the daemon ends cleanly", lambda: _stopped(results)),
    )]


def counts(folder, way):
    """How many statistics the kernel has for a VM and for a vCPU."""
    files = Results(folder, way).files("after")
    return len(files[-1].stats), len(files[0].stats)
