# SPDX-License-Identifier: Apache-2.0
"""`kvmstatctl csv` against a daemon whose VMs, clock and limits a test rules."""

import collections
import contextlib
import csv
import fcntl
import fnmatch
import json
import os
import signal
import struct
import subprocess
import termios
import threading
import urllib.parse

import ctl
import lab
import tap

t = tap.Tests()

TICK_NS = 100_000_000
OWN_STATS, VCPU_STATS = ("pages_4k", "remote_tlb_flush"), ("exits", "halt_wait_ns")


class Vm:
    def __init__(self, number, label, vcpus=(), own=True):
        self.number, self.label = number, label
        self.targets = ([None] if own else []) + list(vcpus)


class Recorder:
    """A daemon that has taken a tick of all VMs every 100 ms of its own time."""

    def __init__(self, *vms, ticks=10, says_recording=True):
        self.lock = threading.Lock()  # held by who changes anything
        self.vms, self.ticks, self.limit = list(vms), ticks, None
        self.wall_offset_ns = 1_763_680_000_123_456_789
        self.says_recording = says_recording
        self.asked = collections.Counter()

    def __call__(self, send, path):
        with self.lock:
            self._answer(send, urllib.parse.urlsplit(path))

    def _answer(self, send, url):
        if url.path == "/api/v1/vms":
            vms = [{"vm": vm.label, "source": "bpf", "interval_ms": 100} for vm in self.vms]
            self.asked["list"] += 1
            ctl.fixed(json.dumps({"vms": vms}))(send, url.path)
            return
        wanted = dict(urllib.parse.parse_qsl(url.query))
        vm = next((vm for vm in self.vms if vm.label == wanted["vm"]), None)
        if not vm:
            ctl.fixed('{"error":"vm: no VM of this name"}', "404 Not Found")(send, url.path)
            return
        lines = list(self._lines(vm, wanted))
        if self.limit is not None and len(lines) > self.limit:
            ctl.fixed(json.dumps({"error": f"more than {self.limit} values: a shorter time (last=)"}),
                      "400 Bad Request")(send, url.path)
            return
        headers = (f"X-Kvmstatd-Recording: vm={vm.number}; wall_offset_ns={self.wall_offset_ns}\r\n"
                   if self.says_recording else "")
        ctl.fixed("".join(["vm,time,vcpu,stat,value,rate\n", *lines]), headers=headers)(send, url.path)

    def _lines(self, vm, wanted):
        newest_ns = self.ticks * TICK_NS
        last_ns = int(wanted["last"].removesuffix("ms")) * 1_000_000
        globs = wanted.get("stat", "*").split(",")
        for vcpu in vm.targets:
            if wanted.get("vcpu") and wanted["vcpu"] != str(vcpu):
                continue
            for tick in range(max(1, -(-(newest_ns - last_ns) // TICK_NS)), self.ticks + 1):
                wall_ns = tick * TICK_NS + self.wall_offset_ns
                for stat in OWN_STATS if vcpu is None else VCPU_STATS:
                    if any(fnmatch.fnmatch(stat, glob) for glob in globs):
                        yield (f"{vm.label},{wall_ns // 10**9}.{wall_ns % 10**9:09},"
                               f"{'' if vcpu is None else vcpu},{stat},{tick},\n")


class Follower:
    """kvmstatctl csv, and what it has printed: {(VM's label, vCPU, statistic): [tick]}."""

    def __init__(self, recorder, server, *args):
        self.recorder = recorder
        self.process = lab.Process([lab.program("kvmstatctl"), "csv", "--address", server.address,
                                    "--interval", "10ms", *args])
        self.found = collections.defaultdict(list)

    def until(self, vm, tick, targets=None):
        """Reads on until all targets of a VM have this tick."""
        def there():
            return all(tick in self.found.get((vm.label, "" if vcpu is None else str(vcpu), stat), ())
                       for vcpu in (vm.targets if targets is None else targets)
                       for stat in (OWN_STATS if vcpu is None else VCPU_STATS))
        while not there():
            line = self.process.read_line()
            tap.check(line is not None, f"ended: {self.process.errors()}")
            if line.startswith("vm,"):
                continue
            [(label, _time, vcpu, stat, value, _rate)] = csv.reader([line])
            self.found[label, vcpu, stat].append(int(value))

    def rounds(self, n=3):
        """Waits until it has asked for all VMs so often."""
        asked = self.recorder.asked["list"]
        tap.wait_for(lambda: self.recorder.asked["list"] > asked + n, what="more rounds")

    def end(self):
        """The lines of standard error; what was printed meanwhile is in `found`."""
        self.process.kill(signal.SIGINT)
        while (line := self.process.read_line()) is not None:
            [(label, _time, vcpu, stat, value, _rate)] = csv.reader([line])
            self.found[label, vcpu, stat].append(int(value))
        tap.equal(self.process.wait(), 0, self.process.errors())
        return self.process.errors().splitlines()


@contextlib.contextmanager
def following(recorder, *args):
    with ctl.Server(recorder) as server:
        follower = Follower(recorder, server, *args)
        with follower.process:
            yield follower


@t.test("a catch-up that is too much for an answer comes in parts, all of it")
def _():
    big, small = Vm(1, "web1", vcpus=(0, 5, 17)), Vm(2, "web2", vcpus=(0,))
    recorder = Recorder(big, small, ticks=300)
    recorder.limit = 700  # a target has 600 lines
    with following(recorder, "--last", "1000s") as follower:
        follower.until(small, 300)
        follower.until(big, 300)
        with recorder.lock:
            recorder.ticks += 5
        follower.until(big, 305)
        follower.until(small, 305)
        tap.equal(follower.end(), [], "what was said")
    tap.equal(len(follower.found), 8 + 4, "targets and their statistics")
    for key, ticks in follower.found.items():
        tap.equal(ticks, list(range(1, 306)), f"{key}: every sample once, in order")


@t.test("samples that cannot be had even in parts are left out, which is said in a line")
def _():
    big, small = Vm(1, "web1", vcpus=(0, 1)), Vm(2, "web2", own=False, vcpus=(0,))
    recorder = Recorder(big, small, ticks=300)
    recorder.limit = 150
    with following(recorder, "--last", "28s") as follower:
        follower.until(big, 300)
        follower.until(small, 300)
        with recorder.lock:
            recorder.ticks += 5
        follower.until(big, 305)
        follower.until(small, 305)
        said = follower.end()
    tap.equal([line.split()[2] for line in said], ["web1:", "web2:"], said)
    tap.check(all("left out" in line for line in said), said)
    for key, ticks in follower.found.items():
        tap.check(ticks[0] > 200, f"{key}: from tick {ticks[0]} on")
        tap.equal(ticks, list(range(ticks[0], 306)), f"{key}: every sample once, in order")


@t.test("what is left out when there were samples before: after which one, is said")
def _():
    vm, other = Vm(1, "web1", vcpus=(0, 1)), Vm(2, "web2", own=False, vcpus=(0,))
    recorder = Recorder(vm, other, ticks=10)
    with following(recorder, "--last", "1000s") as follower:
        follower.until(vm, 10)
        follower.until(other, 10)
        with recorder.lock:
            recorder.ticks += 100  # as if it had been stalled
            recorder.limit = 30
        follower.until(vm, 110)
        with recorder.lock:
            recorder.limit = None
        follower.until(other, 110)
        said = follower.end()
    wall_ns = 10 * TICK_NS + recorder.wall_offset_ns
    tap.check(any(f"web1: samples after {wall_ns // 10**9}.{wall_ns % 10**9:09} until" in line
                  for line in said), said)
    ticks = follower.found["web1", "1", "exits"]
    tap.equal(ticks, [*range(1, 11), *range(ticks[10], 111)])


@t.test("what is only not asked for again is no loss, and not said to be one")
def _():
    vm = Vm(1, "web1", vcpus=(0, 1))
    recorder = Recorder(vm, ticks=10)
    with following(recorder, "--last", "1000s") as follower:
        follower.until(vm, 10)
        with recorder.lock:  # what is asked for again each time, two seconds, is too much as well
            recorder.limit = 30
        for tick in range(11, 50):
            with recorder.lock:
                recorder.ticks = tick
            follower.until(vm, tick)
        tap.equal(follower.end(), [], "what was said")
    for key, ticks in follower.found.items():
        tap.equal(ticks, list(range(1, 50)), key)


@t.test("a VM that gets another label goes on where it was, and a label that moves brings no mix-up")
def _():
    first, second = Vm(7, "web1", vcpus=(0,)), Vm(8, "web1@8", vcpus=(0,))
    recorder = Recorder(first)
    with following(recorder, "--last", "1000s") as follower:
        follower.until(first, 10)
        with recorder.lock:
            first.label, recorder.vms, recorder.ticks = "web1@7", [second, first], 20
        follower.until(first, 20)
        follower.until(second, 20)
        with recorder.lock:
            first.label, second.label, recorder.ticks = "gone", "web1", 25
            recorder.vms = [second]
        follower.until(second, 25)
        follower.rounds()
        tap.equal(follower.end(), [], "what was said")
    tap.equal(follower.found["web1@7", "0", "exits"], list(range(11, 21)), "the first, renamed")
    tap.equal(follower.found["web1@8", "0", "exits"], list(range(1, 21)), "the second")
    tap.equal(follower.found["web1", "0", "exits"], [*range(1, 11), *range(21, 26)],
              "the first, then the second")


@t.test("a wall clock that is set makes no sample come twice, nor left out")
def _():
    vm = Vm(3, "web1", vcpus=(0, 1))
    recorder = Recorder(vm)
    with following(recorder, "--last", "1000s") as follower:
        follower.until(vm, 10)
        for step_ns in (500_000_000, -700_000_000, 3_000_000, -3600 * 10**9, 7200 * 10**9):
            with recorder.lock:
                recorder.wall_offset_ns += step_ns
            follower.rounds()
            with recorder.lock:
                recorder.ticks += 3
            follower.until(vm, recorder.ticks)
        tap.equal(follower.end(), [], "what was said")
    for key, ticks in follower.found.items():
        tap.equal(ticks, list(range(1, 26)), key)


@t.test("a daemon that was started anew, or is of another version, is followed on")
def _():
    vm = Vm(3, "web1", vcpus=(0,))
    recorder = Recorder(vm, ticks=50)
    with following(recorder, "--last", "1000s") as follower:
        follower.until(vm, 50)
        for number, says in ((4, True), (4, False), (9, True)):
            with recorder.lock:
                follower.found.clear()
                vm.number, recorder.says_recording = number, says
                recorder.ticks = 20  # a host that was started anew, too
            follower.until(vm, 20)
            with recorder.lock:
                recorder.ticks = 23
            follower.until(vm, 23)
            tap.equal(follower.found["web1", "0", "exits"][-5:], [19, 20, 21, 22, 23])
        tap.equal(follower.end(), [], "what was said")


@t.test("it ends when it is told to, also while nobody takes what it prints")
def _():
    recorder = Recorder(Vm(1, "web1", vcpus=range(64)), ticks=100)
    r, w = os.pipe()
    with ctl.Server(recorder) as server, subprocess.Popen(
            [lab.program("kvmstatctl"), "csv", "--address", server.address, "--last", "1000s"],
            stdout=w, stderr=subprocess.PIPE) as process:
        os.close(w)

        def waits():
            held = struct.unpack("i", fcntl.ioctl(r, termios.FIONREAD, bytes(4)))[0]
            with open(f"/proc/{process.pid}/stat", encoding="ascii") as f:
                return held == full and f.read().rpartition(") ")[2][0] == "S"
        try:
            full = fcntl.fcntl(r, fcntl.F_GETPIPE_SZ)
            tap.wait_for(waits, what="a full pipe")
            process.terminate()
            tap.equal((process.wait(lab.TIMEOUT_S), process.stderr.read()), (0, b""))
        finally:
            process.kill()
            os.close(r)


@t.test("a header that no kvmstatd sends harms nobody")
def _():
    for said in ("", "vm", "vm=", "vm=x; wall_offset_ns=y", "vm=-1; wall_offset_ns=-9223372036854775808",
                 f"vm={10**30}; wall_offset_ns={10**30}", "vm=1; wall_offset_ns=" + "9" * 5000):
        def answer(send, path, said=said):
            body = (json.dumps(ctl.vm_list()) if path == "/api/v1/vms" else
                    "vm,time,vcpu,stat,value,rate\nweb1,1.000000000,0,exits,1,\n")
            ctl.fixed(body, headers=f"X-Kvmstatd-Recording: {said}\r\n")(send, path)
        with ctl.Server(answer) as server, lab.Process([
                lab.program("kvmstatctl"), "csv", "--address", server.address]) as process:
            process.read_line()
            tap.equal(process.read_line(), "web1,1.000000000,0,exits,1,", said)


t.main()
