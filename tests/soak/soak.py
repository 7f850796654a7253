# SPDX-License-Identifier: Apache-2.0
"""tests/soak/run: VMs that come and go or are handed over, connections, TLS, reloads, for minutes or
hours, and what they leave.

After each round the daemon rests: the same VM, the same configuration, nobody connected. Then it is
counted what it holds: allocations and their bytes exactly (a library beneath its allocator counts), so
that the allocator's own habits are told apart from what somebody keeps; memory of its own by the
kernel; fds, threads. The run fails where a daemon that has warmed up still holds more and more, by one
in ten of what came and went.

Builds nothing: it takes the daemon of KVMSTATD_BUILD (default: build/).
"""

import argparse
import contextlib
import os
import re
import signal
import socket
import ssl
import struct
import sys
import time

import handing
import lab
import pki
import tap
import web
from exposed import first_sample
from faulted import Faults

PREFIX = f"soak{os.getpid()}"
TABLES_BYTES = 128 << 10
AMOUNTS = {"vms": 25, "handoffs": 25, "connections": 250, "tls": 50, "reloads": 25}  # a round
VM_GONE = 4
ALICE, NOBODY = (f"Authorization: {web.basic('alice', password)['Authorization']}\r\n"
                 for password in ("wonder", "x"))


def config(i, web_config=""):
    """All that has state of its own is on, in memory that is full soon; some of it changes with i."""
    return (f"sampling:\n  interval: {(20, 25)[i % 2]}ms\n  rules:\n"
            f'    - match: {{vm: "{PREFIX}*"}}\n      interval: {(20, 30)[i // 2 % 2]}ms\n'
            '    - match: {vm: "*"}\n      enabled: false\n'
            f"discovery: {{rescan: {(500, 700)[i % 2]}ms}}\n"
            f"recorder: {{memory: {(1, 2)[i // 4 % 2]}MiB, directory: @DIR@/dumps, dump_on: []}}\n"
            f"scheduler: {{interval: {(1, 2)[i % 2]}s}}\n"
            f"bursts: {{windows: [{('15s', '10s, 60s')[i % 2]}]}}\n"
            f"metrics: {{exclude: [{('hypercalls', 'invlpg')[i % 2]}]}}\n"
            # Who is gone without a word is gone soon.
            f"web: {{timeout: 3s, config_file: '{web_config}'}}\n"
            f"handoff: {{socket: @DIR@/{('handoff', 'other')[i % 2]}.sock, allow_users: [0]}}\n")


def n_rows(daemon, wanted):
    rows = [v for v in daemon.get("/api/v1/vms").json()["vms"] if (v["name"] or "").startswith(PREFIX)]
    return len(rows) == wanted and all(v["reason"] is None for v in rows)


def dirty_kib(pid):
    """Pages of its own: of the heap, of other anonymous mappings, of files."""
    kib, kind = {"heap": 0, "anonymous": 0, "files": 0}, None
    with open(f"/proc/{pid}/smaps", encoding="ascii") as f:
        for line in f:
            words = line.split()
            if re.fullmatch("[0-9a-f]+-[0-9a-f]+", words[0]):
                name = words[5] if len(words) > 5 else ""
                kind = {"[heap]": "heap", "": "anonymous"}.get(name, "files")
            elif words[0] == "Private_Dirty:":
                kib[kind] += int(words[1])
    return kib


