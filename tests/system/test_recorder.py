# SPDX-License-Identifier: Apache-2.0
"""The recorder in the built daemon: its history against own reads of the same fds, and its dumps."""

import collections
import csv
import glob
import io
import json
import os
import re
import signal
import subprocess
import threading
import time
from fractions import Fraction

import ctl
import kvmfd
import lab
import tap
from exposed import first_sample, row, series

t = tap.Tests()


def setup():
    tap.require_kvm()
    tap.require_root()


def only(prefix, recorder="", interval="20ms"):
    """A configuration that reads the VMs whose names begin so, and none of others' on this host."""
    return f"""
sampling:
  interval: {interval}
  rules:
    - match: {{vm: "{prefix}*"}}
      enabled: true
    - match: {{vm: "*"}}
      enabled: false
recorder:
  directory: @DIR@/dumps
{recorder}"""


def history(daemon, vm, more="", **kwargs):
    answer = daemon.get(f"/api/v1/history?vm={vm}{more}", **kwargs)
    tap.equal(answer.status, 200, answer.text[:300])
    return answer


def columns(found):
    """{(vcpu, stat): ([time], [value or bucket list], [rate] or None)} of a VM in JSON; vcpu -1: its
    own."""
    out = {}
    for target in found["targets"]:
        vcpu = -1 if target["vcpu"] is None else target["vcpu"]
        for stat in target["stats"]:
            tap.equal(len(stat["values"]), len(target["times"]), stat["stat"])
            out[vcpu, stat["stat"]] = (target["times"], stat["values"], stat.get("rates"))
    return out


def wait_ticks(daemon, vm, vcpu, n):
    """The times of a vCPU's ticks, when there are at least n."""
    def times():
        found = columns(exact(history(daemon, vm, "&stat=exits"))).get((vcpu, "exits"), ([],))[0]
        return found if len(found) >= n else None
    return tap.wait_for(times, what=f"{n} ticks of vCPU {vcpu}")


def exact(answer):
    """JSON without a double in between."""
    return json.loads(answer.text if hasattr(answer, "text") else answer, parse_float=Fraction)


def as_list(value):
    return value if isinstance(value, list) else [value]


def stats_files(pid):
    return {n: kvmfd.StatsFile(pid, fd) for n, fd in kvmfd.stats_fds(pid).items()}


def dumps(daemon):
    return sorted(glob.glob(os.path.join(daemon.home, "dumps", "*")))


def wait_dumps(daemon, n):
    tap.wait_for(lambda: len(dumps(daemon)) >= n, what=f"{n} dumps")
    return dumps(daemon)


def read_dump(path, *args):
    done = ctl.run("dump", "--json", *args, path)
    tap.equal(done.returncode, 0, done.stderr)
    return {vm["vm"]: columns(vm) for vm in exact(done.stdout)}


def counted(daemon, result):
    return series(daemon)[f'kvmstatd_dumps_total{{result="{result}"}}']


