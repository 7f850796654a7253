# SPDX-License-Identifier: Apache-2.0
"""kvmstatctl as its users call it, and a server that answers it what a test wants."""

import contextlib
import os
import socket
import subprocess
import threading

import lab
import tap


def run(*args, env=None, folder="/"):
    return subprocess.run([lab.program("kvmstatctl"), *args], capture_output=True, text=True,
                          check=False, timeout=lab.TIMEOUT_S, cwd=folder, stdin=subprocess.DEVNULL,
                          env={**os.environ, **(env or {})})


def good(*args, **kwargs):
    done = run(*args, **kwargs)
    tap.equal((done.returncode, done.stderr), (0, ""), f"kvmstatctl {args}")
    return done.stdout


def complaint(status, *args, **kwargs):
    """What it says when it fails: a line, and nothing on standard output."""
    done = run(*args, **kwargs)
    tap.equal((done.returncode, done.stdout), (status, ""), f"kvmstatctl {args}: {done.stderr}")
    lines = done.stderr.splitlines()
    tap.equal(len(lines) if status == 1 else 1, 1, f"lines said: {done.stderr}")
    return done.stderr


class Server:
    """A server that answers each connection by `answer(send)`, whatever it was asked."""

    def __init__(self, answer):
        self.answer = answer
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                request = b""
                while b"\r\n\r\n" not in request and (got := connection.recv(65536)):
                    request += got
                self.answer(connection.sendall, request.split()[1].decode() if request else "")

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def fixed(body, status="200 OK", headers=""):
    """`headers`: more of them, each with its end of line."""
    def answer(send, _path):
        raw = body if isinstance(body, bytes) else body.encode()
        send(f"HTTP/1.1 {status}\r\nContent-Length: {len(raw)}\r\n{headers}"
             "Connection: close\r\n\r\n".encode())
        send(raw)
    return answer


def vm_list(**more):
    """A list of one VM, as /api/v1/vms gives it."""
    return {"vms": [{"vm": "web1", "source": "bpf", "interval_ms": 100, "pid": 1, "vcpus": 1,
                     "vcpus_read": 1, **more}]}
