# SPDX-License-Identifier: Apache-2.0
"""Hostile networks: whatever comes at the listeners, limits hold, memory stays bounded, others are
answered, and sampling goes on as if nothing were."""

import contextlib
import os
import resource
import socket

import exposed
import lab
import pki
import storm
import tap
import web
from watcher import Ticks, Watcher
from web import Web, basic

t = tap.Tests()

VMS = 200
SECONDS = 12
MAX_REQUESTS = 40
# http.c: four connections a request; accept.h: 64 more that were taken and not yet looked at; and some
# that were ended and wait to be closed, by threads that a sanitizer makes slow.
CONNECTIONS_MAX = 4 * MAX_REQUESTS + 64 + (400 if lab.sanitized() else 100)
TLS = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"
USERS = f"basic_auth_users:\n  alice: {pki.bcrypt('wonder', 6)}\n"
AS_ALICE = basic("alice", "wonder")


def config_for(name):
    """Only our own VMs; all of their series, for answers that are larger than sockets' buffers."""
    timeout = "20s" if lab.sanitized() else "5s"  # in which a sanitizer's thread comes round
    return (f"sampling:\n  interval: 100ms\n  rules:\n    - match: {{vm: \"{name}*\"}}\n"
            "      interval: 100ms\n    - match: {vm: \"*\"}\n      enabled: false\n"
            f"metrics: {{histograms: vcpu}}\nweb: {{timeout: {timeout}}}\n")


def all_at_once(text, kinds):
    """The network cases together over 200 VMs, while others scrape."""
    tap.require_kvm()
    tap.require_root()
    name = f"net{os.getpid()}x"
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(web.place())
        stack.enter_context(lab.DemoVms(vms=VMS, load="idle", name=name))
        daemon = stack.enter_context(Web(text, made.folder, config_for(name), user=AS_ALICE))
        tap.wait_for(lambda: daemon.by_unix("/metrics").text.count("kvm_vm_vcpus{") == VMS,
                     lab.TIMEOUT_S, what="all VMs")
        seen = Watcher(daemon, {"Unix socket": daemon.by_unix, "TCP": daemon.by_tcp})
        seen.until(2)
        ticks = Ticks(daemon, lambda: daemon.by_unix("/metrics").text)
        resident = seen.resident
        # Each has an address of its own; one has that of the scrapes. (Where a handshake takes seconds,
        # so many come after a scrape that it is its turn to give way.)
        first = 2 if lab.sanitized() else 1
        storms = [stack.enter_context(storm.Storm(kind, f"127.0.0.{i}", daemon.port))
                  for i, kind in enumerate(kinds, first)]
        seen.until(SECONDS)
        ticked = ticks.check()
        acts = {s.kind: s.acts() for s in storms}
        answer = len(daemon.by_unix("/metrics").raw)
        grown = seen.resident - resident
        print(f"# {acts}")
        print(f"# {seen.words()}; {ticked}; {seen.sockets} sockets; {grown} KiB more, for answers of "
              f"{answer // 1024} KiB")
        tap.check(all(acts.values()), f"each did something: {acts}")
        tap.check(seen.sockets <= CONNECTIONS_MAX, f"{seen.sockets} sockets")
        if not lab.sanitized():
            # Drips hold their answers; everybody else's come and go.
            tap.check(grown * 1024 <= 16 * answer + (32 << 20), f"{grown} KiB more")
        # All of it goes when they have gone, and nobody is left who waits.
        tap.wait_for(lambda: web.n_sockets(daemon) <= 12, lab.TIMEOUT_S, what="sockets to be closed")
        tap.check(" error " not in daemon.errors(), daemon.errors())
        tap.equal(daemon.stop(), 0, "exit status")


@t.test("all at once, over plain HTTP")
def _():
    all_at_once("", ("silent", "slowloris", "crowd", "pipeline", "headers", "garbage", "tls_garbage",
                     "brief", "drip"))


@t.test("all at once, over TLS and with passwords")
def _():
    all_at_once(TLS + USERS, ("silent", "slowloris", "crowd", "garbage", "tls_garbage", "handshakes",
                              "guesses", "brief"))


def connect_many(count, ask):
    for i in range(count):
        ask(i)