@t.test("every value of every tick lies between own reads of the same fds")
def _():
    setup()
    name = f"rec{os.getpid()}a"
    with lab.DemoVms(vcpus=2, name=name, load="mix") as demo, lab.Daemon(only(name)) as daemon:
        [(vm, pid)] = demo.vms
        files = stats_files(pid)
        first_sample(daemon, vm)
        reads, end = [], time.monotonic() + 1.5
        while time.monotonic() < end:
            began = time.clock_gettime_ns(time.CLOCK_REALTIME)
            values = {n: f.read() for n, f in files.items()}
            reads.append((began, time.clock_gettime_ns(time.CLOCK_REALTIME), values))
            time.sleep(0.005)
        found = columns(exact(history(daemon, vm, "&last=10s")))
        kinds = {n: f.stats for n, f in files.items()}
        tap.equal({k for k in found}, {(n, s) for n in kinds for s in kinds[n]}, "what there is")
        compared = 0
        for (vcpu, stat), (times, values, _) in found.items():
            if kinds[vcpu][stat][0] not in ("cumulative", "log_hist"):
                continue
            for i in range(len(times) - 1):
                # The block was read after its time and before the next tick's.
                before = [r for r in reads if r[1] < times[i] * 10 ** 9]
                after = [r for r in reads if r[0] > times[i + 1] * 10 ** 9]
                if not before or not after:
                    continue
                for j, value in enumerate(as_list(values[i])):
                    tap.between(before[-1][2][vcpu][stat][j], value, after[0][2][vcpu][stat][j],
                                f"{stat}[{j}] of {vcpu} at {times[i]}")
                    compared += 1
        tap.check(compared > 1000, f"only {compared} values compared")
        exits = found[0, "exits"]
        tap.check(exits[1][-1] > exits[1][0], "the guest did nothing")
        for i in range(1, len(exits[0])):
            rate = (exits[1][i] - exits[1][i - 1]) / (exits[0][i] - exits[0][i - 1])
            tap.check(abs(exits[2][i] - rate) <= Fraction(1, 1000), f"rate {exits[2][i]}, not {rate}")


@t.test("histories that take long hold up no scrape and no probe, and only so many wait")
def _():
    setup()
    name = f"rec{os.getpid()}n"
    done, enough = [], threading.Event()
    with lab.DemoVms(vcpus=8, name=name) as demo, lab.Daemon(only(name, interval="1ms")) as daemon:
        vm = demo.vms[0][0]
        first_sample(daemon, vm)
        # Each of some 100,000 values, compressed: a hundred times the work of a scrape.
        tap.wait_for(lambda: history(daemon, vm, "&stat=exits&vcpu=0").text.count(",") > 2 * 800,
                     what="a past")

        def ask():
            while not enough.is_set():
                done.append(daemon.get(f"/api/v1/history?vm={vm}", timeout_s=lab.TIMEOUT_S,
                                       headers={"Accept-Encoding": "gzip"}).status)
                if done[-1] == 503:
                    time.sleep(0.1)
        askers = [threading.Thread(target=ask) for _ in range(8)]
        for asker in askers:
            asker.start()
        try:
            tap.wait_for(lambda: done, what="a first answer")
            began = len(done)
            for i in range(60):  # each is a connection of its own, by turns those of either thread
                tap.equal(daemon.get(("/-/healthy", "/metrics")[i % 2]).status, 200)
            meanwhile = done[began:]
        finally:
            enough.set()
            for asker in askers:
                asker.join()
        answers = collections.Counter(done)
        made = meanwhile.count(200)
        print(f"# {made} histories while 60 probes and scrapes were answered; {answers}")
        tap.check(made < 40, f"{made} histories while 60 others were answered")
        tap.check(set(answers) == {200, 503}, f"some are made, others are told to come again: {answers}")


@t.test("when the guest has stopped, history says exactly what the fds say, in JSON and CSV")
def _():
    setup()
    name = f"rec{os.getpid()}b"
    with lab.DemoVms(vcpus=2, name=name, load="mix", args=("--rounds", "50")) as demo, \
            lab.Daemon(only(name)) as daemon:
        [(vm, pid)] = demo.vms
        files = stats_files(pid)
        first_sample(daemon, vm)
        time.sleep(0.5)
        own = {n: f.read() for n, f in files.items()}
        time.sleep(0.2)
        found = columns(exact(history(daemon, vm)))
        again = {n: f.read() for n, f in files.items()}
        same = 0
        for (vcpu, stat), (_, values, _) in found.items():
            if own[vcpu][stat] == again[vcpu][stat]:
                tap.equal(tuple(as_list(values[-1])), own[vcpu][stat], f"{stat} of {vcpu}")
                same += 1
        tap.check(same > 100, f"only {same} statistics stood still")

        lines = list(csv.DictReader(io.StringIO(history(daemon, vm, "&format=csv").text)))
        by_key = {}
        for line in lines:
            tap.equal(line["vm"], vm)
            key = int(line["vcpu"] or -1), line["stat"]
            by_key.setdefault(key, []).append((Fraction(line["time"]),
                                               [int(v) for v in line["value"].split()]))
        tap.equal(set(by_key), set(found), "what CSV has")
        for key, (times, values, _) in found.items():
            shared = dict(by_key[key])
            for when, value in list(zip(times, values))[5:]:
                tap.equal(shared[when], as_list(value), f"{key} at {when}")


