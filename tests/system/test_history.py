# SPDX-License-Identifier: Apache-2.0
"""/api/v1/history of the built daemon against own reads of the same fds."""

import collections
import csv
import io
import os
import re
import socket
import threading
import time
from fractions import Fraction

import kvmfd
import lab
import tap
from exposed import first_sample, row
from recorded import columns, exact, history, only, setup, stats_files, wait_ticks

t = tap.Tests()


def as_list(value):
    return value if isinstance(value, list) else [value]


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
        # Each of some three million values, compressed: hundreds of times the work of a scrape.
        wait_ticks(daemon, vm, 0, 2500)

        def ask():
            # Nothing is made of the answers here, or this program itself would hold up its probes.
            while not enough.is_set():
                with socket.create_connection(("127.0.0.1", daemon.port)) as s:
                    s.sendall(f"GET /api/v1/history?vm={vm}&last=3s HTTP/1.0\r\n"
                              "Accept-Encoding: gzip\r\n\r\n".encode())
                    status = int(s.recv(12, socket.MSG_WAITALL)[9:])
                    while s.recv(1 << 20):
                        pass
                done.append(status)
                if status == 503:
                    time.sleep(0.1)
        askers = [threading.Thread(target=ask) for _ in range(24)]
        for asker in askers:
            asker.start()
        try:
            tap.wait_for(lambda: done, what="a first answer")
            began = len(done)
            for i in range(60):  # each is a connection of its own, by turns those of either thread
                tap.equal(daemon.get(("/-/healthy", "/metrics")[i % 2]).status, 200)
            meanwhile = done[began:]
            tap.wait_for(lambda: {200, 503} <= set(done), what="one that is made, one that is not")
        finally:
            enough.set()
            for asker in askers:
                asker.join()
        answers = collections.Counter(done)
        made = meanwhile.count(200)
        print(f"# {made} histories while 60 probes and scrapes were answered; {answers}")
        tap.check(made < 40, f"{made} histories while 60 others were answered")
        tap.equal(set(answers), {200, 503}, "some are made, others are told to come again")


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
        own, read = {n: f.read() for n, f in files.items()}, time.time()

        def later():
            got = columns(exact(history(daemon, vm)))
            return all(times and times[-1] > read for times, _, _ in got.values()) and got
        found = tap.wait_for(later, what="a later tick of each")
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
        since, found = tap.wait_for(lambda: (got := lately())[1].get((1, "exits"), ([],))[0] and got,
                                    what="ticks")
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
    with lab.DemoVms(vcpus=2, name=name) as demo, lab.Daemon(only(name, interval="1h")) as daemon:
        [(vm, _)] = demo.vms
        first_sample(daemon, vm)
        # The first tick is older than that, and no other comes.
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


t.main()