class Soak:
    def __init__(self, daemon, faults, made):
        self.daemon, self.faults, self.made = daemon, faults, made
        self.done = {kind: 0 for kind in AMOUNTS}
        self.rests = []

    def vms(self, round_):
        n = AMOUNTS["vms"]
        with lab.DemoVms(vms=n, vcpus=1 + round_ % 3, name=f"{PREFIX}-{round_}", load="idle",
                         stats_fds=("keep", "none")[round_ % 2]) as demo:
            tap.wait_for(lambda: n_rows(self.daemon, n + 1), what="all VMs")
            self.daemon.metrics()
            for _, pid in demo.vms:
                os.kill(pid, (signal.SIGKILL, signal.SIGTERM)[round_ % 2])
            tap.wait_for(lambda: n_rows(self.daemon, 1), what="their end")

    def handoffs(self, round_):
        """VMs that are handed over by their VMMs, and by one that takes them back and lives on."""
        n, given = AMOUNTS["handoffs"], 5
        self.apply(config(0))
        with handing.demo_under_shim(self.daemon.folder, vms=n - given, vcpus=1 + round_ % 3,
                                     name=f"{PREFIX}-{round_}", load="idle") as demo, \
                handing.KvmHere() as kvm:
            client = kvm.client(self.daemon.folder)
            for i in range(given):
                vm = kvm.vm()
                client.vm(i, vm, f"{PREFIX}-{round_}-own{i}".encode())
                client.vcpu(i, 0, kvm.vcpu(vm, 0))
            tap.wait_for(lambda: len(re.findall('(?m)^kvm_vm_info.*source="handoff"',
                                                self.daemon.metrics())) == n,
                         what="all VMs that are handed over")
            for i in range(0, given, 2):  # the others go with the connection
                client.ask(VM_GONE, struct.pack("=Q", i))
            client.socket.close()
            for _, pid in demo.vms:
                os.kill(pid, (signal.SIGKILL, signal.SIGTERM)[round_ % 2])
        tap.wait_for(lambda: n_rows(self.daemon, 1), what="their end")

    def tls(self, round_):
        """By TCP there is TLS only, for a while; its certificate changes meanwhile."""
        path = self.made.path("web.yaml")
        with open(path, "w", encoding="utf-8") as f:
            f.write("tls_server_config: {cert_file: server.crt, key_file: server.key}\n"
                    f"basic_auth_users: {{alice: '{pki.bcrypt('wonder')}'}}\n")
        self.apply(config(0, path))
        context = ssl.create_default_context(cafile=self.made.path("ca.crt"))
        for i in range(AMOUNTS["tls"]):
            if i % 25 == 24:
                self.made.server()
            with contextlib.suppress(ConnectionError, ssl.SSLError), \
                    socket.create_connection(("127.0.0.1", self.daemon.port)) as raw:
                raw.settimeout(tap.TIMEOUT_S)
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if i % 5 == 0:
                    raw.sendall((b"", b"\x16\x03\x01\x02", os.urandom(40), b"GET /")[i // 5 % 4])
                    continue
                with context.wrap_socket(raw, server_hostname="localhost") as s:
                    who = ("", ALICE, NOBODY)[i % 3]
                    path = ("/metrics", "/api/v1/vms")[i % 4 > 1]
                    s.sendall(f"GET {path} HTTP/1.0\r\n{who}\r\n".encode())
                    while i % 7 and s.recv(65536):
                        pass
        self.apply(config(0))

    def apply(self, text):
        """A configuration, once it is in force."""
        before = self.daemon.errors().count("\n")
        self.daemon.reload(text)
        tap.wait_for(lambda: re.search("configuration reloaded|stays", "\n".join(
            self.daemon.errors().split("\n")[before:])), every_s=0.01, what="a reload")

    def connections(self, round_):
        paths = ("/metrics", "/api/v1/vms", f"/api/v1/history?vm={PREFIX}&last=1s", "/", "/nowhere",
                 f"/api/v1/history?vm={PREFIX}&last=1s&format=csv", "/-/healthy")
        for i in range(AMOUNTS["connections"]):
            with contextlib.suppress(ConnectionError), \
                    socket.create_connection(("127.0.0.1", self.daemon.port)) as s:
                s.settimeout(tap.TIMEOUT_S)
                if i % 5 == 0:
                    s.sendall((b"", b"GET /met", os.urandom(40))[i // 5 % 3])
                    continue
                kind = (b"", b"Accept-Encoding: gzip\r\n",
                        b"Accept: application/openmetrics-text\r\n")[i % 3]
                path = paths[(round_ + i) % len(paths)].encode()
                s.sendall(b"GET " + path + b" HTTP/1.0\r\n" + kind + b"\r\n")
                while i % 7 and s.recv(65536):  # every seventh does not wait for its answer
                    pass

    def reloads(self, round_):
        for i in range(AMOUNTS["reloads"]):
            self.apply(config(round_ + i) if i % 10 != 9 else "sampling: [\n")

    def rest(self):
        """The same state each time; what it then holds."""
        self.daemon.reload(config(0))
        tap.wait_for(lambda: n_rows(self.daemon, 1), what="the VM that stays")
        if self.rests:
            tap.wait_for(lambda: self.daemon.n_fds() <= self.rests[0]["fds"] + 1,
                         what="fds to be closed")
        self.daemon.metrics()
        smallest, deadline = None, time.monotonic() + 3
        # Scrapes and looks are under way now and then: what is held is the least that was seen.
        while time.monotonic() < deadline:
            now = self.faults.live()
            smallest = min(smallest or now, now)
            time.sleep(0.02)
        # What has been logged is of no interest any more, and would be read over and over.
        os.truncate(os.path.join(self.daemon.folder, "stderr"), 0)
        self.rests.append({**self.done, "live": smallest[0], "bytes": smallest[1],
                           **dirty_kib(self.daemon.pid), "fds": self.daemon.n_fds(),
                           "threads": self.daemon.n_threads()})
        say(self.rests[-1])


def say(row):
    done = " ".join(f"{row[kind]:6} {kind}" for kind in AMOUNTS)
    print(f"{done}: {row['live']:7} allocations of {row['bytes']:9} bytes; dirty KiB: "
          f"heap {row['heap']:5}, other anonymous {row['anonymous']:5}, files {row['files']:5}; "
          f"{row['fds']:3} fds, {row['threads']:2} threads", flush=True)


def judge(rests, kind):
    """Whether a daemon that has warmed up keeps something of each that ever was.

    What the rest of the host does (its processes, its VMs) comes and goes in our tables. So it is the
    least of two stretches that is compared: what is kept for ever is in that, too.
    """
    rests = rests[len(rests) // 4:]
    one, other = rests[:len(rests) // 2], rests[len(rests) // 2:]
    if len(one) < 4:
        print("too short a run to tell anything from")
        return True
    n = other[0][kind] - one[0][kind]
    least = {what: tuple(min(row[what] for row in rows) for rows in (one, other))
             for what in ("live", "bytes", "heap", "anonymous", "fds", "threads")}
    print(f"least before and after {n} {kind} (and all the rest): " +
          ", ".join(f"{what} {a} → {b}" for what, (a, b) in least.items()))
    # One allocation in ten VMs would be a leak that is hard to come by. Tables double when the host has
    # never had as many processes before.
    return (least["live"][1] - least["live"][0] <= n / 10 and
            least["bytes"][1] - least["bytes"][0] <= n * 2.4 + TABLES_BYTES and
            least["fds"][1] <= least["fds"][0] + 1 and least["threads"][1] <= least["threads"][0])


def parse_arguments():
    parser = argparse.ArgumentParser(prog="tests/soak/run", description=__doc__.split("\n")[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND",
                        help=f"what to do: {', '.join(AMOUNTS)} (default: all)")
    parser.add_argument("--minutes", type=float, default=10, help="how long (default 10)")
    parser.add_argument("--every", type=int, default=4, metavar="N", help="rest after N rounds (4)")
    options = parser.parse_args()
    for kind in options.kinds:
        if kind not in AMOUNTS:
            parser.error(f"{kind}: there are " + ", ".join(AMOUNTS))
    options.kinds = options.kinds or list(AMOUNTS)
    return options


def main():
    options = parse_arguments()
    faults, end = Faults(), time.monotonic() + 60 * options.minutes
    with lab.DemoVms(vcpus=2, name=PREFIX) as _stays, web.place() as made, \
            lab.Daemon(config(0), env=faults.env) as daemon:
        first_sample(daemon, PREFIX)
        soak, round_ = Soak(daemon, faults, made), 0
        while not soak.rests or time.monotonic() < end:
            for kind in options.kinds:
                getattr(soak, kind)(round_)
                soak.done[kind] += AMOUNTS[kind]
            round_ += 1
            if round_ % options.every == 0:
                soak.rest()
        fine = judge(soak.rests, options.kinds[0])
        tap.equal(daemon.stop(), 0, "the end")
    print("nothing is left behind" if fine else "SOMETHING GROWS")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