@t.test("stat, vcpu and last choose; what is wrong is said as JSON")
def _():
    setup()
    name = f"rec{os.getpid()}c"
    with lab.DemoVms(vcpus=2, name=name, load="mix") as demo, lab.Daemon(only(name)) as daemon:
        [(vm, _)] = demo.vms
        first_sample(daemon, vm)
        wait_ticks(daemon, vm, 1, 40)

        def lately():
            # Not before that much ago when it was asked; later ones may have come meanwhile.
            return time.time() - 0.3, columns(exact(history(
                daemon, vm, "&stat=exits,halt_*_ns&vcpu=1&last=300ms")))
        since, found = tap.wait_for(lambda: (got := lately())[1] and got, what="ticks")
        tap.equal({v for v, _ in found}, {1})
        tap.check((1, "exits") in found and (1, "halt_wait_ns") in found, str(list(found)))
        tap.check((1, "io_exits") not in found, "not asked for")
        times, _, rates = found[1, "exits"]
        tap.check(rates[0] is not None, "the first one has a tick before it, too")
        tap.check(float(times[0]) > since - 0.005, "older than asked for")
        packed = history(daemon, vm, headers={"Accept-Encoding": "gzip"})
        tap.check(len(packed.raw) < len(packed.body) and exact(packed)["vm"] == vm, "gzip")
        for query, status in (("", 400), ("?vm=", 400), ("?vm=no%22such", 404),
                              (f"?vm={vm}&stat=nosuch", 404), (f"?vm={vm}&vcpu=x", 400),
                              (f"?vm={vm}&vcpu=99", 404), (f"?vm={vm}&stat=exits&vcpu=99", 404),
                              (f"?vm={vm}&vcpu=-1", 400), (f"?vm={vm}&last=5", 400),
                              (f"?vm={vm}&last=-5s", 400), (f"?vm={vm}&format=xml", 400)):
            answer = daemon.get("/api/v1/history" + query)
            tap.equal(answer.status, status, query)
            tap.check(answer.json()["error"], query)


@t.test("a header says which VM it is, whatever its label, and how its times are the monotonic clock's")
def _():
    setup()
    name = f"rec{os.getpid()}h"

    def said(daemon, label):
        answer = history(daemon, label, "&stat=exits&last=1s")
        number, offset = re.fullmatch(r"vm=([1-9]\d*); wall_offset_ns=(\d+)",
                                      answer.headers["X-Kvmstatd-Recording"]).groups()
        return int(number), [int(when * 10**9) - int(offset)
                             for target in exact(answer)["targets"] for when in target["times"]]
    with lab.DemoVms(name=name) as demo, lab.Daemon(only(name)) as daemon:
        [(vm, pid)] = demo.vms
        first_sample(daemon, vm)
        before = time.monotonic_ns()
        number, _ = tap.wait_for(lambda: (got := said(daemon, vm))[1] and got[1][-1] > before and got,
                                 what="a tick since")
        _, times = said(daemon, vm)
        tap.between(before, times[-1], time.monotonic_ns(), "when the newest was taken")
        with lab.DemoVms(name=name) as other:
            [(_, other_pid)] = other.vms
            first_sample(daemon, f"{vm}@{other_pid}")
            tap.equal(said(daemon, f"{vm}@{pid}")[0], number, "its number, under another label")
            tap.check(said(daemon, f"{vm}@{other_pid}")[0] != number, "another VM's number")


