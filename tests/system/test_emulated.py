#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The lab (tests/lab): its judgement, and that the README says what it proved. The machines themselves
take minutes: tests/lab/run."""

import json
import lzma
import os
import re
import shutil
import subprocess
import sys
import tempfile

import lab
import stats_file
import tap

sys.path.insert(0, os.path.join(lab.SOURCE, "tests/lab"))
import checks  # pylint: disable=wrong-import-position
import initramfs  # pylint: disable=wrong-import-position
import machines  # pylint: disable=wrong-import-position
import report  # pylint: disable=wrong-import-position

FIXTURES = os.path.join(lab.SOURCE, "tests/fixtures")
WAYS = ("statsfd", "handoff", "bpf")
t = tap.Tests()


class Brought:
    """What a machine would have brought home whose daemon does everything right."""

    def __init__(self, folder, way, recording):
        self.folder, self.way = folder, way
        os.makedirs(os.path.join(folder, way))
        self.put("../uevents", "create 20 1\ncreate 21 2\ndestroy 21 1\n")
        files = stats_file.read_recording(os.path.join(FIXTURES, recording))
        self.put_files("before", files, "100.000000001\n100.000000002\n")
        for file in files[1:]:
            for stat in file.stats:
                if stat.name.decode() in checks.EXITS:
                    stat.values[0] += 1
        self.put_files("after", files, "103.000000001\n103.000000002\n")
        self.put("kept.pid", "20\n")
        self.put("killed.pid", "21\n")
        self.put("destroyed", "21\n")
        self.put("status", "0\n")
        bare = {"vm": "bare", "reason": "no_stats_fd" if way == "statsfd" else None}
        self.put("alive.vms", json.dumps({"vms": [bare]}))
        for suffix in checks.FORMATS:
            self.put(f"alive.{suffix}", self.exposition("kept", "killed", *self.read_bare()))
            self.put(f"killed.{suffix}", self.exposition("kept", *self.read_bare()))

    def read_bare(self):
        return () if self.way == "statsfd" else ("bare",)

    def path(self, name):
        return os.path.join(self.folder, self.way, name)

    def put(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as f:
            f.write(text)

    def edit(self, name, old, new):
        with open(self.path(name), encoding="utf-8") as f:
            text = f.read()
        tap.check(old in text, f"{old!r} is not in {name}")
        self.put(name, text.replace(old, new))

    def put_files(self, when, files, times):
        os.mkdir(self.path(when))
        self.put(f"{when}/time", times)
        for i, file in enumerate(files):
            with open(self.path(f"{when}/" + ("vm" if i == 0 else f"vcpu-{i - 1}")), "wb") as f:
                f.write(file.encode("little"))

    def exposition(self, *vms):
        results = checks.Results(self.folder, self.way)
        lines = []
        for vm in vms:
            pid = {"kept": 20, "killed": 21, "bare": 22}[vm]
            lines.append(f'kvm_vm_info{{vm="{vm}",pid="{pid}",source="{self.way}"}} 1')
            lines.append(f'kvm_vm_last_sample_timestamp_seconds{{vm="{vm}"}} 101.5')
            for series, (value, _) in results.values("before", vm).items():
                lines.append(f"{series} {exact(value)}")
        return "\n".join(lines) + "\n"

    def failures(self):
        failed = []
        for name, function in checks.of_way(self.folder, self.way):
            try:
                function()
            except AssertionError:
                failed.append(name.partition(": ")[2])
        return failed


def exact(value):
    """A decimal with nine digits behind the point, from a fraction that has no more."""
    whole, rest = divmod(value * 10 ** 9, 10 ** 9)
    return f"{whole}.{int(rest):09d}"


def brought(way="statsfd", kernel=None):
    kernel = kernel or t.random.choice(machines.KERNELS).name
    folder = tempfile.TemporaryDirectory(prefix="kvmstatd-test-")
    result = Brought(folder.name, way, f"{kernel}.kvmstats")
    result.kernel = kernel
    result.temporary = folder  # as long as the result
    return result


@t.test("what is right passes, for each kernel and way")
def _():
    for kernel in machines.KERNELS:
        for way in WAYS:
            tap.equal(brought(way, kernel.name).failures(), [], f"{kernel.name}, {way}")


VALUES = "each statistic lies between two own reads, text 0.0.4"
KILLED = "a killed VMM's VM is destroyed at once, and gone from the next scrape"


def a_counter(b):
    """The line of one of the VM's counters."""
    with open(b.path("alive.prometheus"), encoding="utf-8") as f:
        return t.random.choice([line for line in f if re.match('kvm_.*_total{vm="kept"', line)])


