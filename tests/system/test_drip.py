# SPDX-License-Identifier: Apache-2.0
"""Clients that take an answer of 100 MB a byte a second, or somewhat faster: they are cut off, what they
hold is bounded and given back, others are answered, and sampling goes on."""

import contextlib
import os
import socket
import threading
import time

import exposed
import lab
import pki
import tap
import watcher
import web
from web import Web, basic

t = tap.Tests()

TLS = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"
USERS = f"basic_auth_users:\n  alice: {pki.bcrypt('wonder', 4)}\n"
AS_ALICE = basic("alice", "wonder")
VCPUS = 64
GZIP = {"Accept-Encoding": "gzip"}


def config_for(name):
    """Every series that there can be, of our own VMs only."""
    timeout = "10s" if lab.sanitized() else "3s"  # in which a sanitizer's thread comes round
    return f"""
sampling:
  interval: 100ms
  rules:
    - match: {{vm: "{name}*"}}
      enabled: true
    - match: {{vm: "*"}}
      enabled: false
metrics: {{histograms: vcpu}}
bursts:
  windows: [1s, 2s, 5s, 10s, 15s, 20s, 30s, 60s]
  stats: ["*"]
  distribution: ["*"]
  scope: vcpu
web: {{timeout: {timeout}}}
"""


class Slow(threading.Thread):
    """Asks for everything, then takes `n` bytes each `every_s`, of what comes over the wire."""

    def __init__(self, s, n, every_s):
        super().__init__(daemon=True)
        self.n, self.every_s, self.taken = n, every_s, 0
        s.sendall(f"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: {AS_ALICE['Authorization']}"
                  "\r\n\r\n".encode())
        # Of a TLS connection a byte of its records: read by TLS, a whole record would be taken at once.
        self.socket = socket.socket(fileno=os.dup(s.fileno()))
        self.socket.settimeout(lab.TIMEOUT_S)
        self.stopping = threading.Event()
        self.start()

    def run(self):
        with contextlib.suppress(OSError):
            while not self.stopping.wait(self.every_s):
                self.taken += len(self.socket.recv(self.n))

    def end(self):
        self.stopping.set()
        self.join()
        self.socket.close()


class Server:
    """A daemon, and who asks it."""

    def __init__(self, stack, folder, text, name):
        self.stack = stack
        self.daemon = stack.enter_context(
            Web(text + USERS, folder, config_for(name), user={**AS_ALICE, **GZIP}))
        self.slow = []
        self.sockets = self.resident = self.answer = self.next_s = 0
        self.held = []  # since when, how many of their connections

    def has(self, name, vms):
        found = self.daemon.by_unix("/api/v1/vms").json()["vms"]
        return sum((vm["name"] or "").startswith(name) and vm["vcpus_read"] == VCPUS
                   for vm in found) == vms

    def n_idle(self):
        self.sockets = web.n_sockets(self.daemon)
        time.sleep(0.5)
        return web.n_sockets(self.daemon) == self.sockets

    def prepare(self):
        self.seen = watcher.Watcher(self.daemon, {"Unix socket": self.daemon.by_unix,
                                                  "TCP": self.daemon.by_tcp})
        self.answer = len(self.daemon.by_unix("/metrics").body)
        # Those of the scrapes before may not be closed yet.
        tap.wait_for(lambda: self.n_idle(), lab.TIMEOUT_S, what="connections to be closed")
        self.ticks = watcher.Ticks(self.daemon, lambda: self.daemon.by_unix("/metrics").text)
        self.resident = exposed.resident_kib(self.daemon.pid)
        exposed.reset_peak(self.daemon.pid)

    def begin(self):
        # The last one takes a good part of the answer, but not all of it in the time that it is given.
        for n, every_s in ((1, 1), (1, 1), (1 << 16, 0.5 if lab.sanitized() else 0.1)):
            s = self.daemon.connect() if self.daemon.tls else socket.create_connection(
                ("127.0.0.1", self.daemon.port), timeout=lab.TIMEOUT_S)
            slow = Slow(self.stack.enter_context(s), n, every_s)
            self.stack.callback(slow.end)
            self.slow.append(slow)

    def look(self, at_s):
        held = web.n_sockets(self.daemon) - self.sockets
        if not self.held or self.held[-1][1] != held:
            self.held.append((round(at_s, 1), held))
        if at_s >= self.next_s:
            self.seen.look()
            self.next_s = at_s + 5

    def done(self):
        """They were there, and are no more."""
        return self.held and self.held[-1][1] <= 0 and all(slow.taken for slow in self.slow)

    def check(self):
        taken = [slow.taken for slow in self.slow]
        grown = exposed.peak_kib(self.daemon.pid) - self.resident
        left = exposed.resident_kib(self.daemon.pid) - self.resident
        print(f"# TLS: {self.daemon.tls}; {self.seen.words()}; {self.ticks.check()}; taken: {taken}, held: "
              f"{self.held}; "
              f"{grown} KiB more, {left} KiB left, for answers of {self.answer // 1024} KiB")
        tap.check(all(0 < n < self.answer for n in taken), f"bytes taken: {taken}")
        if not lab.sanitized():
            # Three whole answers, and pieces of those that others are being given.
            tap.check(grown * 1024 <= 3.5 * self.answer + (64 << 20), f"{grown} KiB more")
            tap.check(left * 1024 <= 64 << 20, f"{left} KiB left")
        tap.check(" error " not in self.daemon.errors(), self.daemon.errors())
        tap.equal(self.daemon.stop(), 0, "exit status")


@t.test("a byte a second of an answer of 100 MB, and one that takes more, over HTTP and TLS")
def _():
    tap.require_kvm()
    tap.require_root()
    vms = 3 if lab.sanitized() else 14
    name = f"drip{os.getpid()}x"
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(web.place()) for _ in range(2)]
        stack.enter_context(lab.DemoVms(vms=vms, vcpus=VCPUS, load="idle", name=name))
        servers = [Server(stack, place.folder, text, name) for place, text in zip(made, ("", TLS))]
        for server in servers:
            tap.wait_for(lambda: server.has(name, vms), lab.TIMEOUT_S, what="all VMs")
        time.sleep(1)  # the series of what happens between ticks
        for server in servers:
            server.prepare()
        for server in servers:
            server.begin()
        began = time.monotonic()
        while not all(server.done() for server in servers):
            tap.check(time.monotonic() - began < lab.TIMEOUT_S,
                      f"they are not cut off: {[server.held for server in servers]}")
            for server in servers:
                server.look(time.monotonic() - began)
            time.sleep(0.2)
        for server in servers:
            server.check()


t.main()