@t.test("what the VM has and was not recorded yet is an empty list, what it has not is an error")
def _():
    setup()
    name = f"early{os.getpid()}"
    with lab.DemoVms(vcpus=2, name=name) as demo, lab.Daemon(only(name)) as daemon:
        [(vm, _)] = demo.vms
        first_sample(daemon, vm)
        # No tick is as young as that.
        for more in ("", "&stat=exits", "&stat=halt_*,nosuch", "&vcpu=1", "&stat=exits&vcpu=1"):
            answer = history(daemon, vm, more + "&last=1ns")
            tap.check(not any(target["times"] for target in answer.json()["targets"]), answer.text)
            lines = history(daemon, vm, more + "&last=1ns&format=csv").text.splitlines()
            tap.equal(len(lines), 1, "the head alone")
        for more, words in (("&stat=nosuch", "statistic"), ("&stat=nosuch&vcpu=1", "statistic"),
                            ("&vcpu=9", "vCPU"), ("&stat=exits&vcpu=9", "vCPU"),
                            # The VM's own, which no vCPU has.
                            ("&stat=remote_tlb_flush&vcpu=1", "the vCPU has no such statistic")):
            answer = daemon.get(f"/api/v1/history?vm={vm}{more}&last=1ns")
            tap.equal(answer.status, 404, more)
            tap.check(words in answer.json()["error"], answer.text)


@t.test("vCPUs that come and go: what was before is still there")
def _():
    setup()
    with kvmfd.TinyVmm("vm a", "stats a", "vcpu a 0", "stats a/0") as vmm:
        vm = f"pid-{vmm.pid}"
        config = only(vm) + "discovery: {rescan: 200ms, sources: [statsfd]}\n"
        with lab.Daemon(config) as daemon:
            first_sample(daemon, vm)
            before = wait_ticks(daemon, vm, 0, 10)
            vmm.tell("vcpu a 1")
            vmm.tell("stats a/1")
            meanwhile = wait_ticks(daemon, vm, 1, 10)
            vmm.tell("close a/1:stats")
            tap.wait_for(lambda: row(daemon, vmm.pid)["vcpus_read"] == 1, what="vCPU 1 to go")
            wait_ticks(daemon, vm, 0, len(wait_ticks(daemon, vm, 0, 1)) + 10)
            found = columns(exact(history(daemon, vm)))
            first, second = found[0, "exits"][0], found[1, "exits"][0]
            tap.check(first[0] < second[0] < second[-1] < first[-1], "vCPU 1 was there meanwhile")
            tap.equal(first[:len(before)], before, "what was before vCPU 1 came")
            tap.equal(second[:len(meanwhile)], meanwhile, "what was while it was there")


@t.test("a VMM killed by SIGKILL: its last second is in the dump")
def _():
    setup()
    name = f"rec{os.getpid()}d"
    with lab.DemoVms(vms=2, vcpus=2, name=name, load="mix") as demo, \
            lab.Daemon(only(name)) as daemon:
        (vm, pid), (other, _) = demo.vms
        first_sample(daemon, vm)
        first_sample(daemon, other)
        files = stats_files(pid)
        time.sleep(1)
        own = {n: f.read() for n, f in files.items()}
        own_time = time.time()
        time.sleep(1)
        os.kill(pid, signal.SIGKILL)
        [path] = wait_dumps(daemon, 1)
        last = {n: f.read() for n, f in files.items()}  # as they were when it died
        for f in files.values():
            f.close()
        found = read_dump(path)
        tap.equal(set(found), {vm}, "VMs in the dump")
        times, values, _ = found[vm][0, "exits"]
        tap.between(own[0]["exits"][0], values[-1], last[0]["exits"][0], "exits at the end")
        tap.check(values[-1] > own[0]["exits"][0], "the last second is not there")
        tap.check(float(times[-1]) > own_time and float(times[0]) < own_time, "its times")
        tap.check(len([x for x in times if x > own_time]) > 20, f"{len(times)} ticks")
        tap.equal({v for v, _ in found[vm]}, {-1, 0, 1}, "targets")

        summary = ctl.run("dump", path)
        tap.equal(summary.returncode, 0, summary.stderr)
        for word in (vm, f"pid {pid}", "killed by signal 9", "ticks in"):
            tap.check(word in summary.stdout, f"{word}: {summary.stdout}")
        some = read_dump(path, "--stat", "exits", "--vcpu", "1", "--last", "500ms")
        tap.equal(set(some[vm]), {(1, "exits")})
        tap.between(5, len(some[vm][1, "exits"][0]), 30, "ticks in 500 ms of 20 ms")
        tap.check(f"VM {vm}: its VMM was killed by signal 9" in daemon.errors(), daemon.errors())
        tap.equal(os.stat(path).st_mode & 0o777, 0o640)
        tap.equal(counted(daemon, "written"), 1)
        history(daemon, other)