def remove(b, name):
    os.unlink(b.path(name))


DAMAGES = (
    ("a value too high", "statsfd", [VALUES], lambda b: b.edit(
        "alive.prometheus", line := a_counter(b), f"{line.split()[0]} 1{line.split()[1]}\n")),
    ("a value that is missing", "statsfd", [VALUES],
     lambda b: b.edit("alive.prometheus", a_counter(b), "")),
    ("a value that is invented", "statsfd", [VALUES], lambda b: b.edit(
        "alive.prometheus", line := a_counter(b), line + 'kvm_vcpu_x_total{vm="kept",vcpu="0"} 1\n')),
    ("values from before the first own read", "statsfd", [VALUES],
     lambda b: b.edit("alive.prometheus", '{vm="kept"} 101.5', '{vm="kept"} 99.5')),
    ("read in another way than the one allowed", "handoff", ["kvm_vm_info says so"],
     lambda b: b.edit("alive.prometheus", 'source="handoff"', 'source="bpf"')),
    ("a VM that is read in part", "bpf", ["a VMM that keeps no statistics fds"], lambda b: b.edit(
        "alive.prometheus", a_counter(b).split()[0].replace("kept", "bare"), 'x{vm="other"}')),
    ("a VM that is not known", "statsfd", ["a VMM that keeps no statistics fds"],
     lambda b: b.edit("alive.vms", "bare", "other")),
    ("no destroy event", "statsfd", [KILLED], lambda b: b.edit("../uevents", "destroy 21", "destroy 2")),
    ("a VM held until the daemon ended", "statsfd", [KILLED], lambda b: remove(b, "destroyed")),
    ("a VM shown after its end", "bpf", [KILLED], lambda b: b.put(
        "killed.openmetrics", b.exposition("kept", "killed", "bare"))),
    ("its neighbour gone as well", "bpf", [KILLED], lambda b: b.put(
        "killed.openmetrics", b.exposition("bare"))),
    ("a daemon that crashed", "statsfd", ["the daemon ends cleanly"],
     lambda b: b.edit("status", "0", "139")),
    ("a guest that stands still", "statsfd", ["the guest runs"], lambda b: (
        shutil.rmtree(b.path("after")), shutil.copytree(b.path("before"), b.path("after")))),
)


@t.test("each thing that can be wrong fails, and nothing else with it")
def _():
    for what, way, expected, damage in DAMAGES:
        b = brought(way)
        damage(b)
        tap.equal(b.failures(), expected, f"{what}, {b.kernel}")


@t.test("modules are loaded after those they depend on, and none twice")
def _():
    with tempfile.TemporaryDirectory() as tree:
        folder = os.path.join(tree, "usr/lib/modules/6.0/kernel")
        os.makedirs(folder)
        for name, depends in (("kvm_amd", b"kvm,ccp"), ("kvm", b"irqbypass"), ("ccp", b""),
                              ("irqbypass", b""), ("other", b"")):
            content = b"ELF\0depends=" + depends + b"\0name=" + name.encode() + b"\0"
            with open(os.path.join(folder, name.replace("_", "-") + ".ko.xz"), "wb") as f:
                f.write(lzma.compress(content))
        order = [os.path.basename(p) for p in initramfs.module_files(tree, ("kvm_amd", "built-in"))]
        tap.equal(order, ["irqbypass.ko.xz", "kvm.ko.xz", "ccp.ko.xz", "kvm-amd.ko.xz"])


@t.test("the README's table is that of the committed results")
def _():
    tap.equal(report.written_table(), report.table(report.load()), "table")


@t.test("the committed results prove every way on every kernel of the lab")
def _():
    results = report.load()
    tap.equal(report.missing(results), [], "kernels that are not proved")
    for result in results:
        tap.equal(result["sources"], list(WAYS), f"ways on {result['kernel']}")


@t.test("every architecture's packages are among those that install-deps knows")
def _():
    known = subprocess.run([os.path.join(lab.SOURCE, "packaging/install-deps"), "--lab", "--print"],
                           stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    for architecture in machines.ARCHITECTURES.values():
        tap.equal(set(architecture.packages) - set(known), set(), architecture.name)


t.main()
