# SPDX-License-Identifier: Apache-2.0
"""Clients that misbehave, each kind in a process of its own until it is ended: python3 storm.py KIND
SOURCE PORT. They are bounded: in connections, and by a pause after each act."""

import contextlib
import os
import random
import select
import signal
import socket
import ssl
import sys
import time

import lab

PAUSE_S = 0.002
AT_ONCE = 250  # connections of those kinds that hold them


class Storm(lab.Process):
    """One of the kinds below, from an address of 127.0.0.0/8 of its own."""

    def __init__(self, kind, source, port):
        super().__init__([sys.executable, os.path.abspath(__file__), kind, source, str(port)])
        self.kind = kind

    def acts(self):
        """Ends it; how many acts it came to."""
        tail = ""
        if self.running():
            self.kill(signal.SIGTERM)
        while (line := self.read_line()) is not None:
            tail = line
        self.wait()
        if not tail.isdigit():
            raise AssertionError(f"{self.kind} ended by itself: {self.errors()}")
        return int(tail)


class Client:
    def __init__(self, source, port):
        self.source, self.port = source, port

    def connect(self, receive_bytes=None):
        s = socket.socket()
        s.settimeout(20)
        # What is left of so many for a minute must not keep anybody from listening on their ports.
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if receive_bytes:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        try:
            s.bind((self.source, 0))
            s.connect(("127.0.0.1", self.port))
        except BaseException:
            s.close()
            raise
        return s


def drain(s):
    while s.recv(65536):
        pass


def held(client, count, act):
    """Keeps so many connections, does something with one after the other, and replaces the dead."""
    connections = [None] * count
    while True:
        for i, s in enumerate(connections):
            try:
                if s is None:
                    connections[i] = s = client.connect()
                    s.setblocking(False)
                act(s)
                if select.select([s], [], [], 0)[0] and not s.recv(4096):
                    raise ConnectionResetError
                yield
            except OSError:
                if s is not None:
                    s.close()
                connections[i] = None


def slowloris(client):
    return held(client, AT_ONCE, lambda s: s.send(b"X"))


def silent(client):
    return held(client, AT_ONCE, lambda s: None)


def crowd(client):
    """As many as there can be, whatever becomes of them."""
    kept = []
    while True:
        for _ in range(2000):
            kept.append(client.connect())
            yield
        for s in kept:
            s.close()
        kept.clear()


def pipeline(client):
    while True:
        with contextlib.suppress(OSError), client.connect() as s:
            s.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n" * 200 +
                      b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            yield  # a slow daemon takes its time over the answers
            drain(s)
        yield


def headers(client):
    while True:
        with contextlib.suppress(OSError), client.connect() as s:
            s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 65536 + b"\r\n\r\n")
            yield  # a slow daemon takes its time over the answers
            drain(s)
        yield


def garbage(client):
    while True:
        with contextlib.suppress(OSError), client.connect() as s:
            s.sendall(random.randbytes(random.randrange(1, 3000)) + b"\r\n\r\n")
            s.shutdown(socket.SHUT_WR)
            drain(s)
        yield


def tls_garbage(client):
    """Records that begin right, and whole hellos that are followed by junk."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    while True:
        for kind in range(3):
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            hello = context.wrap_bio(incoming, outgoing)
            with contextlib.suppress(ssl.SSLWantReadError):
                hello.do_handshake()
            data = outgoing.read()
            if kind == 0:
                data = b"\x16\x03\x01\xff\xff" + random.randbytes(2000)
            elif kind == 1:
                data = data[:random.randrange(len(data))]
            with contextlib.suppress(OSError), client.connect() as s:
                s.sendall(data + b"\x17\x03\x03\x40\x00" + random.randbytes(500))
                s.shutdown(socket.SHUT_WR)
                drain(s)
            yield


def handshakes(client):
    """The dear ones: whole handshakes, after which nothing is asked."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    while True:
        with contextlib.suppress(OSError), client.connect() as s:
            context.wrap_socket(s).close()
        yield


def guesses(client):
    """A new wrong password each time; plain or TLS, whatever answers."""
    while True:
        with contextlib.suppress(OSError), client.connect() as s:
            word = "".join(random.choices("ABCDEFGHIJKLMNOP", k=16))
            s.sendall(f"GET / HTTP/1.0\r\nAuthorization: Basic YWxpY2U6{word}\r\n\r\n".encode())
            drain(s)
        yield


def brief(client):
    """Comes, asks, goes; or only comes and goes."""
    asks = False
    while True:
        with contextlib.suppress(OSError), client.connect() as s:
            asks = not asks
            if asks:
                s.sendall(b"GET /-/healthy HTTP/1.0\r\n\r\n")
                drain(s)
        yield


def drip(client):
    """Reads a byte a second of a large answer, as does each of its fellows."""
    connections = []
    while True:
        if len(connections) < 8:
            s = client.connect(4096)
            s.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            connections.append(s)
        for s in connections:
            with contextlib.suppress(OSError):
                s.settimeout(0.01)
                s.recv(1)
        yield
        time.sleep(0.5)


KINDS = (slowloris, silent, crowd, pipeline, headers, garbage, tls_garbage, handshakes, guesses, brief,
         drip)


def main(kind, source, port):
    count = 0
    acts = {k.__name__: k for k in KINDS}[kind](Client(source, int(port)))
    try:
        while True:
            try:
                next(acts)
                count += 1
            except StopIteration:
                acts = {k.__name__: k for k in KINDS}[kind](Client(source, int(port)))
            except OSError:
                acts = {k.__name__: k for k in KINDS}[kind](Client(source, int(port)))
            time.sleep(PAUSE_S)
    finally:
        print(count, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