@t.test("a VM that has all of the recorder's memory is dumped all the same, as far back as it may")
def _():
    setup()
    name = f"rec{os.getpid()}k"
    config = only(name, "  memory: 1MiB\n", interval="1ms")
    with lab.DemoVms(vcpus=8, name=name, load="mix") as demo, lab.Daemon(config) as daemon:
        [(vm, pid)] = demo.vms
        first_sample(daemon, vm)
        tap.wait_for(lambda: series(daemon)["kvmstatd_recorder_memory_bytes"] > 900 << 10,
                     what="the memory to fill")
        os.kill(pid, signal.SIGKILL)
        [path] = wait_dumps(daemon, 1)
        # What others have not written over yet is there, too.
        tap.check(os.path.getsize(path) > 400 << 10, f"{os.path.getsize(path)} bytes")
        times, _, _ = read_dump(path, "--stat", "exits", "--vcpu", "7")[vm][7, "exits"]
        tap.check(len(times) > 100, f"{len(times)} ticks")
        tap.equal((counted(daemon, "written"), counted(daemon, "skipped")), (1, 0))


@t.test("a VMM that exits by itself, also when asked by SIGTERM, leaves no dump")
def _():
    setup()
    name = f"rec{os.getpid()}e"
    with lab.Daemon(only(name)) as daemon:
        demo = lab.DemoVms(name=name)
        with demo:
            first_sample(daemon, name)
            tap.equal(demo.stop(signal.SIGTERM), 0, "it handles SIGTERM")
        tap.wait_for(lambda: f'vm="{name}"' not in daemon.metrics(), what="its end")
        # The next one is killed: when its dump is there, the first VM would have had one too.
        with lab.DemoVms(name=name + "-2") as second:
            first_sample(daemon, name + "-2")
            second.kill(signal.SIGKILL)
            second.wait()
            [path] = wait_dumps(daemon, 1)
        tap.check("-killed-" + name + "-2" in path, path)
        tap.equal(set(read_dump(path)), {name + "-2"})


@t.test("QEMU that ends on SIGTERM leaves no dump, one that is killed does")
def _():
    setup()
    name = f"rec{os.getpid()}q"
    with lab.Daemon(only(name)) as daemon, lab.Qemu(name=name + "-a") as clean, \
            lab.Qemu(name=name + "-b") as killed:
        first_sample(daemon, name + "-a")
        first_sample(daemon, name + "-b")
        time.sleep(0.2)
        clean.stop(signal.SIGTERM)
        tap.wait_for(lambda: f'vm="{name}-a"' not in daemon.metrics(), what="its end")
        killed.kill(signal.SIGKILL)
        killed.wait()
        [path] = wait_dumps(daemon, 1)
        tap.check(f"-killed-{name}-b" in path, path)


