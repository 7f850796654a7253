# SPDX-License-Identifier: Apache-2.0
"""Peers that vanish without a word, in every phase of a connection: their cable is pulled, so neither
FIN nor RST comes. The daemon's own deadlines end what is left of them."""

import contextlib
import os
import socket
import ssl

import exposed
import lab
import netns
import pki
import tap
import watcher
import web
from web import Web, basic

t = tap.Tests()

PORT = 10177
EACH = 30  # connections in a phase
VMS, VCPUS = 6, 32
TLS = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"
USERS = f"basic_auth_users:\n  alice: {pki.bcrypt('wonder', 4)}\n"
AS_ALICE = basic("alice", "wonder")
GET = "GET {} HTTP/1.1\r\nHost: x\r\nAuthorization: " + AS_ALICE["Authorization"] + "\r\n{}"
TCP_ESTABLISHED = 1


def is_established(s):
    return s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TCP_ESTABLISHED


class Peers:
    """A connection of each kind; `context` is that of TLS, or None."""

    def __init__(self, cable, context, stack):
        self.cable, self.context, self.stack = cable, context, stack

    def connect(self):
        with self.cable.away():
            s = self.stack.enter_context(socket.socket())
        s.settimeout(lab.TIMEOUT_S)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as web.connect()
        s.connect((netns.HERE, PORT))
        return s

    def session(self):
        s = self.connect()
        if self.context:
            s = self.stack.enter_context(
                self.context.wrap_socket(s, server_hostname="localhost", suppress_ragged_eofs=False))
        return s

    def silent(self):
        return self.connect()

    def half_a_request(self):
        s = self.session()
        s.sendall(GET.format("/metrics", "X-Long: aaaa").encode())
        return s

    def reading(self):
        s = self.session()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.sendall(GET.format("/metrics", "\r\n").encode())
        tap.equal(s.recv(1), b"H", "an answer's beginning")
        return s

    def idle(self):
        s = self.session()
        s.sendall(GET.format("/-/healthy", "\r\n").encode())
        tap.check(s.recv(4096).startswith(b"HTTP/1.1 200"), "the first answer")
        return s

    def hello(self, share):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        with contextlib.suppress(ssl.SSLWantReadError):
            self.context.wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
        data = outgoing.read()
        s = self.connect()
        s.sendall(data[:int(len(data) * share)])
        return s

    def half_a_hello(self):
        return self.hello(0.5)

    def half_a_handshake(self):
        s = self.hello(1)
        tap.equal(len(s.recv(1)), 1, "the server's hello")
        return s


def config_for(name):
    timeout = "10s" if lab.sanitized() else "5s"  # in which a sanitizer's thread comes round
    return (f"sampling:\n  interval: 100ms\n  rules:\n    - match: {{vm: \"{name}*\"}}\n"
            "      interval: 100ms\n    - match: {vm: \"*\"}\n      enabled: false\n"
            f"metrics: {{histograms: vcpu}}\nweb: {{timeout: {timeout}, max_requests: 100}}\n")


def vanish(text, kinds):
    tap.require_kvm()
    name = f"gone{os.getpid()}x"
    with contextlib.ExitStack() as stack:
        cable = stack.enter_context(netns.Cable())
        made = stack.enter_context(web.place())
        stack.enter_context(lab.DemoVms(vms=VMS, vcpus=VCPUS, load="idle", name=name))
        daemon = stack.enter_context(Web(text, made.folder, config_for(name), user=AS_ALICE,
                                         args=["--web.listen-address", f"{netns.HERE}:{PORT}"]))
        tap.wait_for(lambda: daemon.by_unix("/metrics").text.count("kvm_vm_vcpus{") == VMS,
                     lab.TIMEOUT_S, what="all VMs")
        seen = watcher.Watcher(daemon, {"Unix socket": daemon.by_unix, "TCP": daemon.by_tcp})
        seen.until(0.5)
        sockets, resident = web.n_sockets(daemon), seen.resident
        answer = len(daemon.by_unix("/metrics").raw)
        ticks = watcher.Ticks(daemon, lambda: daemon.by_unix("/metrics").text)

        peers = Peers(cable, daemon.context() if daemon.tls else None, stack)
        gone = {kind: [] for kind in kinds}
        for _ in range(EACH):  # one of each after the other: the last are young, however slow this is
            for kind, those in gone.items():
                those.append(getattr(peers, kind)())
        cable.pull()
        alive = {kind: sum(map(is_established, those)) for kind, those in gone.items()}
        print(f"# vanished: {alive}")
        # On a busy machine the first of them may have been ended already; none of a kind is none.
        tap.check(all(alive.values()), f"none of some kind is left: {alive}")

        seen.until_true(lambda: web.n_sockets(daemon) <= sockets, "sockets to be closed")
        still = {kind: sum(map(is_established, those)) for kind, those in gone.items()}
        tap.equal(still, alive, "the peers heard something")
        grown = seen.resident - resident
        print(f"# {seen.words()}; {ticks.check()}; {seen.sockets} sockets; {grown} KiB more, for "
              f"answers of {answer // 1024} KiB")
        if not lab.sanitized():
            # Theirs, and those of the scrapes.
            tap.check(grown * 1024 <= (EACH + 8) * answer + (32 << 20), f"{grown} KiB more")
            left = exposed.resident_kib(daemon.pid) - resident
            tap.check(left * 1024 <= 2 * answer + (32 << 20), f"{left} KiB left")

        cable.plug_in()
        with peers.session() as s:  # there again, and answered as anybody
            s.sendall(GET.format("/-/healthy", "\r\n").encode())
            tap.check(s.recv(4096).startswith(b"HTTP/1.1 200"), "an answer over the cable")
        tap.check(" error " not in daemon.errors(), daemon.errors())
        tap.equal(daemon.stop(), 0, "exit status")


@t.test("peers that vanish, over plain HTTP")
def _():
    vanish(USERS, ("silent", "half_a_request", "reading", "idle"))


@t.test("peers that vanish, over TLS")
def _():
    vanish(TLS + USERS, ("silent", "half_a_hello", "half_a_handshake", "half_a_request", "reading",
                         "idle"))


t.main()