@t.test("10,000 connections, one after another, leave no memory behind")
def _():
    if lab.sanitized():
        tap.skip("the memory of a sanitizer is not the program's")
    with web.place() as made, Web(TLS + USERS, made.folder, "discovery: {sources: [handoff]}\n",
                                  user=AS_ALICE) as daemon:
        context = daemon.context()

        def over_tls(i):
            raw = socket.create_connection(("127.0.0.1", daemon.port), timeout=lab.TIMEOUT_S)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with context.wrap_socket(raw, server_hostname="localhost") as s:
                s.sendall(b"GET /-/healthy HTTP/1.0\r\nAuthorization: " +
                          (AS_ALICE if i % 2 else basic("bob", "x"))["Authorization"].encode() +
                          b"\r\n\r\n")
                tap.check(s.recv(12) == (b"HTTP/1.1 200" if i % 2 else b"HTTP/1.1 401"), "answer")

        def over_unix(i):
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(daemon.unix)
                if i % 3:
                    s.sendall(b"GET /-/healthy HTTP/1.0\r\n\r\n" if i % 3 == 1 else b"GET /")
                    tap.check(i % 3 == 2 or s.recv(12) == b"HTTP/1.1 401", "answer")

        def junk(_i):
            with socket.create_connection(("127.0.0.1", daemon.port)) as s:
                s.sendall(t.random.randbytes(50))

        def some(count):
            connect_many(count, over_tls)
            connect_many(2 * count, over_unix)
            connect_many(count, junk)
            tap.wait_for(lambda: web.n_sockets(daemon) <= 12, lab.TIMEOUT_S, what="the end of all")
        some(1000)  # threads, caches and the allocator's own have their size
        sockets = web.n_sockets(daemon)
        # The heap grows in steps, which may fall anywhere; what is lost grows every time.
        grown = []
        while len(grown) < 3 and (not grown or grown[-1] > 1024):
            before = exposed.resident_kib(daemon.pid)
            some(2500)
            grown.append(exposed.resident_kib(daemon.pid) - before)
            print(f"# {grown[-1]} KiB more after 10,000 connections, {before} KiB before")
        tap.check(grown[-1] <= 1024, f"{grown} KiB more, each time")
        tap.wait_for(lambda: web.n_sockets(daemon) <= sockets, lab.TIMEOUT_S, what="sockets left")


@t.test("10,000 connections at a time: those who ask are answered")
def _():
    wanted = 10_000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < wanted + 500:
        tap.skip(f"RLIMIT_NOFILE is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    kept = []
    with lab.Daemon("discovery: {sources: [handoff]}\n") as daemon:
        try:
            for i in range(wanted):
                s = socket.socket()
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as storm.py
                # Ports of one address are not enough for all of them.
                s.bind((f"127.0.{1 + i % 7}.1", 0))
                s.connect(("127.0.0.1", daemon.port))
                kept.append(s)
                if i % 500 == 0:
                    tap.equal(daemon.get("/metrics").status, 200, f"with {i} connections")
            tap.equal(daemon.get("/metrics").status, 200, "with all connections")
            tap.check(web.n_sockets(daemon) <= CONNECTIONS_MAX, f"{web.n_sockets(daemon)} sockets")
            # Those who came last and ask now still can.
            kept[-1].settimeout(lab.TIMEOUT_S)
            kept[-1].sendall(b"GET /-/healthy HTTP/1.0\r\n\r\n")
            tap.equal(kept[-1].recv(12), b"HTTP/1.1 200", "the last of them")
        finally:
            for s in kept:
                s.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        tap.equal(daemon.get("/-/healthy").status, 200, "afterwards")


@t.test("without fds for connections, the idle ones give theirs")
def _():
    def few():
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
    # Root's daemon raises its own limit; without CAP_SYS_RESOURCE it cannot.
    keep = lab.keep_capabilities()

    def before():
        few()
        keep()
    with lab.Daemon("discovery: {sources: [handoff]}\n", preexec=before) as daemon:
        kept = []
        for _ in range(150):
            s = socket.create_connection(("127.0.0.1", daemon.port), timeout=lab.TIMEOUT_S)
            kept.append(s)
        for _ in range(10):
            tap.equal(daemon.get("/metrics").status, 200, "a scrape")
        tap.check(daemon.errors().count("cannot take a connection") == 1, daemon.errors())
        for s in kept:
            s.close()


@t.test("pipelined requests are answered in their order")
def _():
    with lab.Daemon() as daemon:
        with socket.create_connection(("127.0.0.1", daemon.port), timeout=lab.TIMEOUT_S) as s:
            s.sendall((b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n"
                       b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n") * 500 +
                      b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = b""
            while chunk := s.recv(65536):
                answer += chunk
        statuses = [line.split()[1] for line in answer.splitlines() if line.startswith(b"HTTP/1.1")]
        tap.equal(statuses, [b"200", b"404"] * 500 + [b"200"], "statuses")


t.main()