@t.test("killed by a signal it does not handle, reaped late or at once")
def _():
    setup()
    with kvmfd.TinyVmm("vm a", "stats a", "vcpu a 0", "stats a/0") as late, \
            kvmfd.TinyVmm("vm a", "stats a", "vcpu a 0", "stats a/0") as at_once:
        names = {late.pid: f"pid-{late.pid}", at_once.pid: f"pid-{at_once.pid}"}
        both = only(names[late.pid]).replace("  rules:\n", f"""  rules:
    - match: {{vm: "{names[at_once.pid]}"}}
      enabled: true
""")
        with lab.Daemon(both) as daemon:
            for name in names.values():
                first_sample(daemon, name)
                wait_ticks(daemon, name, 0, 3)  # of less there is nothing to be dumped
            late.kill(signal.SIGQUIT)  # a zombie until the end of the test
            wait_dumps(daemon, 1)
            at_once.kill(signal.SIGABRT)
            at_once.wait()
            paths = wait_dumps(daemon, 2)
            found = [ctl.run("dump", path).stdout for path in paths]
            tap.check(names[late.pid] in found[0] and "killed by signal 3" in found[0], found[0])
            tap.check(names[at_once.pid] in found[1] and "killed by signal 6" in found[1], found[1])


@t.test("a VMM whose fds are gone before it has ended is one that lives, and its kill is seen")
def _():
    setup()
    with kvmfd.TinyVmm("vm a", "stats a", "vcpu a 0", "stats a/0") as vmm, \
            kvmfd.TinyVmm("vm a", "stats a", "vcpu a 0", "stats a/0") as other:
        vm = f"pid-{vmm.pid}"
        config = only(vm).replace("  rules:\n", f"""  rules:
    - match: {{vm: "pid-{other.pid}"}}
      enabled: true
""") + "discovery: {rescan: 200ms, sources: [statsfd]}\n"
        with lab.Daemon(config) as daemon:
            first_sample(daemon, vm)
            first_sample(daemon, f"pid-{other.pid}")
            # As of a VMM that is ending: of a process without its first thread /proc shows no fds.
            vmm.tell("leave")
            tap.wait_for(lambda: not os.listdir(f"/proc/{vmm.pid}/fd"), what="its thread's end")
            other.tell("close a/0:stats")  # no event tells of it: all are looked at
            tap.wait_for(lambda: row(daemon, other.pid)["vcpus_read"] == 0, what="the next look")
            tap.equal(row(daemon, vmm.pid)["vcpus_read"], 1, "as before")
            wait_ticks(daemon, vm, 0, len(wait_ticks(daemon, vm, 0, 1)) + 3)
            os.kill(vmm.pid, signal.SIGKILL)
            [path] = wait_dumps(daemon, 1)
            tap.check(f"-killed-{vm}" in path, path)
            tap.wait_for(lambda: f'vm="{vm}"' not in daemon.metrics(), what="its end")


@t.test("SIGUSR1: all VMs, as their history has them")
def _():
    setup()
    name = f"rec{os.getpid()}f"
    with lab.DemoVms(vms=3, vcpus=2, name=name, load="mix") as demo, \
            lab.Daemon(only(name)) as daemon:
        for vm, _ in demo.vms:
            first_sample(daemon, vm)
        time.sleep(0.5)
        daemon.kill(signal.SIGUSR1)
        [path] = wait_dumps(daemon, 1)
        found = read_dump(path)
        tap.equal(set(found), {vm for vm, _ in demo.vms})
        for vm, _ in demo.vms:
            live = columns(exact(history(daemon, vm)))
            tap.equal(set(live), set(found[vm]), "series")
            for key, (times, values, rates) in found[vm].items():
                n = len(values)
                tap.check(n > 5, f"{n} ticks of {vm}")
                tap.equal(values[-5:], live[key][1][:n][-5:], f"{key} of {vm}")
                tap.check(abs(times[-1] - live[key][0][n - 1]) < Fraction(1, 100), "times")
                if rates:
                    tap.equal(rates[-1], live[key][2][n - 1], "rates")


@t.test("files are bounded in number: the oldest go")
def _():
    setup()
    name = f"rec{os.getpid()}g"
    with lab.DemoVms(name=name) as demo, lab.Daemon(only(name)) as daemon:
        first_sample(daemon, demo.vms[0][0])
        seen = []
        for i in range(34):
            daemon.kill(signal.SIGUSR1)
            tap.wait_for(lambda i=i: counted(daemon, "written") == i + 1, what=f"dump {i + 1}")
            seen.append(dumps(daemon)[-1])
        tap.equal(dumps(daemon), seen[2:], "files")


def fails(daemon, vm, said):
    """A dump that cannot be written costs one line and nothing else."""
    ticks = series(daemon)["kvmstatd_ticks_total"]
    daemon.kill(signal.SIGUSR1)
    tap.wait_for(lambda: counted(daemon, "failed") >= 1, what="the failure")
    daemon.kill(signal.SIGUSR1)
    tap.wait_for(lambda: counted(daemon, "failed") >= 2, what="the second failure")
    lines = [line for line in daemon.errors().splitlines() if "no dump of it" in line]
    tap.equal(len(lines), 1, "\n".join(lines))
    tap.check(said in lines[0] and " warn " in lines[0], lines[0])
    tap.equal(counted(daemon, "written"), 0)
    tap.wait_for(lambda: series(daemon)["kvmstatd_ticks_total"] > ticks + 5, what="ticks")
    tap.check(len(columns(exact(history(daemon, vm)))) > 50, "history")


@t.test("a directory that is missing, a disk that is full or read-only: a log line, nothing else")
def _():
    setup()
    tap.require_tool("mount")
    name = f"rec{os.getpid()}h"
    with lab.DemoVms(vcpus=4, name=name, load="mix") as demo:
        vm = demo.vms[0][0]
        missing = only(name).replace("@DIR@/dumps", "@DIR@/not/there")
        with lab.Daemon(missing) as daemon:
            first_sample(daemon, vm)
            fails(daemon, vm, "No such file or directory")
        for options, said in (("size=4k", "No space left"), ("ro", "Read-only file system")):
            with lab.Daemon(only(name)) as daemon:
                folder = os.path.join(daemon.home, "dumps")
                os.mkdir(folder)
                subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], check=True)
                try:
                    first_sample(daemon, vm)
                    time.sleep(0.5)
                    fails(daemon, vm, said)
                    tap.equal(os.listdir(folder), [], "left behind")
                finally:
                    subprocess.run(["umount", folder], check=True)
                daemon.kill(signal.SIGUSR1)  # now there is room
                wait_dumps(daemon, 1)


@t.test("a directory that will not do is said at the start and at a reload, where dumps are wanted")
def _():
    setup()
    name = f"rec{os.getpid()}d"
    said = "no dump can be written to"
    missing = only(name).replace("@DIR@/dumps", "@DIR@/not/there")
    with lab.Daemon(missing) as daemon:
        tap.wait_for(lambda: daemon.errors().count(said) == 1, what="the log line")
        tap.check(any(said in line and " warn " in line and "No such file" in line
                      for line in daemon.errors().splitlines()), daemon.errors())
        daemon.reload(only(name).replace("@DIR@/dumps", "/dev/null"))
        tap.wait_for(lambda: daemon.errors().count(said) == 2, what="the other reason")
        tap.check("/dev/null (recorder.directory): Not a directory" in daemon.errors(), daemon.errors())
        for fine in (only(name), only(name).replace("/dumps", "/others/"), missing + "  dump_on: []\n", missing + "  memory: 0\n"):
            before = daemon.errors().count("configuration reloaded")
            daemon.reload(fine)
            tap.wait_for(lambda: daemon.errors().count("configuration reloaded") > before, what="reload")
        daemon.stop()
        tap.equal(daemon.errors().count(said), 2, daemon.errors())


@t.test("reload: off, on again, and what is dumped")
def _():
    setup()
    name = f"rec{os.getpid()}i"
    with lab.DemoVms(vms=2, name=name) as demo, lab.Daemon(only(name)) as daemon:
        (vm, _), (other, other_pid) = demo.vms
        first_sample(daemon, vm)
        time.sleep(0.3)
        tap.check(history(daemon, vm).json()["targets"], "something is recorded")
        daemon.reload(only(name, "  memory: 0\n"))
        tap.wait_for(lambda: daemon.get(f"/api/v1/history?vm={vm}").status == 404, what="its end")
        tap.wait_for(lambda: "kvmstatd_recorder_memory_bytes" not in daemon.metrics(),
                     what="the end of its memory")
        began = time.time()
        daemon.reload(only(name, "  memory: 1MiB\n  dump_on: [signal]\n"))
        tap.wait_for(lambda: daemon.get(f"/api/v1/history?vm={vm}").status == 200, what="the new one")
        tap.wait_for(lambda: history(daemon, vm).json()["targets"], what="something recorded")
        times, _, _ = columns(exact(history(daemon, vm)))[-1, "remote_tlb_flush"]
        tap.check(float(times[0]) > began, "older than the new memory")
        os.kill(other_pid, signal.SIGKILL)
        # Discovery can know of it before the sampler does, whose recording it is.
        tap.wait_for(lambda: f'vm="{other}"' not in daemon.metrics(), what="its end")
        daemon.kill(signal.SIGUSR1)
        [path] = wait_dumps(daemon, 1)
        tap.check("-signal" in path, path)
        tap.equal(set(read_dump(path)), {vm})
        daemon.reload(only(name, "  memory: 1MiB\n  dump_on: []\n"))
        tap.wait_for(lambda: daemon.errors().count("configuration reloaded") == 3, what="the reload")
        daemon.kill(signal.SIGUSR1)
        tap.wait_for(lambda: "nothing is dumped" in daemon.errors(), what="the log line")
        tap.equal(len(dumps(daemon)), 1)


@t.test("kvmstatctl dump refuses what is no dump, and reads what there is of a short one")
def _():
    setup()
    name = f"rec{os.getpid()}j"
    with lab.DemoVms(vms=2, name=name) as demo, lab.Daemon(only(name)) as daemon:
        for vm, _ in demo.vms:
            first_sample(daemon, vm)
        time.sleep(0.3)
        daemon.kill(signal.SIGUSR1)
        [path] = wait_dumps(daemon, 1)
        with open(path, "rb") as f:
            whole = f.read()
        broken = os.path.join(daemon.home, "broken")

        def tried(content):
            with open(broken, "wb") as f:
                f.write(content)
            return ctl.run("dump", broken)
        for content in (b"", b"no dump", os.urandom(5000)):
            done = tried(content)
            tap.equal((done.returncode, done.stdout), (1, ""))
            tap.check("is no dump of kvmstatd" in done.stderr, done.stderr)
        for _ in range(50):
            # A bit anywhere but in the padding between sections, which nothing depends on.
            at = t.random.randrange(len(whole))
            if whole[at] == 0:
                continue
            damaged = bytearray(whole)
            damaged[at] ^= 1 << t.random.randrange(8)
            done = tried(bytes(damaged))
            tap.equal(done.returncode, 1, f"byte {at}: {done.stdout} {done.stderr}")
        done = tried(whole[:len(whole) - 40])
        tap.equal(done.returncode, 1)
        tap.check("cut short" in done.stderr and "1 VM" in done.stdout or "2 VMs" in done.stdout,
                  done.stderr + done.stdout)
        tap.equal(ctl.run("dump").returncode, 2)
        tap.equal(ctl.run("dump", "--vcpu", "x", path).returncode, 2)
        tap.equal(ctl.run("nosuch").returncode, 2)
        tap.equal(ctl.run("dump", "--vm", "nosuch", path).returncode, 1)
        tap.equal(ctl.run("--help").returncode, 0)


t.main()
